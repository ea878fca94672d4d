// The dashboard in a real browser, over real traffic through a real gateway.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { CONFIG, PATIENCE, send, shell, startBrowser, startGateway, startUpstream, traffic } from "./dashboard-support.js";

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

let upstream;
let gateway;
let browser;

before(async () => {
  upstream = await startUpstream();
  gateway = await startGateway(upstream.url, { config: CONFIG });
  browser = await startBrowser();
  await traffic(gateway.gateway, 2);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  upstream?.close();
});

// A page whose complaints and foreign requests are kept.
async function open(base = gateway.admin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) page.complaints.push(message.text()); });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => { if (new URL(request.url()).origin !== base) page.complaints.push(`foreign request: ${request.url()}`); });
  await page.goto(`${base}/`);
  return page;
}

const close = (page) => page.context().close();
const api = async (path, options) => (await fetch(`${gateway.admin}/api/v1/${path}`, options)).json();

async function assertAccessible(page, what) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags }), RULES);
  const found = violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target).join("; ")})`);
  assert.deepEqual(found, [], what);
}

async function lookUp(page, key, authorization = "") {
  await page.fill("[name=value]", authorization);
  await page.fill("[name=key]", key);
  await page.getByRole("button", { name: "Look up" }).click();
  await page.waitForSelector(".record .lanes");
}

describe("with traffic", () => {
  test("every panel shows what happened, and the page complains of nothing", async () => {
    const page = await open();
    const { duplicates_stopped: stopped } = await api("status");
    assert.ok(stopped > 10);
    await page.waitForFunction((n) => document.querySelector(".hero .big")?.textContent === n.toLocaleString("en"), stopped);
    // Charts begin with the first step that is over.
    await page.waitForFunction(() => [...document.querySelectorAll("figure .area")].some((path) => /,(?!160\.0)\d/.test(path.getAttribute("d"))));
    await page.waitForFunction(() => [...document.querySelectorAll("figure .line")].some((path) => path.getAttribute("d").length > 4));
    assert.equal(await page.locator(".banner.person").count(), 1);
    assert.match(await page.locator(".banner").innerText(), /2 operations have an unknown outcome, the oldest for .*Find out whether each happened/s);
    assert.equal(await page.locator(".case").count(), 2);
    assert.match(await page.locator(".cases").innerText(), /The upstream broke off after the request was sent/);
    assert.match(await page.locator(".cases").innerText(), /500, 8 bytes/);
    const routes = page.locator(".routes");
    assert.match(await routes.innerText(), /POST \/orders\s*enforce\s*\d+ requests, [1-9]\d* stopped/);
    await routes.locator("summary", { hasText: "POST /watched" }).click();
    assert.match(await routes.innerText(), /Enforcing would have stopped [1-9]\d* duplicates.*[1-9]\d* of them for another content/s);
    await routes.locator("summary", { hasText: "capture" }).click();
    const rule = routes.locator("li", { hasText: "capture" }).locator("tr", { hasText: "retention" });
    assert.match(await rule.innerText(), /30d.*hapax\.toml:\d+/s);
    await send(gateway.gateway, "/orders", "fresh");
    await send(gateway.gateway, "/orders", "fresh");
    await page.waitForFunction(() => /replayed.*POST \/orders/s.test(document.querySelector(".feed .rows").textContent));
    for (let i = 0; i < 4; i++) await send(gateway.gateway, "/slow", "four-times");
    await lookUp(page, "four-times");
    assert.match(await page.locator(".record .facts").innerText(), /Sent to the upstream\s*once/);
    assert.deepEqual(await page.locator(".lane .title").allInnerTexts(), ["Execution 1", "Repeat × 3", "since the first"]);
    const [execution, repeat] = await page.locator(".lane .bar").evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().toJSON()));
    assert.ok(repeat.left >= execution.left && execution.width > 20, "one axis for all attempts");
    assert.match(await page.locator(".story").innerText(), /claimed the key, execution 1.*the upstream answered 201.*got the stored answer/s);
    assert.deepEqual(page.complaints, []);
    await close(page);
  });

  test("it passes axe in light and dark, with a record and a dialog open, on a wide and on a narrow screen", async () => {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [1280, 320]) {
        const page = await open(gateway.admin, { colorScheme, viewport: { width, height: 800 } });
        await page.waitForSelector(".case");
        await page.locator(".routes summary").first().click();
        await lookUp(page, "/orders-a0-0");
        await assertAccessible(page, `${colorScheme}, ${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(overflow, 0, `${width} px wide, nothing stands out`);
        await page.locator(".case").first().getByRole("button", { name: "It happened" }).click();
        await page.getByLabel("Give repeats an answer").check();
        await assertAccessible(page, `the dialog, ${colorScheme}, ${width}`);
        assert.deepEqual(page.complaints, []);
        await close(page);
      }
    }
  });

  test("a stored script is text, is hidden until it is asked for, and the asking is written down", async () => {
    const page = await open();
    await lookUp(page, "markup", "Bearer shopper");
    assert.ok(!(await page.content()).includes("window.stolen"), "hidden until asked for");
    await page.getByRole("button", { name: "Show the stored answer" }).click();
    const shown = page.getByLabel("Content of the stored answer");
    await shown.waitFor();
    assert.match(await shown.innerText(), /^<script>window\.stolen = 1<\/script><img/);
    assert.equal(await page.evaluate(() => window.stolen), undefined);
    assert.equal(await page.locator(".stored img, .stored script").count(), 0);
    const { entries } = await api("audit");
    assert.equal(entries[0].action, "show_content");
    await page.waitForFunction(() => /local show content/.test(document.querySelector(".audit").textContent));
    assert.deepEqual(page.complaints, []);
    await close(page);
  });

  test("what is looked up is in no URL and in no storage", async () => {
    const page = await open();
    const urls = [];
    page.on("request", (request) => urls.push(request.url()));
    await lookUp(page, "markup", "Bearer shopper");
    assert.ok(urls.length > 0 && urls.every((url) => !url.includes("markup") && !url.includes("shopper")));
    assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, history.length])), JSON.stringify([{}, {}, `${gateway.admin}/`, await page.evaluate(() => history.length)]));
    await close(page);
  });

  test("everything can be reached and read by keyboard alone, and nothing moves where motion is unwanted", async () => {
    const page = await open();
    await page.waitForSelector(".case");
    const plot = page.locator(".plot").first();
    await plot.focus();
    const before = await plot.getAttribute("aria-valuenow");
    await page.keyboard.press("Home");
    assert.equal(await plot.getAttribute("aria-valuenow"), "0");
    assert.match(await plot.getAttribute("aria-valuetext"), /^\d\d:\d\d:\d\d: Executed/);
    await page.keyboard.press("End");
    assert.ok(Number(await plot.getAttribute("aria-valuenow")) >= Number(before));
    await page.locator(".case .primary").first().focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    assert.equal(await page.evaluate(() => document.activeElement.closest("dialog") !== null), true);
    await page.keyboard.press("Escape");
    await page.waitForSelector("dialog[open]", { state: "detached" });
    const stops = await page.evaluate(() => [...document.querySelectorAll("button:not(:disabled), select, input, summary, [tabindex='0']")].every((one) => one.tabIndex >= 0));
    assert.ok(stops);
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
    await close(page);
  });

  test("a hundred thousand events at once neither freeze the page nor fill it", async () => {
    const page = await open();
    await page.waitForSelector(".case");
    const event = (n) => `id: 1-${n}\nevent: answered\ndata: {"at":"2026-01-01T00:00:00.000Z","event":"answered","record":"${String(n).padStart(32, "0")}","route":"POST /flood","outcome":"replayed","status":201,"took_ms":0}\n\n`;
    const body = Array.from({ length: 100_000 }, (_, n) => event(n + 1)).join("");
    let served = 0;
    await page.route("**/api/v1/events*", (route) => served++ === 0 ? route.fulfill({ contentType: "text/event-stream", body }) : route.abort());
    await page.evaluate(() => {
      window.worst = 0;
      let last = performance.now();
      const look = (now) => { window.worst = Math.max(window.worst, now - last); last = now; requestAnimationFrame(look); };
      requestAnimationFrame(look);
    });
    // Another filter connects anew.
    await page.locator(".feed select").selectOption("duplicates");
    await page.waitForFunction(() => /POST \/flood/.test(document.querySelector(".feed .rows").textContent));
    await page.waitForFunction(() => document.querySelectorAll(".feed .rows li").length === 60);
    const { worst, rows } = await page.evaluate(() => ({ worst: window.worst, rows: document.querySelectorAll(".feed .rows li").length }));
    assert.ok(rows <= 60, `${rows} rows`);
    assert.ok(worst < 1000, `a frame took ${Math.round(worst)} ms`);
    console.log(`# 100,000 events at once: the longest frame took ${Math.round(worst)} ms`);
    await close(page);
  });
});

