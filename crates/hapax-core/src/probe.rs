//! Asking the upstream whether an operation of unknown outcome happened (P47): the question, and what an answer means.
//!
//! A probe is no fence: while the first request may still be on its way, "there is no such thing" can be true when it is
//! said and false a moment later. A 404 or 410 therefore frees the key only when it was *asked for* at least `probe_after`
//! after the outcome became unknown, by the store's clock. That is an assumption about time, and the only one.

use std::fmt;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};

use crate::record::{ClaimId, Content, Held, Record, State, StoredResponse};
use crate::settle::Settlement;
use crate::time::Timestamp;

/// How a route asks: `GET /orders?request={key}`.
///
/// The target is a path of the configured upstream, so that no value can name another host. `{key}` is the key as the
/// upstream saw it; other names are parameters of the route's path. Values are percent-encoded but for unreserved
/// characters (RFC 3986 2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    method: Method,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// The name of the key in a template.
pub const KEY: &str = "key";

/// The longest template, in bytes.
pub const MAX_TEMPLATE: usize = 2048;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not two words.
    #[error("a probe is \"GET /path?query\" or \"HEAD /path?query\"")]
    Shape,
    /// A method that may change something.
    #[error("a probe must not change anything: its method is GET or HEAD, not {0}")]
    Method(String),
    /// A target that could lead elsewhere.
    #[error("a probe goes to the upstream: its target begins with one slash and has no host")]
    Target,
    /// A character that a target cannot have.
    #[error("the target has {0:?}: write it percent-encoded")]
    Character(char),
    /// A segment that a server resolves away.
    #[error("the target has a segment `.` or `..`")]
    DotSegment,
    /// A brace without its partner, or nothing between two.
    #[error("`{{` and `}}` stand around a name, such as {{key}}")]
    Brace,
    /// The same question for every operation.
    #[error("the target names no operation: it needs {{key}} or a parameter of the route's path")]
    NoValue,
    /// Longer than [`MAX_TEMPLATE`].
    #[error("a probe has at most {MAX_TEMPLATE} bytes")]
    TooLong,
}

/// Why the question about one operation cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The template names a value that this operation does not have.
    #[error("a value that the probe names is not known")]
    Missing,
    /// With these values a server would read another path.
    #[error("the values would make a path with a segment `.` or `..`")]
    DotSegment,
}

impl Template {
    /// Reads `METHOD /target`.
    ///
    /// # Errors
    /// [`TemplateError`], in words for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE {
            return Err(TemplateError::TooLong);
        }
        let (method, target) = text.split_once(' ').ok_or(TemplateError::Shape)?;
        let method = match method {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            other => return Err(TemplateError::Method(other.to_owned())),
        };
        if !target.starts_with('/') || target.starts_with("//") {
            return Err(TemplateError::Target);
        }
        let is_wrong = |c: &char| !c.is_ascii_graphic() || "\"#<>\\^`|".contains(*c);
        if let Some(wrong) = target.chars().find(is_wrong) {
            return Err(TemplateError::Character(wrong));
        }
        if has_dot_segment(target) {
            return Err(TemplateError::DotSegment);
        }
        let template = Self {
            method,
            parts: parts_of(target)?,
        };
        if template.names().next().is_none() {
            return Err(TemplateError::NoValue);
        }
        Ok(template)
    }

    /// GET or HEAD.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The names of its values, [`KEY`] among them when it has it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(name) => Some(name.as_str()),
        })
    }

    /// The question about one operation.
    ///
    /// # Errors
    /// [`FillError`]: it cannot be asked.
    pub fn fill(&self, values: &Values) -> Result<PathAndQuery, FillError> {
        let mut target = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => target.push_str(text),
                Part::Value(name) => {
                    let value = values.named(name).ok_or(FillError::Missing)?;
                    encode_into(&mut target, value);
                }
            }
        }
        if has_dot_segment(&target) {
            return Err(FillError::DotSegment);
        }
        // Text was checked when it was read, and values are encoded: it is a target.
        target.parse().map_err(|_| FillError::Missing)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Value(name) => write!(f, "{{{name}}}"),
        })
    }
}

