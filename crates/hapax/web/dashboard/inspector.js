// What happened to a key: looked up by scope and key, or by a record's id; one lane an attempt; what can be done about it.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { get, post } from "./api.js";
import { actions } from "./dialog.js";
import { Lanes } from "./lanes.js";
import { admin, command, moment } from "./text.js";

export function Inspector({ picked, onPick, role, scopes, onAct, version }) {
  const [part, setPart] = useState(scopes[0] ?? "");
  const [value, setValue] = useState("");
  const [key, setKey] = useState("");
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState(null);
  const section = useRef(null);
  useEffect(() => { if (picked) section.current?.scrollIntoView({ block: "start" }); }, [picked]);
  useEffect(() => { if (!part && scopes[0]) setPart(scopes[0]); }, [scopes]);

  const look = async (event) => {
    event.preventDefault();
    setProblem(null);
    setFound(null);
    try {
      const scope = part && value ? [{ part, value }] : [];
      const { records } = await post("records:lookup", { scope, key });
      setFound(records);
      if (records.length) onPick(records[0].id);
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`
    <section class="card inspector" id="inspector" ref=${section} aria-labelledby="inspector-title">
      <h2 id="inspector-title">What happened to this key?</h2>
      <form class="lookup" onSubmit=${look}>
        <label>Who sent it
          <select name="part" value=${part} onChange=${(event) => setPart(event.target.value)}>
            ${scopes.map((one) => html`<option value=${one}>${one}</option>`)}
          </select></label>
        <label>Value of it <small>(empty: the request had none)</small>
          <input name="value" type="password" autocomplete="off" value=${value} onInput=${(event) => setValue(event.target.value)} /></label>
        <label>Idempotency key
          <input name="key" required maxlength="255" autocomplete="off" spellcheck="false" value=${key} onInput=${(event) => setKey(event.target.value)} /></label>
        <button class="primary">Look up</button>
      </form>
      <p class="note">Neither is put into a URL, stored or logged. In a terminal, with the key in a file${part && value ? html` and <code>${part} VALUE</code> in another` : ""}: <code>${command("hapax", "keys", "lookup", "--key-file", "key.txt", ...(part && value ? ["--scope-file", "scope.txt"] : []), ...admin())}</code></p>
      <p class="problem" role="alert">${problem}</p>
      ${found && found.length === 0 && html`<p class="calm">No record: the key is vacant. The next request with it executes.</p>`}
      ${picked && html`<${Record} id=${picked} role=${role} onAct=${onAct} version=${version} onClose=${() => onPick(null)} />`}
    </section>`;
}

function Record({ id, role, onAct, version, onClose }) {
  const [record, setRecord] = useState(null);
  const [problem, setProblem] = useState(null);
  const [content, setContent] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    const load = () => get(`records/${id}`).then(
      (one) => { if (isCurrent) { setRecord(one); setProblem(null); } },
      (error) => { if (isCurrent) { setProblem(error.status === 404 ? "There is no such record any more: the key is vacant." : error.message); setRecord(null); } },
    );
    setContent(null);
    load();
    const beat = setInterval(load, 4000);
    return () => { isCurrent = false; clearInterval(beat); };
  }, [id, version]);
  const show = async () => {
    try {
      setContent((await get(`records/${id}?content=show`)).content ?? "none");
    } catch (error) {
      setProblem(error.message);
    }
  };
  if (problem && !record) return html`<p class="problem" role="alert">${problem}</p>`;
  if (!record) return html`<p class="note">Looking…</p>`;
  const isOperator = role === "operator";
  return html`
    <article class="record">
      <header class="row">
        <h3><span class=${`state ${record.state}`}>${record.state}</span> ${record.route}</h3>
        <span class="spacer"></span>
        <button class="quiet" onClick=${onClose}>Close</button>
      </header>
      <dl class="facts">
        <div><dt>Record</dt><dd><code>${record.id}</code></dd></div>
        <div><dt>Scope</dt><dd><code>${record.scope_id}</code></dd></div>
        <div><dt>Sent to the upstream</dt><dd>${record.attempt === 1 ? "once" : `${record.attempt} times`}</dd></div>
        <div><dt>Claimed</dt><dd>${moment(record.claimed_at)}</dd></div>
        <div><dt>Last written</dt><dd>${moment(record.written_at)}</dd></div>
        <div><dt>Vacant again</dt><dd>${record.expires_at ? moment(record.expires_at) : "when it is settled"}</dd></div>
        ${record.trace_id && html`<div><dt>Trace</dt><dd><code>${record.trace_id}</code></dd></div>`}
        ${record.response && html`<div><dt>Stored answer</dt><dd>${record.response.status}, ${record.response.content === "stored" ? `${record.response.bytes} bytes` : "content not kept"}${record.response.content_type ? `, ${record.response.content_type}` : ""}</dd></div>`}
      </dl>
      <${Lanes} timeline=${record.timeline} />
      ${record.response && html`
        <div class="content">
          ${content === null
    ? html`<button class="quiet" disabled=${!isOperator} onClick=${show}>Show the stored answer</button> <small>${isOperator ? "It may be personal; that you looked is written into the audit log." : "For operators."}</small>`
    : html`<${Content} content=${content} />`}
        </div>`}
      <div class="acts">
        ${Object.entries(actions).map(([name, action]) => {
    const preview = record.actions[action.preview];
    if (!preview?.is_allowed) return null;
    return html`<button class=${action.isDangerous ? "danger" : "primary"} disabled=${!isOperator} onClick=${() => onAct(record, name)}>${action.title}<small> → ${preview.leads_to}</small></button>`;
  })}
        ${Object.values(record.actions).every((preview) => !preview.is_allowed) && html`<p class="note">Nothing can be done now: ${Object.values(record.actions)[0]?.because}.</p>`}
      </div>
      <p class="twin">In a terminal: <code>${command("hapax", "keys", "show", record.id, ...(content ? ["--content"] : []), ...admin())}</code></p>
    </article>`;
}

function Content({ content }) {
  if (content === "none") return html`<p class="note">No answer is stored.</p>`;
  const text = content.body ?? (content.body_base64 ? `(not text; base64)\n${content.body_base64}` : "(no content is kept)");
  return html`
    <h4>The stored answer</h4>
    <pre class="stored" tabindex="0" aria-label="Fields of the stored answer">${content.headers.map(([name, value]) => `${name}: ${value}`).join("\n")}</pre>
    <pre class="stored" tabindex="0" aria-label="Content of the stored answer">${text}</pre>`;
}