describe("what people do", () => {
  test("an unknown outcome is settled with a reason, at the version that was seen, and written down", async () => {
    const page = await open();
    await send(gateway.gateway, "/fail", "did-not");
    await send(gateway.gateway, "/fail", "did");
    await lookUp(page, "did-not");
    await page.locator(".record").getByRole("button", { name: /It did not happen/ }).click();
    const dialog = page.locator("dialog");
    assert.match(await dialog.innerText(), /RUNS the operation/);
    await dialog.getByRole("button", { name: "It did not happen" }).click();
    assert.ok(await dialog.evaluate((one) => one.open), "no reason, nothing done");
    await dialog.locator("[name=reason]").fill("not in the ledger, O'Neill looked");
    await dialog.locator("[name=sure]").check();
    const twin = await dialog.locator(".twin code").first().innerText();
    assert.match(twin, /^hapax keys resolve [0-9a-f]{32} --as not_executed --reason 'not in the ledger, O'\\''Neill looked' --if-version [0-9a-f]{16} --yes --admin 127\.0\.0\.1:\d+$/);
    await dialog.getByRole("button", { name: "It did not happen" }).click();
    await page.waitForFunction(() => /unknown → vacant/.test(document.querySelector(".said").textContent));
    assert.equal((await send(gateway.gateway, "/fail", "did-not")).headers.get("idempotency-status"), "unknown");
    const { entries } = await api("audit");
    const [done, requested] = entries;
    assert.deepEqual([done.phase, requested.phase, done.reason], ["done", "requested", "not in the ledger, O'Neill looked"]);
    await page.waitForFunction(() => /local resolve.*O'Neill/.test(document.querySelector(".audit").textContent));

    await lookUp(page, "did");
    await page.locator(".record").getByRole("button", { name: /It happened/ }).click();
    await dialog.locator("[name=reason]").fill("it is there");
    await dialog.getByLabel("Give repeats an answer").check();
    await dialog.locator("[name=body]").fill('{"order":"by hand"}');
    await dialog.getByRole("button", { name: "It happened" }).click();
    await page.waitForFunction(() => /unknown → completed/.test(document.querySelector(".said").textContent));
    const replay = await fetch(`${gateway.gateway}/fail`, { method: "POST", headers: { "Idempotency-Key": "did", "Content-Type": "application/json" }, body: '{"amount":1}' });
    assert.deepEqual([replay.status, replay.headers.get("idempotent-replayed"), await replay.text()], [201, "true", '{"order":"by hand"}']);
    assert.deepEqual(page.complaints, []);
    await close(page);
  });

  test("the command lines that the page shows do what the buttons do", async () => {
    const page = await open();
    await send(gateway.gateway, "/fail", "by-hand");
    await lookUp(page, "by-hand");
    const show = await page.locator(".record > .twin code").innerText();
    assert.match(shell(show), /unknown/);
    assert.ok(shell((await page.locator(".feed .twin code").innerText()).replace("tail", "tail --help")).length > 0);
    for (const [button, name, result] of [[/It happened/, "completed", "completed"], [/Forget the record/, "release", null]]) {
      await page.locator(".record").getByRole("button", { name: button }).click();
      const dialog = page.locator("dialog");
      await dialog.locator("[name=reason]").fill(`by ${name}, from a terminal`);
      shell(await dialog.locator(".twin code").first().innerText());
      await page.keyboard.press("Escape");
      const { records } = await api("records:lookup", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: "by-hand" }) });
      assert.equal(records[0]?.state ?? null, result);
      if (result) await page.waitForFunction((state) => document.querySelector(".record .state").textContent === state, result);
    }
    await close(page);
  });

  test("a record that has changed meanwhile is left alone, and that is said", async () => {
    const page = await open();
    await send(gateway.gateway, "/fail", "raced");
    await lookUp(page, "raced");
    await page.locator(".record").getByRole("button", { name: /It happened/ }).click();
    const { records } = await api("records:lookup", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: "raced" }) });
    const [record] = records;
    const other = await fetch(`${gateway.admin}/api/v1/records/${record.id}:resolve`, { method: "POST", headers: { "Content-Type": "application/json", "If-Match": `"${record.version}"` }, body: JSON.stringify({ as: "completed", reason: "first" }) });
    assert.equal(other.status, 200);
    const dialog = page.locator("dialog");
    await dialog.locator("[name=reason]").fill("second");
    await dialog.getByRole("button", { name: "It happened" }).click();
    await dialog.getByText("The record has changed since you looked at it; nothing was done.").waitFor();
    await close(page);
  });
});

