// Words and numbers as people read them; nothing here touches the page.

export const outcomes = {
  executed: { group: "executed", says: "ran; the upstream's answer" },
  replayed: { group: "stopped", says: "got the stored answer" },
  rejected_replayed: { group: "stopped", says: "got the stored rejection" },
  in_progress: { group: "stopped", says: "came while the first was under way: 409" },
  mismatch: { group: "refused", says: "reused a key for another request: 422" },
  expired: { group: "refused", says: "brought an expired key: 422" },
  key_missing: { group: "refused", says: "had no key where one is required: 400" },
  key_invalid: { group: "refused", says: "had a key that is none: 400" },
  refused: { group: "refused", says: "was refused before the store was touched" },
  unknown: { group: "trouble", says: "has an outcome that nobody can know" },
  store_error: { group: "trouble", says: "met a store that could not be asked: 503" },
  upstream_error: { group: "trouble", says: "did not reach the upstream" },
  unkeyed: { group: "passed", says: "had no key and passed through" },
  observed: { group: "passed", says: "passed through on an observing route" },
};

export const groups = {
  executed: "Executed",
  stopped: "Duplicates answered from the record",
  refused: "Refused",
  trouble: "Unknown or failed",
  passed: "Passed through",
};

export const reasons = {
  lease_lapsed: "The process that held it did not come back within the lease.",
  restarted: "The process ended while the operation was under way.",
  upstream_failed: "The upstream broke off after the request was sent.",
  upstream_timeout: "The upstream did not answer in time.",
  upstream_answered: "The upstream answered with an error that does not say whether it happened.",
};

export function count(number) {
  return number == null ? "–" : number.toLocaleString("en");
}

export function compact(number) {
  if (number == null) return "–";
  if (Math.abs(number) < 10_000) return number.toLocaleString("en", { maximumFractionDigits: 1 });
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);
}

export function bytes(number) {
  if (number == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit++; }
  return `${number.toFixed(unit && number < 10 ? 1 : 0)} ${units[unit]}`;
}

export function millis(ms) {
  if (ms == null) return "–";
  if (ms === 0) return "< 1 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return span(ms / 1000);
}

export function span(seconds) {
  if (seconds == null) return "–";
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of parts) if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return seconds >= 10 ? `${Math.floor(seconds)} s` : `${Math.max(0, seconds).toFixed(seconds < 1 ? 2 : 1)} s`;
}

export function ago(instant, now = Date.now()) {
  return `${span(Math.max(0, (now - Date.parse(instant)) / 1000))} ago`;
}

export function clock(instant) {
  return new Date(instant).toLocaleTimeString("en-GB", { hour12: false });
}

export function moment(instant) {
  const date = new Date(instant);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock(instant) : `${date.toISOString().slice(0, 10)} ${clock(instant)}`;
}

export function short(id) {
  return id ? id.slice(0, 8) : "";
}

// A word for a shell: quoted where it must be.
export function shell(word) {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`;
}

export function command(...words) {
  return words.filter((word) => word !== null && word !== undefined).map(shell).join(" ");
}

// The same address for the command line, where it is not the default one.
export function admin() {
  const host = location.host.replace(/^localhost(?=:|$)/, "127.0.0.1");
  return host === "127.0.0.1:9090" ? [] : ["--admin", host];
}
