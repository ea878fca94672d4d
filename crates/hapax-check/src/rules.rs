//! The rules, each with its grade and source, and which of them a profile applies.

use std::fmt;
use std::str::FromStr;

/// How much a rule matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Good to have.
    Practice,
    /// A specification recommends it.
    Should,
    /// Without it, a retry is not safe.
    Must,
}

impl Grade {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Practice => "practice",
            Self::Should => "SHOULD",
            Self::Must => "MUST",
        }
    }
}

impl FromStr for Grade {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "must" => Ok(Self::Must),
            "should" => Ok(Self::Should),
            "practice" => Ok(Self::Practice),
            _ => Err(format!("{text:?} is not must, should or practice")),
        }
    }
}

/// A promise that an API can be held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// How much it matters.
    pub grade: Grade,
    /// What it says.
    pub says: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

impl Rule {
    /// Whether it is broken by an effect, which the target's count shows.
    pub(crate) fn is_about_effects(self) -> bool {
        [ONE_EFFECT, ACKNOWLEDGED, INCOMPLETE, MISMATCH_EFFECT, SAFE].contains(&self)
    }
}

macro_rules! rules {
    ($($id:ident = $name:literal, $grade:ident, $says:literal, $source:literal;)*) => {
        $(pub(crate) const $id: Rule = Rule { name: $name, grade: Grade::$grade, says: $says, source: $source };)*
        /// Every rule.
        pub const ALL: &[Rule] = &[$($id),*];
    };
}

rules! {
    ONE_EFFECT = "one-effect", Must,
        "However often one request is sent, it has at most one effect.",
        "RFC 9110 section 9.2.2; draft-ietf-httpapi-idempotency-key-header section 2.6";
    ACKNOWLEDGED = "acknowledged-effect", Must,
        "A success that is answered has happened.",
        "RFC 9110 section 15.3";
    INCOMPLETE = "incomplete-has-no-effect", Must,
        "A request that did not arrive in full has no effect.",
        "RFC 9112 section 8";
    MISMATCH_EFFECT = "mismatch-has-no-effect", Must,
        "Another payload under a used key has no effect.",
        "draft-ietf-httpapi-idempotency-key-header sections 2.2 and 2.7";
    CALLER = "callers-are-apart", Must,
        "A key of one caller never gets another caller the answer.",
        "draft-ietf-httpapi-idempotency-key-header, Security Considerations";
    SAFE = "safe-has-no-effect", Must,
        "A safe method has no effect.",
        "RFC 9110 section 9.2.1";
    RESULT = "repeat-gets-result", Should,
        "A repeat gets a final answer in the end.",
        "draft-ietf-httpapi-idempotency-key-header section 2.6";
    SAME_STATUS = "same-status", Should,
        "A repeat gets the status of the first answer.",
        "draft-ietf-httpapi-idempotency-key-header section 2.6";
    SAME_BODY = "same-content", Should,
        "A repeat gets the content of the first answer, byte for byte.",
        "draft-ietf-httpapi-idempotency-key-header section 2.6; Stripe, Idempotent requests";
    CONCURRENT_ANSWER = "concurrent-answer", Should,
        "A repeat during the first attempt gets 409, or the answer of the first.",
        "draft-ietf-httpapi-idempotency-key-header sections 2.6 and 2.7";
    MISMATCH_STATUS = "mismatch-is-refused", Should,
        "Another payload under a used key is refused: 422 (ietf), 400 (stripe-v1), any 4xx (others).",
        "draft-ietf-httpapi-idempotency-key-header section 2.7; Stripe, Idempotent requests";
    KEY_REQUIRED = "missing-key-is-refused", Should,
        "An operation that requires a key refuses a request without one: 400 (ietf), any 4xx (others).",
        "draft-ietf-httpapi-idempotency-key-header section 2.7";
    BAD_KEY = "bad-key-is-refused", Should,
        "What is no key is refused: 400 (ietf), any 4xx (others).",
        "draft-ietf-httpapi-idempotency-key-header section 2.1";
    SAME_FIELDS = "same-fields", Practice,
        "A repeat gets Location, ETag, Content-Type and Link of the first answer.",
        "Stripe, Idempotent requests";
    MARKED = "replay-is-marked", Practice,
        "A replay says that it is one: Idempotent-Replayed: true.",
        "Stripe, Idempotent requests";
    INCOMPLETE_KEY = "incomplete-uses-no-key", Practice,
        "A request that did not arrive in full does not use up its key.",
        "draft-ietf-httpapi-idempotency-key-header section 2.6";
    RETRY_AFTER = "conflict-says-when", Practice,
        "A 409 to a concurrent repeat says when to come back: Retry-After.",
        "RFC 9110 section 10.2.3";
    OTHER_PATH = "paths-are-apart", Practice,
        "A used key at another path does not get the answer of the first.",
        "draft-ietf-httpapi-idempotency-key-header section 2.4; Stripe, Idempotent requests";
    PROBLEM = "refusals-are-explained", Practice,
        "A refusal says why: application/problem+json, JSON, or a Link.",
        "draft-ietf-httpapi-idempotency-key-header section 2.7; RFC 9457";
}

/// What an API is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The draft: 409, 422 and 400, errors are replayed too.
    Ietf,
    /// Stripe's API v1: another payload is 400, a key is any text up to 255 characters.
    StripeV1,
    /// Only successes are remembered; an error may run again.
    SuccessOnly,
    /// A repeat gets the resource as it is now instead of the first answer.
    CurrentState,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Ietf,
        Self::StripeV1,
        Self::SuccessOnly,
        Self::CurrentState,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ietf => "ietf",
            Self::StripeV1 => "stripe-v1",
            Self::SuccessOnly => "success-only",
            Self::CurrentState => "current-state",
        }
    }

    /// Whether a repeat has to get the first answer.
    pub(crate) fn replays(self) -> bool {
        self != Self::CurrentState
    }

    /// Whether the first answer counts when it is an error.
    pub(crate) fn remembers_errors(self) -> bool {
        matches!(self, Self::Ietf | Self::StripeV1)
    }

    /// Whether this is a fit answer to another payload.
    pub(crate) fn refuses_mismatch(self, status: u16) -> bool {
        match self {
            Self::Ietf => status == 422,
            Self::StripeV1 => status == 400,
            Self::SuccessOnly | Self::CurrentState => (400..500).contains(&status),
        }
    }

    /// Whether this is a fit answer to a missing or bad key.
    pub(crate) fn refuses_key(self, status: u16) -> bool {
        match self {
            Self::Ietf => status == 400,
            _ => (400..500).contains(&status),
        }
    }

    /// Whether this may be a key after all: outside the draft, whose keys are strings of structured fields, it is any text of 1 to
    /// 255 characters.
    pub(crate) fn is_key(self, text: &str) -> bool {
        self != Self::Ietf && (1..=255).contains(&text.len())
    }

    /// Whether "not now" may be said with this status.
    pub(crate) fn may_defer(self, status: u16) -> bool {
        match self {
            Self::Ietf | Self::StripeV1 => [409, 429, 503].contains(&status),
            Self::SuccessOnly | Self::CurrentState => [409, 423, 425, 429, 503].contains(&status),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| {
                format!("{text:?} is not ietf, stripe-v1, success-only or current-state")
            })
    }
}
