// What a page of another origin can read of hapax's own answers, in a real browser, which is the one that decides.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";
import { PATIENCE, startBrowser, startGateway } from "./dashboard-support.js";

let upstream;
let gateway;
let browser;
let allowed; // An origin that both the upstream and hapax allow.
let upstreamOnly; // One that the upstream allows and hapax does not.
const held = [];

function listen(handler) {
  const server = http.createServer(handler);
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({
    port: server.address().port,
    close: () => { server.closeAllConnections(); server.close(); },
  })));
}

before(async () => {
  const page = await listen((request, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>a shop</title>"));
  // A CORS-aware application: any origin, with credentials. /held waits until it is let go.
  const api = await listen((request, response) => {
    request.resume();
    request.on("end", () => {
      const cors = { "Access-Control-Allow-Origin": request.headers.origin ?? "null", "Access-Control-Allow-Credentials": "true", Vary: "Origin" };
      if (request.method === "OPTIONS") {
        return response.writeHead(204, { ...cors, "Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "content-type" }).end();
      }
      const answer = () => response.writeHead(201, { ...cors, "Content-Type": "application/json" }).end('{"order":1}');
      return request.url === "/held" ? held.push(answer) : answer();
    });
  });
  allowed = `http://127.0.0.1:${page.port}`;
  upstreamOnly = `http://localhost:${page.port}`;
  upstream = { close: () => { page.close(); api.close(); } };
  const config = `[cors]\nallow_origins = [${JSON.stringify(allowed)}]\nallow_credentials = true\n`;
  gateway = await startGateway(`http://127.0.0.1:${api.port}`, { config });
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  upstream?.close();
});

async function open(origin) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(`${origin}/`);
  return page;
}

// A script's request, and all that the script gets to see.
function send(page, path, key, { body = "{}", credentials = "omit" } = {}) {
  return page.evaluate(async ({ url, key, body, credentials }) => {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    try {
      const response = await fetch(url, { method: "POST", headers, body, credentials });
      const { status } = response;
      const field = (name) => response.headers.get(name);
      return { status, body: await response.json(), retryAfter: field("retry-after"), idempotency: field("idempotency-status"), replayed: field("idempotent-replayed"), key: field("idempotency-key") };
    } catch (error) {
      return { error: error.name };
    }
  }, { url: gateway.gateway + path, key, body, credentials });
}

async function whileHeld(key, ask) {
  const first = fetch(`${gateway.gateway}/held`, { method: "POST", headers: { "Idempotency-Key": key, "Content-Type": "application/json" }, body: "{}" });
  const deadline = Date.now() + PATIENCE;
  while (held.length === 0) {
    if (Date.now() > deadline) throw new Error("the first request never came");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  try {
    return await ask();
  } finally {
    held.pop()();
    await (await first).text();
  }
}

test("a page of an allowed origin reads a 409 and when to ask again", async () => {
  const page = await open(allowed);
  for (const credentials of ["omit", "include"]) {
    const conflict = await whileHeld(`held-${credentials}`, () => send(page, "/held", `held-${credentials}`, { credentials }));
    assert.equal(conflict.status, 409);
    assert.equal(conflict.body.type, "urn:hapax:problems#in-progress");
    assert.equal(conflict.retryAfter, "1");
    assert.equal(conflict.key, `held-${credentials}`);
  }
});

test("a page of an allowed origin reads answers, replays and every other problem alike", async () => {
  const page = await open(allowed);
  const first = await send(page, "/orders", "read");
  assert.deepEqual([first.status, first.idempotency, first.replayed], [201, "executed", null]);
  const replay = await send(page, "/orders", "read");
  assert.deepEqual([replay.status, replay.idempotency, replay.replayed], [201, "replayed", "true"]);
  const reused = await send(page, "/orders", "read", { body: '{"other":1}' });
  assert.deepEqual([reused.status, reused.body.type], [422, "urn:hapax:problems#key-reused"]);
  const invalid = await send(page, "/orders", "not a key");
  assert.deepEqual([invalid.status, invalid.body.type], [400, "urn:hapax:problems#key-invalid"]);
});

test("a page of an origin that is not allowed reads no problem of hapax, and the upstream's answers as the upstream says", async () => {
  const page = await open(upstreamOnly);
  const first = await send(page, "/orders", "other-page");
  assert.deepEqual([first.status, first.idempotency], [201, "executed"]);
  assert.deepEqual(await send(page, "/orders", "other-page", { body: '{"other":1}' }), { error: "TypeError" });
  assert.deepEqual(await send(page, "/orders", "not a key"), { error: "TypeError" });
  const conflict = await whileHeld("held-other", () => send(page, "/held", "held-other"));
  assert.deepEqual(conflict, { error: "TypeError" });
  const replay = await send(page, "/orders", "other-page");
  assert.deepEqual([replay.status, replay.replayed], [201, "true"]);
});
