//! Every refusal of the operators' listener (RFC 9457): the only place where its statuses are
//! chosen. They are about the listener's own calls, not about keyed requests.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use hapax_core::operate::Inapplicable;
use hapax_core::store::StoreError;

/// What `type` begins with; the kind's name follows as the fragment.
const TYPE_BASE: &str = "urn:hapax:admin:problems";

/// What is wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The `Host` is not one of ours (DNS rebinding).
    ForeignHost,
    /// A page of another origin sent it (CSRF).
    ForeignOrigin,
    /// No token, or none of ours.
    Unauthenticated,
    /// The token's role does not reach so far.
    Forbidden,
    /// There is no such call.
    NoSuchCall,
    /// There is such a call with another method.
    MethodNotAllowed,
    /// There is no such record.
    NoSuchRecord,
    /// A parameter or the content makes no sense.
    Malformed,
    /// The content is not declared to be JSON.
    NotJson,
    /// The content is too large.
    TooLarge,
    /// An action says nothing of the record's version (P49).
    VersionMissing,
    /// The record has changed since the caller saw it (P49).
    VersionStale,
    /// The record's state does not allow the action (P49).
    Inapplicable,
    /// The configuration was not taken.
    ReloadFailed,
    /// The store cannot be asked.
    StoreUnavailable,
    /// What an operator does cannot be written down, so it is not done.
    AuditUnavailable,
    /// Too many readers of events.
    TooManyReaders,
    /// The gateway is not ready.
    Unready,
}

impl Kind {
    /// Fragment, status and title: one row a kind.
    #[allow(clippy::too_many_lines, reason = "a table, one row a kind")]
    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::ForeignHost => (
                "foreign-host",
                S::MISDIRECTED_REQUEST,
                "This listener does not go by that name",
            ),
            Self::ForeignOrigin => (
                "foreign-origin",
                S::FORBIDDEN,
                "A page of another origin may not call this",
            ),
            Self::Unauthenticated => (
                "unauthenticated",
                S::UNAUTHORIZED,
                "This call needs a bearer token",
            ),
            Self::Forbidden => (
                "forbidden",
                S::FORBIDDEN,
                "This call needs the role operator",
            ),
            Self::NoSuchCall => ("no-such-call", S::NOT_FOUND, "There is no such call"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                S::METHOD_NOT_ALLOWED,
                "This call has another method",
            ),
            Self::NoSuchRecord => ("no-such-record", S::NOT_FOUND, "There is no such record"),
            Self::Malformed => ("malformed", S::BAD_REQUEST, "The call makes no sense"),
            Self::NotJson => (
                "not-json",
                S::UNSUPPORTED_MEDIA_TYPE,
                "The content must be application/json",
            ),
            Self::TooLarge => (
                "too-large",
                S::PAYLOAD_TOO_LARGE,
                "The content is too large",
            ),
            Self::VersionMissing => (
                "version-missing",
                S::PRECONDITION_REQUIRED,
                "An action needs If-Match with the record's version",
            ),
            Self::VersionStale => (
                "version-stale",
                S::PRECONDITION_FAILED,
                "The record has changed since",
            ),
            Self::Inapplicable => (
                "inapplicable",
                S::CONFLICT,
                "The record's state does not allow this",
            ),
            Self::ReloadFailed => (
                "reload-failed",
                S::CONFLICT,
                "The configuration was not taken; the old one stays",
            ),
            Self::StoreUnavailable => (
                "store-unavailable",
                S::SERVICE_UNAVAILABLE,
                "The store cannot be asked",
            ),
            Self::AuditUnavailable => (
                "audit-unavailable",
                S::SERVICE_UNAVAILABLE,
                "The action cannot be written down, so it was not done",
            ),
            Self::TooManyReaders => (
                "too-many-readers",
                S::SERVICE_UNAVAILABLE,
                "Too many readers of events",
            ),
            Self::Unready => ("unready", S::SERVICE_UNAVAILABLE, "Not ready"),
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        self.row().1
    }
}

/// What is wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: Cow<'static, str>,
}

/// A refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// `urn:hapax:admin:problems#KIND`; the kind is stable.
    r#type: String,
    /// The kind in a few words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What is wrong with this call.
    detail: String,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { kind, detail }
    }

    /// The kind's stable name.
    pub(crate) const fn fragment(&self) -> &'static str {
        self.kind.row().0
    }

    pub(crate) fn body(&self) -> ProblemBody {
        let (fragment, status, title) = self.kind.row();
        ProblemBody {
            r#type: format!("{TYPE_BASE}#{fragment}"),
            title,
            status: status.as_u16(),
            detail: self.detail.clone().into_owned(),
        }
    }
}

impl From<Inapplicable> for Problem {
    fn from(why: Inapplicable) -> Self {
        match why {
            Inapplicable::Vacant => Self::new(Kind::NoSuchRecord, "The key is vacant."),
            why => {
                let text = why.to_string();
                let mut letters = text.chars();
                let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                let detail: String = first.into_iter().chain(letters).chain(['.']).collect();
                Self::new(Kind::Inapplicable, detail)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(Kind::StoreUnavailable, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let extra: Option<(HeaderName, &'static str)> = match self.kind {
            Kind::Unauthenticated => {
                Some((header::WWW_AUTHENTICATE, "Bearer realm=\"hapax admin\""))
            }
            Kind::StoreUnavailable | Kind::TooManyReaders => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
