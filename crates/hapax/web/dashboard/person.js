// What needs a person: unknown outcomes with their evidence, and the ways to settle them.

import { html, useState } from "./vendor/preact-htm.js";
import { ago, command, admin, moment, reasons, short } from "./text.js";

export function Person({ records, more, role, probing, onAct, onPick }) {
  if (!records) return null;
  const isOperator = role === "operator";
  return html`
    <section class=${`card person ${records.length ? "has" : "none"}`} aria-labelledby="person-title">
      <header class="row"><h2 id="person-title">Needs a person</h2>${records.length > 0 && html`<span class="badge">${records.length}${more ? "+" : ""}</span>`}</header>
      ${records.length === 0
    ? html`<p class="calm">Nothing does. Operations whose outcome nobody can know would be listed here, with what is known of them.</p>`
    : html`
        <p class="note">Each of these reached the upstream, or may have. hapax does not run them again. Ask the upstream, by the key it got, whether the operation happened; then say so.</p>
        <ul class="cases">
          ${records.map((record) => html`<${Case} key=${record.id} record=${record} isOperator=${isOperator} isProbed=${probing.has(record.route)} onAct=${onAct} onPick=${onPick} />`)}
        </ul>
        ${more && html`<p class="note">The first 50 are shown. All of them: <code>${command("hapax", "keys", "ls", "--state", "unknown", ...admin())}</code></p>`}
        ${!isOperator && html`<p class="note">Your token may look; settling needs an operator's.</p>`}`}
    </section>`;
}

function Case({ record, isOperator, isProbed, onAct, onPick }) {
  const since = record.is_lapsed ? record.lease_until : record.written_at;
  const why = record.is_lapsed ? reasons.lease_lapsed : reasons[record.reason] ?? record.reason;
  return html`
    <li class="case">
      <div>
        <p class="route"><b>${record.route}</b> <button class="link" onClick=${() => onPick(record.id)} aria-label=${`${short(record.id)}: inspect this record`}>${short(record.id)}</button></p>
        <p>${why}</p>
        <dl class="facts">
          <div><dt>Unknown since</dt><dd><time datetime=${since} title=${moment(since)}>${ago(since)}</time></dd></div>
          <div><dt>Sent</dt><dd>${record.attempt === 1 ? "once" : `${record.attempt} times`}, first claimed ${moment(record.claimed_at)}</dd></div>
          ${record.response && html`<div><dt>The upstream said</dt><dd>${record.response.status}, ${record.response.bytes} bytes</dd></div>`}
          ${record.trace_id && html`<div><dt>Trace</dt><dd><code>${record.trace_id}</code></dd></div>`}
          <div><dt>Kept until</dt><dd>${record.expires_at ? moment(record.expires_at) : "it is settled"}</dd></div>
        </dl>
        ${isProbed && html`<p class="note">This route asks the upstream by itself and at every retry; it may settle without you.</p>`}
      </div>
      <div class="buttons">
        <button class="primary" disabled=${!isOperator} onClick=${() => onAct(record, "completed")}>It happened</button>
        <button class="danger" disabled=${!isOperator} onClick=${() => onAct(record, "not_executed")}>It did not happen</button>
        <button class="quiet" onClick=${() => onPick(record.id)}>Evidence</button>
      </div>
    </li>`;
}
