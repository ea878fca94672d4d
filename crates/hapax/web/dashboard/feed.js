// The live feed: takes events as fast as they come, and shows what a person can read.
//
// Text is counted when it arrives and parsed only as far as rows are shown; the page changes once an animation frame at most.

import { html, useEffect, useReducer, useRef, useState } from "./vendor/preact-htm.js";
import { events } from "./api.js";
import { admin, clock, command, compact, millis, outcomes, short } from "./text.js";

const ROWS = 60;
// What is kept for parsing between two frames: the newest of each kind wins over the rest.
const MOST_PENDING = 60;
const DUPLICATES = ["replayed", "rejected_replayed", "in_progress", "mismatch", "expired"];

const ABOUT_STREAM = new Set(["hello", "lag", "reset"]);
const OUTCOME = /"outcome":"([a-z_]+)"/;

// Collects without a page: `push` takes text of the stream, `take` gives what is new since the last `take`.
export function collector(wants = () => true) {
  let rest = "";
  let pending = [];
  let seen = 0;
  let missed = 0;
  let lastId = null;
  return {
    push(text) {
      rest += text;
      let from = 0;
      for (let end = rest.indexOf("\n\n", from); end >= 0; end = rest.indexOf("\n\n", from)) {
        const block = rest.slice(from, end);
        from = end + 2;
        const name = /^event: (.*)$/m.exec(block)?.[1];
        const data = /^data: (.*)$/m.exec(block)?.[1];
        if (!name || !data) continue;
        lastId = /^id: (.*)$/m.exec(block)?.[1] ?? lastId;
        if (name === "lag") missed += JSON.parse(data).missed;
        if (ABOUT_STREAM.has(name)) continue;
        seen++;
        if (!wants(name, OUTCOME.exec(data)?.[1])) continue;
        pending.push({ id: lastId, data });
        if (pending.length > MOST_PENDING) pending = pending.slice(-MOST_PENDING);
      }
      rest = rest.slice(from);
    },
    take() {
      const taken = { rows: pending.map(({ id, data }) => ({ id, ...JSON.parse(data) })), seen, missed };
      pending = [];
      seen = 0;
      missed = 0;
      return taken;
    },
    get lastId() { return lastId; },
  };
}

const filters = {
  all: { label: "Everything", wants: () => true },
  duplicates: { label: "Duplicates", wants: (name, outcome) => name === "answered" && DUPLICATES.includes(outcome) },
  trouble: {
    label: "Trouble",
    wants: (name, outcome) => ["became_unknown", "lease_lost", "stale_write_refused", "settlement_abandoned", "probed", "operator"].includes(name)
      || outcomes[outcome]?.group === "trouble",
  },
};

function says(row) {
  switch (row.event) {
    case "answered": return outcomes[row.outcome]?.says ?? row.outcome;
    case "claimed": return `claimed, execution ${row.attempt}`;
    case "stored": return `${row.state}, ${row.status} stored`;
    case "became_unknown": return `outcome unknown (${(row.reason || "").replaceAll("_", " ")})`;
    case "probed": return `the upstream was asked: ${(row.outcome || "").replaceAll("_", " ")}`;
    case "operator": return `an operator did: ${row.action}`;
    default: return row.event.replaceAll("_", " ");
  }
}

const tone = (row) => row.event === "answered" ? outcomes[row.outcome]?.group ?? "passed"
  : { became_unknown: "trouble", lease_lost: "trouble", settlement_abandoned: "trouble", stored: "executed" }[row.event] ?? "passed";

export function Feed({ onPick }) {
  const [filter, setFilter] = useState("all");
  const [isPaused, setPaused] = useState(false);
  const [, redraw] = useReducer((n) => n + 1, 0);
  const shown = useRef({ rows: [], rate: 0, missed: 0, state: "connecting" });
  const paused = useRef(false);
  paused.current = isPaused;

  useEffect(() => {
    const stop = new AbortController();
    const taking = collector(filters[filter].wants);
    const state = shown.current;
    state.rows = [];
    let frame = 0;
    let isStopped = false;
    let rates = [];
    const draw = () => {
      frame = 0;
      const { rows, seen, missed } = taking.take();
      const now = performance.now();
      rates = rates.filter(([at]) => now - at < 2000);
      rates.push([now, seen]);
      state.rate = rates.reduce((all, [, n]) => all + n, 0) / 2;
      state.missed += missed;
      if (!paused.current && rows.length) state.rows = [...rows.reverse(), ...state.rows].slice(0, ROWS);
      redraw();
    };
    const soon = () => { frame ||= requestAnimationFrame(draw); };
    const beat = setInterval(soon, 1000);
    const connect = async () => {
      while (!isStopped) {
        try {
          state.state = "live";
          const from = taking.lastId ? `?last_event_id=${encodeURIComponent(taking.lastId)}` : "";
          await events(`events${from}`, (text) => { taking.push(text); soon(); }, stop.signal);
        } catch (error) {
          if (isStopped) return;
          state.state = error.status === 401 ? "no token" : "away";
        }
        soon();
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    };
    connect();
    return () => {
      isStopped = true;
      stop.abort();
      clearInterval(beat);
      cancelAnimationFrame(frame);
    };
  }, [filter]);

  const { rows, rate, missed, state } = shown.current;
  return html`
    <section class="card feed" aria-labelledby="feed-title">
      <header class="row">
        <h2 id="feed-title">Live</h2>
        <span class=${`pulse ${state}`}><span aria-hidden="true"></span>${state === "live" ? `${compact(Math.round(rate))} events/s` : state}</span>
        <span class="spacer"></span>
        <label class="choice">Show <select value=${filter} onChange=${(event) => setFilter(event.target.value)}>
          ${Object.entries(filters).map(([name, { label }]) => html`<option value=${name}>${label}</option>`)}
        </select></label>
        <button class="quiet" aria-pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>${isPaused ? "Go on" : "Pause"}</button>
      </header>
      ${missed > 0 && html`<p class="note">${compact(missed)} events came faster than they could be read and are not shown.</p>`}
      <ol class="rows" tabindex="0" aria-label="Events, newest first">
        ${rows.map((row) => html`<li key=${row.id}>
          <time datetime=${row.at}>${clock(row.at)}</time>
          <span class=${`dot tone-${tone(row)}`} aria-hidden="true"></span>
          <span class="what">${row.event === "answered" ? html`<b>${row.outcome.replaceAll("_", " ")}</b> ` : ""}<span>${says(row)}</span></span>
          <span class="where">${row.route || ""}</span>
          <span class="took">${row.took_ms != null ? millis(row.took_ms) : ""}</span>
          ${row.record ? html`<button class="link" onClick=${() => onPick(row.record)} aria-label=${`${short(row.record)}: inspect this record`}>${short(row.record)}</button>` : html`<span></span>`}
        </li>`)}
      </ol>
      ${rows.length === 0 && html`<p class="note">${filter === "all" ? "Events appear here as they happen." : "None of these since this page was opened."}</p>`}
      <p class="twin">In a terminal: <code>${command("hapax", "tail", ...admin())}</code></p>
    </section>`;
}
