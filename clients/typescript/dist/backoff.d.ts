/**
 * How long to wait, and what a retry may cost (P43). Pure but for the budgets, which are counters.
 * @module
 */
/** Tokens of a host's full budget. */
export declare const BUDGET = 500;
/**
 * Full jitter: a part of `min(20 s, base · 2ⁿ)`, in whole milliseconds.
 * @param {number} n how many retries were made before this one
 * @param {boolean} throttled base of 1 s instead of 50 ms
 * @param {number} random in [0, 1)
 */
export declare function backoff(n: number, throttled: boolean, random: number): number;
/**
 * What the server asks to wait, in milliseconds: the field, else the member of the problem, else 0.
 * @param {string | null} field `Retry-After`
 * @param {number | null} member `retry_after` of the problem, in milliseconds
 * @param {number} nowMs the wall clock, in milliseconds since 1970
 */
export declare function retryAfter(field: string | null, member: number | null, nowMs: number): number;
/** Tokens for the retries towards one host. When a server is down, they run out, and with them the extra load. */
export declare class Budget {
    /** What is left. */
    tokens: number;
    /**
     * Takes the cost of a retry, or nothing if too little is left.
     * @param {number} cost in tokens
     * @returns {boolean} whether it was there
     */
    take(cost: number): boolean;
    /**
     * A final answer came: gives back what its last retry took, or one token.
     * @param {number} cost in tokens; 0 without a retry
     */
    success(cost: number): void;
}
/**
 * The budget of a host; one for the whole page or process.
 * @param {string} host name and port
 */
export declare function budgetOf(host: string): Budget;
