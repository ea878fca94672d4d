// The panels that only show: the sentence at the top, the figures, routes, what people did, and the beginning.

import { html, useState } from "./vendor/preact-htm.js";
import { useToken } from "./api.js";
import { admin, bytes, command, compact, count, millis, moment, short } from "./text.js";

const marks = { good: "✓", warn: "!", bad: "✕", person: "?", wait: "…" };

export function Banner({ verdict, onPerson }) {
  return html`
    <section class=${`banner ${verdict.level}`} role="status" aria-label="How hapax is">
      <span class="mark" aria-hidden="true">${marks[verdict.level]}</span>
      <p><strong>${verdict.sentence}</strong> ${verdict.todo}${verdict.runbook ? html` <small class="runbook">Runbook: docs/operating.md#${verdict.runbook}</small>` : ""}</p>
      ${verdict.level === "person" && html`<button class="primary" onClick=${onPerson}>Settle it</button>`}
    </section>`;
}

const sum = (column) => (column || []).reduce((all, one) => all + one, 0);
const lastOf = (column) => (column || []).filter((value) => value != null).at(-1);

export function Hero({ status, stats, window }) {
  const requests = stats ? Object.values(stats.requests).reduce((all, column) => all + sum(column), 0) : null;
  const facts = [
    ["Requests", compact(requests), `in ${window}`],
    ["Executed", compact(stats && sum(stats.requests.executed)), `in ${window}`],
    ["Under way", compact(status?.under_way), "now"],
    ["Added, p99", millis(lastOf(stats?.added_p99_ms)), "at most, of the last executed"],
    ["Records", compact(status?.store.records), `${bytes(status?.store.bytes)}, ${status?.store.durability ?? ""}`],
  ];
  return html`
    <section class="card hero" aria-labelledby="hero-title">
      <div class="number">
        <h2 id="hero-title">Duplicates stopped</h2>
        <p class="big">${count(status?.duplicates_stopped)}</p>
        <p class="note">${compact(stats && sum(stats.duplicates_stopped))} in ${window}. Without hapax, each would have run an operation a second time.</p>
      </div>
      <dl>${facts.map(([name, value, about]) => html`<div><dt>${name}</dt><dd>${value}</dd><dd class="about">${about}</dd></div>`)}</dl>
    </section>`;
}

// What enforcing would have done on observing routes, from the metrics: route → outcome → count.
export function observedOf(metrics) {
  const observed = new Map();
  for (const [, labels, value] of metrics.matchAll(/^hapax_observed_total\{(.*)\} (\S+)$/gm)) {
    const label = (name) => new RegExp(`(?:^|,)${name}="((?:[^"\\\\]|\\\\.)*)"`).exec(labels)?.[1].replace(/\\(.)/g, "$1") ?? "";
    const route = observed.get(label("route")) ?? {};
    route[label("outcome")] = Number(value);
    observed.set(label("route"), route);
  }
  return observed;
}

const WOULD_STOP = ["replayed", "rejected_replayed", "in_progress", "mismatch", "expired"];
const PLAIN = ["mode", "key", "key_from", "scope", "fingerprint", "retention", "tombstone", "wait", "lease", "on_unknown", "upstream_key", "fail_open"];

const written = (value) => value === null || value === undefined ? "not set"
  : Array.isArray(value) ? value.join(", ") || "none"
  : typeof value === "object" ? Object.entries(value).map(([name, text]) => `${name}: ${text}`).join(", ") : String(value);

