// The page: asks the API every few seconds, keeps what it said, and lays the panels out.

import { html, render, useCallback, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { get, metrics, onUnauthenticated } from "./api.js";
import { Chart } from "./charts.js";
import { ActionDialog } from "./dialog.js";
import { Feed } from "./feed.js";
import { Inspector } from "./inspector.js";
import { Audit, Banner, Beginning, Hero, Routes, TokenForm, observedOf } from "./panels.js";
import { Person } from "./person.js";
import { compact, groups, millis, outcomes } from "./text.js";
import { verdict } from "./verdict.js";

const ASK_EVERY = 3000;
const windows = { "15m": "15 minutes", "1h": "an hour", "5m": "5 minutes" };
// Below the first answer that is late by so much, a page says nothing of it.
const SILENCE = 4000;

function useGateway(window) {
  const [known, setKnown] = useState({ observed: new Map() });
  const [needsToken, setNeedsToken] = useState(false);
  const [isAsking, setAsking] = useState(0);
  const answeredAt = useRef(Date.now());
  useEffect(() => { onUnauthenticated(() => setNeedsToken(true)); }, []);
  const isUnderWay = useRef(false);
  const ask = useCallback(async () => {
    if (isUnderWay.current) return;
    isUnderWay.current = true;
    try {
      const [status, stats, unknown, lapsed, routes, audit, text, me] = await Promise.all([
        get("status"), get(`stats?window=${window}`), get("records?state=unknown&limit=50"),
        get("records?state=outstanding&limit=50"), get("routes"), get("audit?limit=40"), metrics(), get("whoami"),
      ]);
      answeredAt.current = Date.now();
      setNeedsToken(false);
      setKnown({
        status, stats, audit, me, routes: routes.routes, observed: observedOf(text),
        needing: [...unknown.records, ...lapsed.records.filter((record) => record.is_lapsed)]
          .sort((a, b) => a.written_at.localeCompare(b.written_at)),
        more: unknown.next !== null,
      });
    } catch {
      const since = answeredAt.current;
      if (Date.now() - since > SILENCE) setKnown((before) => ({ ...before, silentSince: since }));
    } finally {
      isUnderWay.current = false;
    }
  }, [window]);
  useEffect(() => {
    ask();
    const beat = setInterval(() => { if (!document.hidden) ask(); }, ASK_EVERY);
    const back = () => { if (!document.hidden) ask(); };
    document.addEventListener("visibilitychange", back);
    return () => { clearInterval(beat); document.removeEventListener("visibilitychange", back); };
  }, [ask, isAsking]);
  return { known, needsToken, askNow: () => setAsking((n) => n + 1) };
}

function outcomeSeries(stats) {
  return Object.entries(groups).map(([group, name]) => ({
    name, tone: group,
    values: stats.at.map((_, i) => Object.entries(stats.requests)
      .filter(([outcome]) => (outcomes[outcome]?.group ?? "passed") === group)
      .reduce((all, [, column]) => all + column[i], 0) / stats.step_s),
  }));
}

// Steps that are over and that this process has counted: the present one would always look like a fall.
function complete(stats) {
  const since = Date.parse(stats.counting_since) / 1000 - stats.step_s;
  const first = Math.max(0, Math.min(stats.at.findIndex((at) => at >= since), stats.at.length - 3));
  const last = stats.at.length - 1;
  const cut = (column) => column.slice(first, last);
  return {
    ...stats, at: cut(stats.at), added_p50_ms: cut(stats.added_p50_ms), added_p99_ms: cut(stats.added_p99_ms),
    requests: Object.fromEntries(Object.entries(stats.requests).map(([outcome, column]) => [outcome, cut(column)])),
  };
}

function shapeOf(stats) {
  return {
    at: stats.at,
    outcomes: outcomeSeries(stats),
    added: [
      { name: "half within", tone: "executed", values: stats.added_p50_ms },
      { name: "99 of 100 within", tone: "refused", values: stats.added_p99_ms },
    ],
  };
}

function App() {
  const [window, setWindow] = useState("15m");
  const [picked, setPicked] = useState(null);
  const [acting, setActing] = useState(null);
  const [said, setSaid] = useState("");
  const [version, setVersion] = useState(0);
  const { known, needsToken, askNow } = useGateway(window);
  const { status, stats, me } = known;
  const people = useRef(null);
  const scopes = useMemo(() => {
    const all = new Set((known.routes ?? []).flatMap((route) => route.settings.scope?.value ?? []));
    all.delete("none");
    return [...all];
  }, [known.routes]);
  const probing = useMemo(() => new Set((known.routes ?? [])
    .filter((route) => typeof route.settings.on_unknown?.value === "object" && route.settings.on_unknown.value)
    .map((route) => route.name)), [known.routes]);
  const shape = useMemo(() => stats && shapeOf(complete(stats)), [stats]);

  const onAct = useCallback((record, name) => setActing({ record, name }), []);
  const onDone = (done) => {
    setSaid(`Done: ${done.was} → ${done.state}. It is in the audit log.${done.warning ? ` ${done.warning}` : ""}`);
    if (done.state === "vacant" && done.id === picked) setPicked(null);
    setVersion((n) => n + 1);
    askNow();
  };
  const isNew = status && Object.entries(status.requests).every(([outcome, n]) => outcome === "unkeyed" || n === 0) && status.store.records === 0;
  if (needsToken) return html`<${Head} /><main><${TokenForm} onDone=${askNow} /></main>`;
  return html`
    <${Head} status=${status} me=${me} />
    <main>
      <${Banner} verdict=${verdict({ status, stats, silentSince: known.silentSince })} onPerson=${() => people.current?.scrollIntoView({ block: "start" })} />
      <p class="said" role="status">${said}</p>
      ${isNew && html`<${Beginning} gateway=${status.gateway} />`}
      <${Hero} status=${status} stats=${stats} window=${windows[window]} />
      <div ref=${people}><${Person} records=${known.needing} more=${known.more} role=${me?.role} probing=${probing} onAct=${onAct} onPick=${setPicked} /></div>
      <div class="row windows"><h2>Over time</h2><span class="spacer"></span>
        <label class="choice">Window <select value=${window} onChange=${(event) => setWindow(event.target.value)}>
          ${["5m", "15m", "1h"].map((one) => html`<option value=${one}>${windows[one]}</option>`)}</select></label></div>
      ${shape && html`<div class="two">
        <${Chart} title="Outcomes" unit="requests/s" isStacked at=${shape.at} series=${shape.outcomes} show=${(n) => compact(n == null ? null : Math.round(n * 10) / 10)} />
        <${Chart} title="Added latency" note="What hapax adds to a request that is executed." at=${shape.at} series=${shape.added} show=${millis} />
      </div>`}
      <div class="two wide"><${Feed} onPick=${setPicked} /><${Routes} routes=${known.routes} sums=${stats?.routes} observed=${known.observed} window=${windows[window]} /></div>
      <${Inspector} picked=${picked} onPick=${setPicked} role=${me?.role} scopes=${scopes} onAct=${onAct} version=${version} />
      <${Audit} audit=${known.audit} onPick=${setPicked} />
    </main>
    ${acting && html`<${ActionDialog} key=${acting.record.id + acting.name} record=${acting.record} name=${acting.name} onClose=${() => setActing(null)} onDone=${onDone} />`}`;
}

function Head({ status, me }) {
  return html`
    <header class="head">
      <img src="/dashboard/icon.svg" alt="" width="32" height="32" />
      <h1>hapax</h1>
      ${status && html`<p class="path"><span>${status.gateway}</span> <span aria-label="forwards to">→</span> <span>${status.upstream ?? "no upstream"}</span></p>`}
      <span class="spacer"></span>
      ${status && html`<p class="about">${status.version}, ${status.store.kind} store${me ? `, you are ${me.name} (${me.role})` : ""}</p>`}
    </header>`;
}

const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
