/**
 * How long to wait, and what a retry may cost (P43). Pure but for the budgets, which are counters.
 * @module
 */

const BASE_MS = 50;
const BASE_THROTTLED_MS = 1000;
const CAP_MS = 20_000;
/** Tokens of a host's full budget. */
export const BUDGET = 500;

/**
 * Full jitter: a part of `min(20 s, base · 2ⁿ)`, in whole milliseconds.
 * @param {number} n how many retries were made before this one
 * @param {boolean} throttled base of 1 s instead of 50 ms
 * @param {number} random in [0, 1)
 */
export function backoff(n, throttled, random) {
  const base = throttled ? BASE_THROTTLED_MS : BASE_MS;
  return Math.floor(random * Math.min(CAP_MS, base * 2 ** n));
}

/** The one date format that senders may generate (RFC 9110, section 5.6.7). */
const IMF_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * What the server asks to wait, in milliseconds: the field, else the member of the problem, else 0.
 * @param {string | null} field `Retry-After`
 * @param {number | null} member `retry_after` of the problem, in milliseconds
 * @param {number} nowMs the wall clock, in milliseconds since 1970
 */
export function retryAfter(field, member, nowMs) {
  if (field !== null && /^\d+$/.test(field)) return Number(field) * 1000;
  if (field !== null && IMF_DATE.test(field)) {
    const at = Date.parse(field);
    if (!Number.isNaN(at)) return Math.max(0, at - nowMs);
  }
  return member ?? 0;
}

/** Tokens for the retries towards one host. When a server is down, they run out, and with them the extra load. */
export class Budget {
  /** What is left. */
  tokens = BUDGET;

  /**
   * Takes the cost of a retry, or nothing if too little is left.
   * @param {number} cost in tokens
   * @returns {boolean} whether it was there
   */
  take(cost) {
    if (this.tokens < cost) return false;
    this.tokens -= cost;
    return true;
  }

  /**
   * A final answer came: gives back what its last retry took, or one token.
   * @param {number} cost in tokens; 0 without a retry
   */
  success(cost) {
    this.tokens = Math.min(BUDGET, this.tokens + (cost || 1));
  }
}

/** @type {Map<string, Budget>} */
const budgets = new Map();
/** Hosts remembered; beyond, the one that was asked for longest ago starts anew. */
const MAX_HOSTS = 1000;

/**
 * The budget of a host; one for the whole page or process.
 * @param {string} host name and port
 */
export function budgetOf(host) {
  const budget = budgets.get(host) ?? new Budget();
  budgets.delete(host);
  budgets.set(host, budget);
  if (budgets.size > MAX_HOSTS) budgets.delete(/** @type {string} */ (budgets.keys().next().value));
  return budget;
}
