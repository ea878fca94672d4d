// A gateway, an upstream and a browser for the tests of the dashboard. Everything ends with the process.

import { execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const PATIENCE = 30_000;

function binary() {
  const target = process.env.CARGO_TARGET_DIR ?? new URL("../../../../target", import.meta.url).pathname;
  const found = [process.env.HAPAX_BIN, join(target, "debug/hapax"), join(target, "release/hapax")].find((path) => path && existsSync(path));
  if (!found) throw new Error("no hapax binary: cargo build -p hapax, or set HAPAX_BIN");
  return found;
}

// Answers 201, or as the path says: /cut breaks off, /fail answers 500, /script stores markup, /slow takes its time.
export async function startUpstream() {
  let serial = 0;
  const server = http.createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      serial++;
      const path = request.url;
      if (request.method === "GET") return response.writeHead(404).end();
      if (path.startsWith("/cut")) return request.socket.destroy();
      if (path.startsWith("/fail")) return response.writeHead(500, { "Content-Type": "text/plain" }).end("deadlock");
      if (path.startsWith("/script")) return response.writeHead(201, { "Content-Type": "text/html" }).end("<script>window.stolen = 1</script><img src=x onerror='window.stolen = 2'>");
      const send = () => response.writeHead(201, { "Content-Type": "application/json", Location: `/orders/${serial}` }).end(`{"order":${serial}}`);
      return path.startsWith("/slow") ? setTimeout(send, 40) : send();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close(); } };
}

export async function startGateway(upstream, { config = "", tokens } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "hapax-dashboard-"));
  let text = config;
  if (tokens) {
    const file = join(folder, "tokens");
    writeFileSync(file, tokens);
    chmodSync(file, 0o600);
    text += `\n[admin]\ntoken_file = ${JSON.stringify(file)}\n`;
  }
  const file = join(folder, "hapax.toml");
  writeFileSync(file, text);
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("HAPAX_")));
  const child = spawn(binary(), ["serve", "-c", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream, "--store", join(folder, "data")],
    { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (data) => { log += data; });
  const found = {};
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready: ${log}`)), PATIENCE);
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, which, url] = line.split(" ");
      found[which] = url;
      if (found.gateway && found.admin) { clearTimeout(timer); resolve(); }
    });
    child.on("exit", (code) => reject(new Error(`ended with ${code}: ${log}`)));
  });
  const stop = () => new Promise((resolve) => {
    const clean = () => { rmSync(folder, { recursive: true, force: true }); resolve(); };
    if (child.exitCode !== null || child.signalCode !== null) return clean();
    child.on("exit", clean);
    child.kill("SIGKILL");
  });
  process.on("exit", () => child.kill("SIGKILL"));
  return { ...found, stop, freeze: () => child.kill("SIGSTOP"), thaw: () => child.kill("SIGCONT") };
}

// Runs a line as a person would who copied it from the page.
export function shell(line) {
  const path = [dirname(binary()), process.env.PATH].join(delimiter);
  return execFileSync("sh", ["-c", line], { env: { PATH: path }, encoding: "utf8", timeout: PATIENCE });
}

// One keyed request; `key` null for none.
export async function send(gateway, path, key, { body = '{"amount":1}', authorization } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers["Idempotency-Key"] = key;
  if (authorization) headers.Authorization = authorization;
  const response = await fetch(gateway + path, { method: "POST", headers, body, redirect: "manual" });
  await response.arrayBuffer();
  return response;
}

export function startBrowser() {
  const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
  if (!executablePath) throw new Error("no chromium: apt-get install chromium");
  // No sandbox as root, as in a container; the pages are our own.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath, args: [...args, "--disable-dev-shm-usage"] });
}

export async function eventually(what, ask) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`it never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const CONFIG = `
[[route]]
match = "POST /orders"
fingerprint = "json"

[[route]]
match = "POST /cut"

[[route]]
match = "POST /watched"
mode = "observe"

[[route]]
match = "POST /v1/payments/{id}/capture"
key = "required"
retention = "30d"
tombstone = "30d"
`;

// Traffic that puts something into every panel.
export async function traffic(gateway, rounds = 1) {
  for (let round = 0; round < rounds; round++) {
    const at = (name) => `${name}-${round}`;
    for (const path of ["/orders", "/slow"]) {
      for (let i = 0; i < 5; i++) await send(gateway, path, at(`${path}-a${i}`));
      for (let i = 0; i < 3; i++) await send(gateway, path, at(`${path}-a${i}`));
    }
    await Promise.all([1, 2, 3].map(() => send(gateway, "/slow", at("together"))));
    await send(gateway, "/orders", at("/orders-a0"), { body: '{"amount":2}' });
    await send(gateway, "/watched", at("w"));
    await send(gateway, "/watched", at("w"));
    await send(gateway, "/watched", at("w"), { body: "other" });
    await send(gateway, "/v1/payments/7/capture", null);
    await send(gateway, "/things", null);
  }
  await send(gateway, "/cut", "broken").catch(() => {});
  await send(gateway, "/cut", "broken").catch(() => {});
  await send(gateway, "/fail", "failed");
  await send(gateway, "/script", "markup", { authorization: "Bearer shopper" });
  await send(gateway, "/script", "markup", { authorization: "Bearer shopper" });
}
