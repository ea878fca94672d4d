/**
 * Makes `dist`: one ESM file that a page can load as it is, and its types. `--check` says whether it is fresh.
 * The modules are laid one after the other, without their imports of each other; their top-level names are all different.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ORDER = ['backoff', 'policy', 'send', 'storage', 'intent', 'fetch', 'outbox'];
const home = new URL('.', import.meta.url).pathname;

/** @param {string} text */
const withoutImports = (text) => text.replace(/^import [^;]*;\n/gm, '');

function code() {
  const exported = readFileSync(join(home, 'src/index.js'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('export'))
    .flatMap((line) => line.slice(line.indexOf('{') + 1, line.indexOf('}')).split(','))
    .map((name) => name.trim());
  const parts = ORDER.map((name) =>
    withoutImports(readFileSync(join(home, `src/${name}.js`), 'utf8')).replace(/^export (?=async function|function|class|const)/gm, ''),
  );
  return `// hapax-client: made from src/ by build.mjs. MIT OR Apache-2.0.\n${parts.join('\n')}\nexport { ${exported.join(', ')} };\n`;
}

function types() {
  const out = mkdtempSync(join(tmpdir(), 'hapax-types-'));
  try {
    execFileSync(
      join(home, 'node_modules/.bin/tsc'),
      ['-p', join(home, 'tsconfig.json'), '--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', out],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    return Object.fromEntries([...ORDER, 'index'].map((name) => [name, readFileSync(join(out, `${name}.d.ts`), 'utf8')]));
  } finally {
    rmSync(out, { recursive: true });
  }
}

const files = { 'hapax-client.js': code() };
for (const [name, text] of Object.entries(types())) files[name === 'index' ? 'hapax-client.d.ts' : `${name}.d.ts`] = text;

const isCheck = process.argv.includes('--check');
mkdirSync(join(home, 'dist'), { recursive: true });
for (const [name, text] of Object.entries(files)) {
  const path = join(home, 'dist', name);
  if (!isCheck) writeFileSync(path, text);
  else if (readFileSync(path, 'utf8') !== text) {
    console.error(`dist/${name} is stale: npm run build`);
    process.exitCode = 1;
  }
}
