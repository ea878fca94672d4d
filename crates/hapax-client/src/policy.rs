//! What is sent again, and what an answer means for the intent (P42, P44). Pure: no clock, no randomness, no I/O.
//!
//! The rules stand in `clients/README.md`, their cases in `clients/vectors.json`; both hold for every client.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};

use crate::backoff::{backoff, retry_after};
use crate::problem::{self, Problem};

/// Tokens that a retry takes (P43).
const COST: u32 = 14;
/// Tokens that a retry takes after 429 and 503.
const COST_THROTTLED: u32 = 5;

/// Problems that say that nothing was executed.
const NOTHING_RAN: [&str; 4] = [
    "store-unavailable",
    "overloaded",
    "request-timeout",
    "upstream-unreachable",
];

/// How an attempt failed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection was made: nothing was sent, so nothing ran.
    Connect,
    /// The connection broke; it may have run.
    Reset,
    /// No answer in time; it may have run.
    Timeout,
    /// The answer broke off; it may have run.
    Cut,
}

/// What came back from an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Nothing.
    Failed(Failure),
    /// An answer, whole.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its fields.
        fields: &'a HeaderMap,
        /// Its content; looked at only if it is a problem.
        body: &'a [u8],
    },
}

/// What an attempt is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether it carries a key.
    pub is_keyed: bool,
    /// How many attempts were made, this one included.
    pub number: u32,
    /// How many may be made.
    pub attempts: u32,
    /// Whether an earlier attempt may have run.
    pub may_have_run: bool,
    /// What is left of the host's budget.
    pub tokens: u32,
    /// Time since the first attempt began.
    pub elapsed: Duration,
    /// Time for everything, waits included.
    pub deadline: Duration,
    /// The wall clock; dates in `Retry-After` are counted from it.
    pub now: SystemTime,
    /// In [0, 1).
    pub random: f64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The answer settles the intent: its key can be forgotten.
    Final,
    /// Send the same bytes again.
    Retry {
        /// After this long.
        after: Duration,
        /// For this many tokens.
        cost: u32,
        /// Whether an attempt may have run by now.
        may_have_run: bool,
    },
    /// It may have run, and nothing more can be learned now. The key must be kept.
    Unknown(Why),
    /// Nothing ran, or the request is none of ours (no key): hand over what came.
    GiveUp(Why),
}

/// Why nothing is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The answer forbids it.
    Answer,
    /// All attempts are made.
    Attempts,
    /// The next one would begin past the deadline.
    Deadline,
    /// The host's budget does not pay for it.
    Budget,
    /// It is a POST or PATCH without a key.
    NoKey,
    /// The key is older than the server is said to keep it.
    Expired,
}

impl Why {
    /// Its name in lower case, as in logs and in `vectors.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Attempts => "attempts",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::NoKey => "no_key",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an outcome means by itself, before count, time and budget.
enum Meaning {
    Final,
    Stop {
        may_have_run: bool,
    },
    Again {
        may_have_run: bool,
        is_throttled: bool,
        after: Duration,
    },
}

/// Decides what follows from what came back.
pub fn judge(outcome: &Outcome<'_>, attempt: &Attempt<'_>) -> Decision {
    let meaning = match *outcome {
        Outcome::Failed(failure) => Meaning::Again {
            may_have_run: failure != Failure::Connect,
            is_throttled: false,
            after: Duration::ZERO,
        },
        Outcome::Answered {
            status,
            fields,
            body,
        } => of_answer(status, fields, body, attempt.now),
    };
    let may_have_run = |now: bool| !attempt.method.is_safe() && (attempt.may_have_run || now);
    let end = |may_have_run, why| {
        if may_have_run {
            Decision::Unknown(why)
        } else {
            Decision::GiveUp(why)
        }
    };
    match meaning {
        Meaning::Final => Decision::Final,
        _ if !attempt.is_keyed && !attempt.method.is_idempotent() => Decision::GiveUp(Why::NoKey),
        Meaning::Stop { may_have_run: now } => end(may_have_run(now), Why::Answer),
        Meaning::Again {
            may_have_run: now,
            is_throttled,
            after,
        } => {
            let may_have_run = may_have_run(now);
            match retry(attempt, is_throttled, after) {
                Ok((after, cost)) => Decision::Retry {
                    after,
                    cost,
                    may_have_run,
                },
                Err(why) => end(may_have_run, why),
            }
        }
    }
}

/// When, and for how many tokens, the next attempt begins; or what is used up.
fn retry(
    attempt: &Attempt<'_>,
    is_throttled: bool,
    asked: Duration,
) -> Result<(Duration, u32), Why> {
    if attempt.number >= attempt.attempts {
        return Err(Why::Attempts);
    }
    let made = attempt.number.saturating_sub(1);
    let after = asked.saturating_add(backoff(made, is_throttled, attempt.random));
    if attempt.elapsed.saturating_add(after) >= attempt.deadline {
        return Err(Why::Deadline);
    }
    let cost = if is_throttled { COST_THROTTLED } else { COST };
    if attempt.tokens < cost {
        return Err(Why::Budget);
    }
    Ok((after, cost))
}

fn of_answer(status: StatusCode, fields: &HeaderMap, body: &[u8], now: SystemTime) -> Meaning {
    let stop = |may_have_run| Meaning::Stop { may_have_run };
    let field = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    if status.is_success() {
        return Meaning::Final;
    }
    if field("idempotent-replayed") == Some("true") {
        // A replayed failure tells what the first attempt met, unless the application declared it its answer.
        let is_declared = field("idempotency-status") == Some("replayed");
        return if status.is_server_error() && !is_declared {
            stop(true)
        } else {
            Meaning::Final
        };
    }
    let problem = problem::read(fields, body);
    let ran_not = NOTHING_RAN.contains(&problem.kind.as_str());
    match problem.kind.as_str() {
        "outcome-unknown" | "key-expired" => return stop(true),
        "response-unavailable" => return Meaning::Final,
        _ => {}
    }
    let number = status.as_u16();
    let is_again = matches!(number, 408 | 425 | 429 | 500 | 502 | 503 | 504)
        || is_in_progress(number, &problem);
    if problem.is_retryable == Some(false) && status.is_server_error() {
        return stop(!ran_not);
    }
    if problem.is_retryable == Some(false) && is_again {
        return stop(false);
    }
    if is_again {
        let asked = fields
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        return Meaning::Again {
            may_have_run: !matches!(number, 425 | 429) && !ran_not,
            is_throttled: matches!(number, 429 | 503),
            after: retry_after(asked, problem.retry_after, now),
        };
    }
    match number {
        // Answers that give the key back unused (P25).
        301 | 302 | 307 | 308 | 401 | 403 | 407 | 409 | 421 | 423 | 426 => stop(false),
        _ if status.is_server_error() => stop(true),
        _ => Meaning::Final,
    }
}

fn is_in_progress(number: u16, problem: &Problem) -> bool {
    number == 409 && (problem.kind == "in-progress" || problem.is_retryable == Some(true))
}
