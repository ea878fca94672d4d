/**
 * A demo of its own for every test, and a page of a real browser on it.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const BINARY = process.env.HAPAX_BIN ?? `${process.env.CARGO_TARGET_DIR ?? `${ROOT}target`}/debug/hapax`;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What the browser logs of answers that the network lost, and of refusals: the subject of the demo, and no fault of the page. */
const EXPECTED = /^Failed to load resource: (net::ERR_EMPTY_RESPONSE|net::ERR_INTERNET_DISCONNECTED|the server responded with a status of (409|504))/;

let browser;
export async function openBrowser() {
  assert.ok(existsSync(BINARY), `${BINARY} is missing: cargo build -p hapax, or set HAPAX_BIN`);
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing: apt-get install chromium`);
  // As root, in a container, Chromium cannot make its sandbox.
  browser = await chromium.launch({ executablePath: CHROMIUM, args: process.getuid() === 0 ? ['--no-sandbox'] : [] });
}
export const closeBrowser = () => browser?.close();

/** Starts a demo; says where it is, and how to end it. */
async function startDemo({ seed, autoplay }) {
  const demo = spawn(BINARY, ['demo', '--listen', '127.0.0.1:0', '--seed', String(seed), ...(autoplay ? [] : ['--no-autoplay'])], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const end = async () => {
    if (demo.exitCode !== null) return;
    const ended = new Promise((resolve) => demo.once('exit', resolve));
    demo.kill('SIGTERM');
    await ended;
  };
  let text = '';
  for await (const chunk of demo.stdout) {
    text += chunk;
    const said = /^listening demo (http:\S+)\n/.exec(text);
    if (said) return { url: said[1], end };
  }
  throw new Error(`the demo ended: ${text}`);
}

/** A demo and a page on it, watched for everything that a page must not do. */
export async function openShop(t, { seed = 21, autoplay = false, ...context } = {}) {
  const { url, end } = await startDemo({ seed, autoplay });
  const tab = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...context });
  const page = await tab.newPage();
  const faults = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !EXPECTED.test(message.text())) faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== url) faults.push(`a request to ${request.url()}`);
  });
  t.after(async () => {
    await tab.close();
    await end();
    assert.deepEqual(faults, [], 'the page did what it must not');
  });
  await page.goto(url);
  await page.waitForSelector('body[data-ready]');
  return new Shop(url, tab, page);
}

class Shop {
  constructor(url, tab, page) {
    Object.assign(this, { url, tab, page });
  }

  async state() {
    return (await fetch(`${this.url}/demo/state`)).json();
  }

  async charges() {
    const { ledgers } = await this.state();
    return { bare: ledgers.bare?.charges, hapax: ledgers.hapax?.charges };
  }

  /** Sets the network with the page's own sliders. */
  async weather({ loss = 0, delay = 0, duplicates = 0 }) {
    for (const [id, value] of Object.entries({ loss, delay, duplicates })) await this.page.locator(`#${id}`).fill(String(value));
    await eventually('the network is as it was set', async () => {
      const { weather } = await this.state();
      return weather.loss_percent === loss && weather.delay_ms === delay && weather.duplicate_percent === duplicates;
    });
  }

  press = () => this.page.click('#confirm');

  /** Waits until a till says that it is so. */
  mood = (till, mood) => this.page.waitForSelector(`#till-${till}[data-mood="${mood}"]`, { timeout: 30_000 });

  async both(mood) {
    await this.mood('bare', mood);
    await this.mood('hapax', mood);
  }

  /** Does a step of the story by its button, to its end. */
  async step(number) {
    await this.page.click('#next');
    await this.page.waitForSelector(`#steps li:nth-child(${number})[aria-current]`);
    await this.page.waitForSelector('#steps:not([aria-busy])');
    if (number === 5) await this.mood('hapax', 'confirmed');
  }

  async isAway(role, is) {
    await eventually(`${role} is ${is ? 'away' : 'there'}`, async () => ((await this.state()).processes[role].pid === null) === is);
  }

  /** Keys that went over the wire to hapax, each once. */
  async keys() {
    const { wire } = await this.state();
    return [...new Set(wire.filter((entry) => entry.till === 'hapax').map((entry) => entry.key))];
  }

  /** What axe finds wrong with the page as it is. */
  async axe() {
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate(() =>
      globalThis.axe.run(document, {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
      }));
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(' | ')}`);
  }
}

/** Asks until it is so; a deadline instead of a sleep. */
export async function eventually(what, ask) {
  const deadline = Date.now() + 30_000;
  while (!(await ask())) {
    assert.ok(Date.now() < deadline, `it never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