test("the empty page teaches with a request to send twice, and goes when that was done", async () => {
  const own = await startGateway(upstream.url, {});
  const page = await open(own.admin);
  const curl = await page.locator(".beginning pre").innerText();
  assert.ok(curl.includes(`curl -i ${own.gateway}/orders`) && curl.includes("Idempotency-Key: my-first-key"));
  assert.equal(await page.locator(".banner.good").count(), 1);
  await assertAccessible(page, "the empty page");
  await send(own.gateway, "/orders", "my-first-key");
  await send(own.gateway, "/orders", "my-first-key");
  await page.waitForSelector(".beginning", { state: "detached" });
  await page.waitForFunction(() => document.querySelector(".hero .big").textContent === "1");
  assert.deepEqual(page.complaints, []);
  await close(page);
  await own.stop();
});

test("a gateway that asks for a token is asked with one, and a viewer looks and changes nothing", async () => {
  const own = await startGateway(upstream.url, { tokens: "viewer:looking-0123456789\noperator:ann:acting-01234567890\n" });
  await send(own.gateway, "/fail", "k");
  const page = await open(own.admin);
  const enter = async (token) => {
    await page.locator("[name=token]").fill(token);
    await page.getByRole("button", { name: "Enter" }).click();
  };
  await page.getByText("This gateway asks for a token").waitFor();
  await assertAccessible(page, "the token form");
  await enter("wrong-0123456789012");
  await page.getByText("This gateway asks for a token").waitFor();
  await enter("looking-0123456789");
  await page.waitForSelector(".case");
  assert.ok(await page.locator(".case .primary").isDisabled());
  assert.match(await page.locator(".head").innerText(), /\(viewer\)/);
  await page.waitForSelector(".pulse.live");
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  assert.ok(!page.url().includes("looking"));
  await close(page);
  const fresh = await open(own.admin);
  await fresh.getByText("This gateway asks for a token").waitFor();
  await fresh.locator("[name=token]").fill("acting-01234567890");
  await fresh.getByRole("button", { name: "Enter" }).click();
  await fresh.waitForSelector(".case");
  assert.ok(await fresh.locator(".case .primary").isEnabled());
  assert.match(await fresh.locator(".head").innerText(), /you are ann \(operator\)/);
  await close(fresh);
  await own.stop();
});