fn parts_of(target: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = target;
    while let Some((text, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}').ok_or(TemplateError::Brace)?;
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if text.contains('}') || name.is_empty() || !is_name(name) {
            return Err(TemplateError::Brace);
        }
        parts.push(Part::Text(text.to_owned()));
        parts.push(Part::Value(name.to_owned()));
        rest = tail;
    }
    if rest.contains('}') {
        return Err(TemplateError::Brace);
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// Everything but unreserved characters as `%XX`.
fn encode_into(target: &mut String, value: &str) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn has_dot_segment(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or(target);
    path.split('/').any(|segment| {
        let dots = segment.to_ascii_lowercase().replace("%2e", ".");
        dots == "." || dots == ".."
    })
}

/// What the upstream knows an operation by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// The key as the upstream saw it.
    pub key: String,
    /// Parameters of the route's path, decoded.
    pub params: Vec<(String, String)>,
}

impl Values {
    fn named(&self, name: &str) -> Option<&str> {
        if name == KEY {
            return Some(&self.key);
        }
        let mut params = self.params.iter();
        params
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What came of a probe.
#[derive(Debug)]
pub enum Probed {
    /// The upstream answered.
    Answered(Answer),
    /// There was no answer, or the question could not be asked.
    Failed,
    /// Somebody else asked meanwhile: what came of that is in the record.
    ByAnother,
}

/// The upstream's answer to a probe.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the status means, or the application says with `Hapax-Outcome`.
    pub settlement: Settlement,
    /// The fields that a record keeps.
    pub headers: HeaderMap,
    /// The content, if it was asked for, small enough and whole.
    pub content: Content,
    /// Whether this process still waited for the first request's answer when it asked.
    pub is_first_under_way: bool,
}

/// What a probe says about the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeOutcome {
    /// It happened.
    Happened,
    /// It did not, and will not.
    Absent,
    /// It had not when the question was asked, and may yet.
    TooEarly,
    /// The answer says neither.
    Undecided,
    /// There was no answer.
    Failed,
}

impl ProbeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Happened,
        Self::Absent,
        Self::TooEarly,
        Self::Undecided,
        Self::Failed,
    ];

    /// The outcome's name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Happened => "happened",
            Self::Absent => "absent",
            Self::TooEarly => "too_early",
            Self::Undecided => "undecided",
            Self::Failed => "failed",
        }
    }
}

/// What to do with an unknown record after a probe.
#[derive(Debug)]
pub enum Resolution {
    /// Write this in its place.
    Complete(Box<Record>),
    /// The operation did not happen: the key may be given to whoever asks next.
    Free,
    /// Leave it.
    Leave(ProbeOutcome),
}

impl Resolution {
    /// What the probe said.
    pub const fn outcome(&self) -> ProbeOutcome {
        match self {
            Self::Complete(_) => ProbeOutcome::Happened,
            Self::Free => ProbeOutcome::Absent,
            Self::Leave(outcome) => *outcome,
        }
    }
}

