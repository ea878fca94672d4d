// A record's life: one lane an attempt, all on one time axis. The axis is logarithmic, because the first milliseconds and the
// repeat of next week belong to one story.

import { html } from "./vendor/preact-htm.js";
import { millis, moment, outcomes } from "./text.js";

const AXIS = [1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000, 604_800_000];

function name(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${ms / 1000} s`;
  if (ms < 3_600_000) return `${ms / 60_000} min`;
  if (ms < 86_400_000) return `${ms / 3_600_000} h`;
  return `${ms / 86_400_000} d`;
}

export function wording(entry) {
  const took = entry.took_ms != null ? ` after ${millis(entry.took_ms)}` : "";
  switch (entry.event) {
    case "claimed": return `claimed the key, execution ${entry.attempt ?? 1}`;
    case "forwarded": return "was sent to the upstream";
    case "upstream_answered": return `the upstream answered ${entry.status}${took}`;
    case "upstream_failed": return `the upstream failed${took}`;
    case "stored": return `the answer ${entry.status ?? ""} was stored: ${entry.state}`;
    case "released": return "the key was given back";
    case "became_unknown": return `the outcome became unknown (${(entry.reason || "").replaceAll("_", " ")})`;
    case "probed": return `the upstream was asked: ${(entry.outcome || "").replaceAll("_", " ")}`;
    case "lease_lost": return "the claim was gone";
    case "stale_write_refused": return "a write under an old claim was refused";
    case "settlement_abandoned": return "the answer could not be stored";
    case "client_gone": return "its client had left";
    case "operator": return `an operator did: ${entry.action}`;
    case "answered": return `${entry.status}: ${outcomes[entry.outcome]?.says ?? entry.outcome}${took}`;
    default: return entry.event;
  }
}

// Executions are what a claim begins; an answer that is no execution's is an attempt of its own.
export function lanesOf(entries) {
  const lanes = [];
  let execution = null;
  for (const entry of entries) {
    const at = Date.parse(entry.at);
    const until = entry.last_at ? Date.parse(entry.last_at) : at;
    const isRepeat = entry.event === "answered" && entry.outcome !== "executed" && !(entry.outcome === "unknown" && execution?.isOpen);
    if (entry.event === "claimed" || !execution) {
      if (!isRepeat && entry.event !== "operator" && entry.event !== "probed") {
        execution = { kind: "execution", title: `Execution ${entry.attempt ?? 1}`, from: at, until, marks: [], isOpen: true };
        lanes.push(execution);
      }
    }
    if (isRepeat) {
      const title = entry.count > 1 ? `Repeat × ${entry.count}` : "Repeat";
      const from = entry.took_ms != null && entry.count === 1 ? at - entry.took_ms : at;
      lanes.push({ kind: outcomes[entry.outcome]?.group ?? "passed", title, from, until, marks: [entry] });
    } else if (entry.event === "operator" || entry.event === "probed") {
      lanes.push({ kind: "operator", title: entry.event === "operator" ? "Operator" : "Probe", from: at, until, marks: [entry] });
    } else if (execution) {
      execution.until = Math.max(execution.until, until);
      execution.marks.push(entry);
      if (["stored", "released", "became_unknown"].includes(entry.event)) execution.end = entry.event;
      if (entry.event === "answered") execution.isOpen = false;
    }
  }
  return lanes;
}

export function Lanes({ timeline }) {
  const lanes = lanesOf(timeline.entries);
  const start = Math.min(...lanes.map((lane) => lane.from));
  const total = Math.max(10, ...lanes.map((lane) => lane.until - start));
  const place = (at) => (100 * Math.log10(1 + Math.max(0, at - start))) / Math.log10(1 + total);
  // Labels nearer than this to each other or to the end would run together.
  let before = -20;
  const ticks = AXIS.filter((ms) => ms < total).filter((ms) => {
    const x = place(start + ms);
    if (x - before < 14 || x > 94) return false;
    before = x;
    return true;
  });
  return html`
    <div class="lanes" role="img" aria-label=${`${lanes.length} attempts on one time axis; the list below says the same`}>
      ${lanes.map((lane) => html`
        <div class="lane">
          <span class="title">${lane.title}</span>
          <span class="track">
            <span class=${`bar tone-${lane.kind === "execution" ? (lane.end === "became_unknown" ? "trouble" : "executed") : lane.kind}`}
              style=${{ left: `${place(lane.from)}%`, width: `max(6px, ${place(lane.until) - place(lane.from)}%)` }}></span>
            ${lane.marks.filter((mark) => mark.event !== "answered").map((mark) => html`
              <span class=${`moment ${mark.event}`} style=${{ left: `${place(Date.parse(mark.at))}%` }} title=${wording(mark)}></span>`)}
          </span>
        </div>`)}
      <div class="lane ticks"><span class="title">since the first</span><span class="track">
        <span class="tick" style=${{ left: "0%" }}>0</span>
        ${ticks.map((ms) => html`<span class="tick" style=${{ left: `${place(start + ms)}%` }}>${name(ms)}</span>`)}
      </span></div>
    </div>
    <ol class="story">
      ${timeline.entries.map((entry) => html`<li>
        <time datetime=${entry.at}>${moment(entry.at)}.${entry.at.slice(20, 23)}</time>
        <span>${wording(entry)}${entry.count > 1 ? ` (${entry.count} times, last ${moment(entry.last_at)})` : ""}${entry.source === "record" ? html` <small>from the record</small>` : ""}</span>
      </li>`)}
    </ol>
    ${timeline.omitted > 0 && html`<p class="note">${timeline.omitted} moments in between are no longer remembered.</p>`}
    ${!timeline.is_complete && html`<p class="note">This process remembers since ${moment(timeline.memory_since)}; what was before is known from the record alone.</p>`}`;
}