test("a gateway that has fallen silent is said to be, and is forgotten to have been when it is back", async () => {
  const own = await startGateway(upstream.url, {});
  const page = await open(own.admin);
  await page.waitForSelector(".banner.good");
  own.freeze();
  await page.waitForSelector(".banner.bad");
  assert.match(await page.locator(".banner").innerText(), /has not answered this page for/);
  own.thaw();
  await page.waitForSelector(".banner.good");
  await close(page);
  await own.stop();
});

test("the page may load and ask nothing but its own origin, and be framed by nobody", async () => {
  for (const path of ["/", "/dashboard/app.js", "/dashboard/vendor/preact-htm.js"]) {
    const response = await fetch(gateway.admin + path);
    const policy = response.headers.get("content-security-policy");
    assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
    assert.match(policy, /frame-ancestors 'none'; require-trusted-types-for 'script'$/);
    assert.ok(!policy.includes("unsafe"));
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  }
  assert.equal((await fetch(`${gateway.admin}/dashboard/../Cargo.toml`)).status, 404);
  assert.equal((await fetch(`${gateway.admin}/dashboard/%2e%2e%2fstyle.css`)).status, 404);
});

test("a page of another origin can neither post a form, nor read, nor come in under a name of its own", async () => {
  await send(gateway.gateway, "/fail", "target");
  const { records: [record] } = await api("records:lookup", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: "target" }) });
  const action = `${gateway.admin}/api/v1/records/${record.id}:release`;
  const evil = http.createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(
    `<form id="f" method="post" enctype="text/plain" action="${action}"><input name='{"reason":"gotcha","x":"' value='"}'></form>`));
  await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
  const port = new URL(gateway.admin).port;
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP evil.test 127.0.0.1"];
  const rebinding = await chromium.launch({ executablePath: "/usr/bin/chromium", args });
  try {
    const page = await rebinding.newPage();
    await page.goto(`http://evil.test:${evil.address().port}/`);
    const [answer] = await Promise.all([page.waitForResponse(action), page.evaluate(() => document.getElementById("f").submit())]);
    assert.equal(answer.status(), 403);
    await page.waitForURL(action);
    await page.goto(`http://evil.test:${evil.address().port}/`);
    const read = await page.evaluate((url) => fetch(url).then((response) => response.status, (error) => String(error)), `${gateway.admin}/api/v1/records`);
    assert.match(String(read), /TypeError/);
    const sent = await page.evaluate((url) => fetch(url, { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"reason":"x"}' }).then((response) => response.type, (error) => String(error)), action);
    assert.equal(sent, "opaque");
    // The name of the attacker now leads to the listener.
    const rebound = await page.goto(`http://evil.test:${port}/`);
    assert.equal(rebound.status(), 421);
    assert.equal(await page.evaluate(() => fetch("/api/v1/records").then((response) => response.status)), 421);
    const still = await api(`records/${record.id}`);
    assert.deepEqual([still.state, still.version], ["unknown", record.version]);
  } finally {
    await rebinding.close();
    evil.close();
  }
});
