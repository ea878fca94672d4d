/**
 * What is sent again, and what an answer means for the intent (P42, P44). Pure: no clock, no randomness, no I/O.
 * The rules stand in clients/README.md; clients/vectors.json has their cases.
 * @module
 */
export type Failure = 'connect' | 'reset' | 'timeout' | 'cut';
export type Outcome = {
    failure: Failure;
} | {
    status: number;
    field: (name: string) => string | null;
    body: string;
};
export type Attempt = {
    /**
     * the request's method, in capitals
     */
    method: string;
    /**
     * whether the request carries a key
     */
    keyed: boolean;
    /**
     * how many attempts were made, this one included
     */
    attempt: number;
    /**
     * how many may be made
     */
    attempts: number;
    /**
     * whether an earlier attempt may have run
     */
    maybe: boolean;
    /**
     * what is left of the host's budget
     */
    tokens: number;
    /**
     * time since the first attempt began, in milliseconds
     */
    elapsedMs: number;
    /**
     * time for everything, in milliseconds
     */
    deadlineMs: number;
    /**
     * the wall clock, in milliseconds since 1970
     */
    nowMs: number;
    /**
     * a number in [0, 1)
     */
    random: number;
};
export type Decision = {
    do: 'final';
} | {
    do: 'retry';
    afterMs: number;
    cost: number;
    maybe: boolean;
} | {
    do: 'unknown';
    why: Why;
} | {
    do: 'give_up';
    why: Why;
};
export type Why = 'answer' | 'attempts' | 'deadline' | 'budget' | 'no_key';
export type Meaning = {
    kind: 'final' | 'stop' | 'again';
    maybe: boolean;
    throttled: boolean;
    afterMs: number;
};
/**
 * Decides what follows from what came back.
 * @param {Outcome} outcome
 * @param {Attempt} attempt
 * @returns {Decision}
 */
export declare function judge(outcome: Outcome, attempt: Attempt): Decision;
export type Problem = {
    kind: string;
    retryable: boolean | null;
    retryAfterMs: number | null;
};
/**
 * Whether a content type is `application/problem+json`; only then does {@link judge} look at the body.
 * @param {string | null} contentType
 */
export declare function isProblem(contentType: string | null): boolean;
