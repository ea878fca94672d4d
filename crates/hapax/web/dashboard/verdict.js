// The one sentence at the top: everything is in order, or the worst problem, since when, and what to do. Pure.

import { count, span } from "./text.js";

const sum = (column) => (column || []).reduce((all, one) => all + one, 0);

// Figures of the last minutes: enough to be present, not so many that what is over still shows.
const RECENT_STEPS = 18;
const recent = (stats, outcome) => sum((stats?.requests?.[outcome] || []).slice(-RECENT_STEPS));

export function verdict({ status, stats, silentSince, now = Date.now() }) {
  if (silentSince) {
    return bad(`hapax has not answered this page for ${span((now - silentSince) / 1000)}.`,
      "Look whether the process runs; what is below is as it was then.", "down");
  }
  if (!status) return { level: "wait", sentence: "Asking hapax how it is…", todo: "" };
  const store = status.store;
  if (store.failure) {
    return bad(`The store cannot write any more: ${store.failure}.`, "Check the disk, then restart hapax; until then new keyed requests get 503.", "hapaxstoreerrors");
  }
  if (store.damaged > 0) {
    return bad(`${count(store.damaged)} stored ${store.damaged === 1 ? "record is" : "records are"} damaged.`, "Their keys are refused. Check the disk.", "hapaxrecordsdamaged");
  }
  if (recent(stats, "store_error") > 0) {
    return bad(`In the last three minutes ${count(recent(stats, "store_error"))} requests met a store that could not be asked.`, "They got 503 and nothing was executed. The log line “the store failed” says why.", "hapaxstoreerrors");
  }
  if (store.unknown > 0) {
    const since = span(store.unknown_oldest_age_s);
    const [sentence, todo] = store.unknown === 1
      ? [`One operation has had an unknown outcome for ${since}.`, "Find out whether it happened, then settle it below. It is not run again meanwhile."]
      : [`${count(store.unknown)} operations have an unknown outcome, the oldest for ${since}.`, "Find out whether each happened, then settle them below. None is run again meanwhile."];
    return { level: "person", sentence, todo, runbook: "unknown-outcomes" };
  }
  if (status.reload && !status.reload.ok) {
    return warn("The last reload was refused; the configuration before it is in force.", status.reload.error.split("\n")[0], "hapaxreloadrefused");
  }
  if (recent(stats, "upstream_error") > 0) {
    return warn(`In the last three minutes ${count(recent(stats, "upstream_error"))} requests did not reach the upstream.`, `Nothing was sent, and callers may retry. Look whether ${status.upstream} is up.`, "hapaxupstreamunreachable");
  }
  if (status.state === "draining") return warn("hapax is draining: it takes no new connections.", "Operations under way are finished first.");
  if (store.durability !== "durable") {
    return warn("Everything works, and the store forgets every key at a restart.", "For anything but a trial, use a durable store.");
  }
  return { level: "good", sentence: "Everything is in order.", todo: `Up for ${span(status.uptime_s)}; nobody is needed.` };
}

function bad(sentence, todo, runbook) {
  return { level: "bad", sentence, todo, runbook };
}

function warn(sentence, todo, runbook) {
  return { level: "warn", sentence, todo, runbook };
}