export function Routes({ routes, sums, observed, window }) {
  if (!routes) return null;
  const of = new Map((sums || []).map((one) => [one.route, one]));
  return html`
    <section class="card routes" aria-labelledby="routes-title">
      <h2 id="routes-title">Routes</h2>
      <ul class="plain">
        ${routes.map((route) => {
    const figures = of.get(route.name);
    const mode = written(route.settings.mode?.value);
    const would = observed.get(route.name) ?? {};
    const stopped = WOULD_STOP.reduce((all, name) => all + (would[name] || 0), 0);
    return html`
          <li key=${route.name}><details>
            <summary>
              <b class="name">${route.name}</b><span class=${`mode ${mode}`}>${mode}</span>
              <span class="figures">${compact(figures?.requests ?? 0)} requests, ${compact(figures?.duplicates_stopped ?? 0)} stopped in ${window}</span>
            </summary>
            ${mode === "observe" && html`<p class="would">Enforcing would have stopped <b>${count(stopped)}</b> duplicates since the start${would.mismatch ? html`, <b>${count(would.mismatch)}</b> of them for another content under a known key: look whether callers reuse keys before you enforce` : ""}.</p>`}
            <table>
              <caption class="hidden">Rules of ${route.name} and where each comes from</caption>
              <thead><tr><th scope="col">Rule</th><th scope="col">In force</th><th scope="col">From</th></tr></thead>
              <tbody>${[...PLAIN, ...Object.keys(route.settings).filter((name) => !PLAIN.includes(name))].filter((name) => route.settings[name]).map((name) => html`
                <tr><th scope="row"><code>${name}</code></th><td>${written(route.settings[name].value)}</td><td class="about" title=${route.settings[name].origin}>${route.settings[name].origin.split("/").pop()}</td></tr>`)}</tbody>
            </table>
          </details></li>`;
  })}
      </ul>
      <p class="twin">In a terminal: <code>hapax config show --origin</code></p>
    </section>`;
}

export function Audit({ audit, onPick }) {
  if (!audit) return null;
  const entries = audit.entries.filter((entry) => entry.phase !== "requested").slice(0, 12);
  return html`
    <section class="card audit" aria-labelledby="audit-title">
      <h2 id="audit-title">What people did</h2>
      ${entries.length === 0 ? html`<p class="calm">Nothing yet. Every action is written down here before it is done, with who did it and why.</p>` : html`
      <ul class="plain">${entries.map((entry) => html`
        <li><time datetime=${entry.at}>${moment(entry.at)}</time>
          <span><b>${entry.who}</b> ${entry.action.replaceAll("_", " ")} ${entry.record && html`<button class="link" onClick=${() => onPick(entry.record)} aria-label=${`${short(entry.record)}: inspect this record`}>${short(entry.record)}</button>`}
          ${entry.phase !== "done" && html` <em>${entry.phase}${entry.because ? ` (${entry.because})` : ""}</em>`}${entry.reason ? html`: ${entry.reason}` : ""}</span></li>`)}</ul>`}
      ${audit.durability === "memory" && html`<p class="note">Kept in memory, as the records of this store are.</p>`}
    </section>`;
}

function Copy({ text }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text).catch(() => {});
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<div class="copy"><pre tabindex="0">${text}</pre><button class="quiet" onClick=${copy}>${isDone ? "Copied" : "Copy"}</button></div>`;
}

export function Beginning({ gateway }) {
  const curl = `curl -i ${gateway}/orders \\\n  -H 'Idempotency-Key: my-first-key' \\\n  -H 'Content-Type: application/json' -d '{"amount": 1}'`;
  return html`
    <section class="card beginning" aria-labelledby="beginning-title">
      <h2 id="beginning-title">Send the same thing twice</h2>
      <p>No keyed request has come yet. Put a path of your API in place of <code>/orders</code> and run this, twice:</p>
      <${Copy} text=${curl} />
      <p>The first answer says <code>idempotency-status: executed</code>: your API ran it. The second says <code>idempotent-replayed: true</code>: it is the first answer again, byte for byte, and your API has seen nothing. This page then shows one duplicate stopped.</p>
      <p>Change the content and keep the key, and you get <code>422</code>: a key belongs to one request.</p>
    </section>`;
}

export function TokenForm({ onDone }) {
  const [text, setText] = useState("");
  const enter = (event) => {
    event.preventDefault();
    useToken(text.trim());
    setText("");
    onDone();
  };
  return html`
    <section class="card token" aria-labelledby="token-title">
      <h2 id="token-title">This gateway asks for a token</h2>
      <form onSubmit=${enter}>
        <label>Token <small>(of the gateway's token file; kept in this tab only)</small>
          <input name="token" type="password" required autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} />
        </label>
        <button class="primary">Enter</button>
      </form>
      <p class="twin">In a terminal: <code>${command("hapax", "status", "--token-file", "token.txt", ...admin())}</code></p>
    </section>`;
}
