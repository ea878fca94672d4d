//! What was sent and what came of it: all that the judge sees of a case.

use std::time::Duration;

use serde_json::Value;

use crate::answer::Answer;
use crate::fault::Fault;
use crate::message::Message;
use crate::template::{Kind, Values};
use crate::wire::Fate;

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) fault: Fault,
    pub(crate) kind: Kind,
    /// What the placeholders stood for.
    pub(crate) values: Values,
    pub(crate) steps: Vec<Step>,
    /// For `kill_target`: how long after it was sent the request the target was killed.
    pub(crate) killed_after: Option<Duration>,
    /// By the target's own count, in effects of one request; or why there is no count.
    pub(crate) counted: Result<Counted, String>,
    /// What in an answer tells one effect from another.
    pub(crate) identities: Vec<Identity>,
}

/// Effects by the target's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Of the incomplete attempt alone, where the case has one.
    pub(crate) of_incomplete: Option<i64>,
    /// Of the whole case.
    pub(crate) total: i64,
}

/// Why a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The request, for the first time.
    First,
    /// The very same request again.
    Repeat,
    /// A request that differs in what the case is about.
    Other,
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) role: Role,
    pub(crate) message: Message,
    pub(crate) fate: Fate,
    pub(crate) span: Span,
}

/// When a step was, from the beginning of its case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Step {
    /// The answer, if all of it was read.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.fate {
            Fate::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// The answer, if at least its head was read.
    pub(crate) fn seen(&self) -> Option<&Answer> {
        match &self.fate {
            Fate::Answered(answer) | Fate::Partial(answer) => Some(answer),
            _ => None,
        }
    }
}

/// Where an answer says which resource it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `Location`.
    Location,
    /// The member `id` of JSON content.
    Id,
    /// `ETag`.
    ETag,
}

impl Identity {
    pub(crate) const ALL: [Self; 3] = [Self::Location, Self::Id, Self::ETag];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Location => "Location",
            Self::Id => "the member id",
            Self::ETag => "ETag",
        }
    }

    /// The identity that an answer names.
    pub(crate) fn of(self, answer: &Answer) -> Option<String> {
        match self {
            Self::Location => answer.field("location").map(str::to_owned),
            Self::ETag => answer.field("etag").map(str::to_owned),
            Self::Id => match answer.json()?.get("id")? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            },
        }
    }

    /// The identities that tell two effects apart: in both of two answers, different, and not copied from the request.
    ///
    /// `has_same_payload`: the two requests differ in their key alone. Otherwise an entity tag says no more than
    /// that different content was sent.
    pub(crate) fn usable(
        first: (&Answer, &[&str]),
        second: (&Answer, &[&str]),
        has_same_payload: bool,
    ) -> Vec<Self> {
        let copied = |text: &str, values: &[&str]| values.iter().any(|value| text.contains(value));
        Self::ALL
            .into_iter()
            .filter(|identity| {
                let (Some(one), Some(two)) = (identity.of(first.0), identity.of(second.0)) else {
                    return false;
                };
                let is_tag = *identity == Self::ETag;
                one != two
                    && !copied(&one, first.1)
                    && !copied(&two, second.1)
                    && (has_same_payload || !is_tag)
            })
            .collect()
    }
}
