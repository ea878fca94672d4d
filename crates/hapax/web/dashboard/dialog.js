// The dialog in which a person settles a record: says what will happen, wants a reason, prints the command-line twin.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { post } from "./api.js";
import { admin, command } from "./text.js";

export const actions = {
  completed: {
    title: "It happened",
    preview: "resolve_completed",
    call: "resolve",
    does: "The record becomes completed. The operation is never sent again, and repeats get the answer you give here, or 409 “response unavailable” without one.",
    body: (reason, response) => ({ as: "completed", reason, response }),
    twin: ({ id, version }, reason, hasAnswer) => ["hapax", "keys", "resolve", id, "--as", "completed", ...(hasAnswer ? ["--response-file", "answer.json"] : []), "--reason", reason, "--if-version", version, "--yes", ...admin()],
    takesAnswer: true,
    because: "Order 17 is in the database",
  },
  not_executed: {
    title: "It did not happen",
    preview: "resolve_not_executed",
    call: "resolve",
    does: "The key becomes vacant, and the next request with it RUNS the operation. If it did happen after all, it happens twice. Be sure.",
    body: (reason) => ({ as: "not_executed", reason }),
    twin: ({ id, version }, reason) => ["hapax", "keys", "resolve", id, "--as", "not_executed", "--reason", reason, "--if-version", version, "--yes", ...admin()],
    isDangerous: true,
    because: "Order 17 is not in the database",
  },
  release: {
    title: "Forget the record",
    preview: "release",
    call: "release",
    does: "The record and its stored answer are removed, and the next request with the key RUNS the operation again.",
    body: (reason) => ({ reason }),
    twin: ({ id, version }, reason) => ["hapax", "keys", "release", id, "--reason", reason, "--if-version", version, "--yes", ...admin()],
    isDangerous: true,
    because: "The customer asked to order again",
  },
  expire: {
    title: "End its retention",
    preview: "expire",
    call: "expire",
    does: "The stored answer is given up now, as if its time were over. Where the route keeps no tombstone, the next request with the key runs the operation again.",
    body: (reason) => ({ reason }),
    twin: ({ id, version }, reason) => ["hapax", "keys", "expire", id, "--reason", reason, "--if-version", version, "--yes", ...admin()],
    isDangerous: true,
    because: "The stored answer must go",
  },
};

export function ActionDialog({ record, name, onClose, onDone }) {
  const action = actions[name];
  const dialog = useRef(null);
  const [reason, setReason] = useState("");
  const [hasAnswer, setHasAnswer] = useState(false);
  const [status, setStatus] = useState("201");
  const [body, setBody] = useState("");
  const [isSure, setSure] = useState(false);
  const [problem, setProblem] = useState(null);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => { dialog.current.showModal(); }, []);

  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    const response = hasAnswer ? { status: Number(status), headers: [], body } : undefined;
    try {
      const done = await post(`records/${record.id}:${action.call}`, action.body(reason.trim(), response), record.version);
      onDone(done);
      dialog.current.close();
    } catch (error) {
      setProblem(error.status === 412
        ? "The record has changed since you looked at it; nothing was done. Close this and look again."
        : error.message);
      setBusy(false);
    }
  };
  const words = action.twin(record, reason.trim() || "why", hasAnswer);
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="action-title">
      <form onSubmit=${send}>
        <h2 id="action-title">${action.title}</h2>
        <p class="id">${record.route} · <code>${record.id}</code></p>
        <p class=${action.isDangerous ? "danger-text" : ""}>${action.does}</p>
        <label>Why <small>(goes into the audit log with your name)</small>
          <input name="reason" required maxlength="1000" value=${reason} autocomplete="off"
            placeholder=${action.because} onInput=${(event) => setReason(event.target.value)} />
        </label>
        ${action.takesAnswer && html`
          <label class="check"><input type="checkbox" checked=${hasAnswer} onChange=${(event) => setHasAnswer(event.target.checked)} /> Give repeats an answer</label>
          ${hasAnswer && html`
            <label>Status <input name="status" inputmode="numeric" pattern="[2-5][0-9][0-9]" required value=${status} onInput=${(event) => setStatus(event.target.value)} /></label>
            <label>Content <textarea name="body" rows="4" value=${body} onInput=${(event) => setBody(event.target.value)}></textarea></label>`}`}
        ${action.isDangerous && html`<label class="check"><input name="sure" type="checkbox" required checked=${isSure} onChange=${(event) => setSure(event.target.checked)} /> I have checked: it may run again.</label>`}
        <p class="twin">In a terminal: <code>${command(...words)}</code>${hasAnswer && html` <small>with the answer in <code>answer.json</code>: <code>${JSON.stringify({ status: Number(status), headers: [], body: "…" })}</code></small>`}</p>
        <p class="problem" role="alert">${problem}</p>
        <div class="buttons">
          <button type="button" class="quiet" onClick=${() => dialog.current.close()}>Leave it</button>
          <button type="submit" class=${action.isDangerous ? "danger" : "primary"} disabled=${isBusy}>${action.title}</button>
        </div>
      </form>
    </dialog>`;
}