/// What `answer`, asked for at `asked_at` by the store's clock, means for the unknown record `held`. `seal` is a fresh claim
/// id, so that a late write of the first attempt cannot hit what is completed here.
pub fn resolve(
    held: &Held,
    probe_after: Duration,
    asked_at: Timestamp,
    answer: Answer,
    seal: ClaimId,
) -> Resolution {
    match (answer.status.as_u16(), answer.settlement) {
        (200..=299, Settlement::Complete) => {
            let mut record = held.record.clone();
            record.claim = seal;
            record.asked_by = None;
            record.state = State::Completed(StoredResponse {
                status: answer.status,
                headers: answer.headers,
                content: answer.content,
            });
            Resolution::Complete(Box::new(record))
        }
        (404 | 410, Settlement::Reject) => {
            let is_quiet = held.written_at.plus(probe_after) <= asked_at;
            if is_quiet && !answer.is_first_under_way {
                Resolution::Free
            } else {
                Resolution::Leave(ProbeOutcome::TooEarly)
            }
        }
        _ => Resolution::Leave(ProbeOutcome::Undecided),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, key: &str, params: &[(&str, &str)]) -> Result<String, FillError> {
        let params = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let values = Values {
            key: key.to_owned(),
            params: params.collect(),
        };
        let template = Template::parse(template).expect("a template");
        template.fill(&values).map(|target| target.to_string())
    }

    #[test]
    fn values_cannot_leave_their_place_in_the_target() {
        for (template, key, expected) in [
            ("GET /o?r={key}", "abc-1_2.3~4", "/o?r=abc-1_2.3~4"),
            (
                "GET /o?r={key}",
                "a/../b?x=1&y",
                "/o?r=a%2F..%2Fb%3Fx%3D1%26y",
            ),
            ("GET /o/{key}", "a/../b?x=1&y", "/o/a%2F..%2Fb%3Fx%3D1%26y"),
            ("GET /{key}", "/evil.test/", "/%2Fevil.test%2F"),
            (
                "GET /o/{key}",
                "http://evil.test@x#y",
                "/o/http%3A%2F%2Fevil.test%40x%23y",
            ),
            ("GET /o/{key}", "%2e%2e", "/o/%252e%252e"),
            (
                "HEAD /o/{key}/s",
                "é\r\nHost: x",
                "/o/%C3%A9%0D%0AHost%3A%20x/s",
            ),
            ("GET /o?r={key}", "..", "/o?r=.."),
        ] {
            assert_eq!(
                filled(template, key, &[]).as_deref(),
                Ok(expected),
                "{template} {key}"
            );
        }
        for (template, key) in [
            ("GET /o/{key}", ".."),
            ("GET /o/{key}/x", "."),
            ("GET /o/.{key}", "."),
        ] {
            assert_eq!(
                filled(template, key, &[]),
                Err(FillError::DotSegment),
                "{template} {key}"
            );
        }
        assert_eq!(
            filled("GET /o/{id}", "k", &[("id", "7 8")]).as_deref(),
            Ok("/o/7%208")
        );
        assert_eq!(filled("GET /o/{id}", "k", &[]), Err(FillError::Missing));
    }

    #[test]
    fn only_a_safe_question_to_the_upstream_that_names_the_operation_is_a_template() {
        use TemplateError as E;
        for (text, expected) in [
            ("GET", E::Shape),
            ("POST /o/{key}", E::Method("POST".into())),
            ("get /o/{key}", E::Method("get".into())),
            ("GET o/{key}", E::Target),
            ("GET //evil.test/{key}", E::Target),
            ("GET http://evil.test/{key}", E::Target),
            ("GET  /o/{key}", E::Target),
            ("GET /o/{key}#x", E::Character('#')),
            ("GET /\\evil.test/{key}", E::Character('\\')),
            ("GET /o/{key} x", E::Character(' ')),
            ("GET /é/{key}", E::Character('é')),
            ("GET /a/../{key}", E::DotSegment),
            ("GET /a/%2E%2e/{key}", E::DotSegment),
            ("GET /o/{key", E::Brace),
            ("GET /o/key}", E::Brace),
            ("GET /o/{}", E::Brace),
            ("GET /o/{a{b}}", E::Brace),
            ("GET /o", E::NoValue),
        ] {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
        let long = format!("GET /{}{{key}}", "a".repeat(MAX_TEMPLATE));
        assert_eq!(Template::parse(&long), Err(E::TooLong));
        for text in [
            "GET /orders?request={key}",
            "HEAD /{a}/x{key}y?b={b_1}&c=%20",
        ] {
            assert_eq!(
                Template::parse(text).map(|t| t.to_string()).as_deref(),
                Ok(text)
            );
        }
    }
}
