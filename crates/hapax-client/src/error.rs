//! What a caller can act on.

use bytes::Bytes;

use crate::policy::Why;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Nobody can know yet whether the operation ran (P44).
///
/// `request` carries the key: sent again, now or later, it cannot become a second operation. Never make a new key by yourself.
#[derive(Debug, thiserror::Error)]
#[error("whether the operation ran is unknown ({why}, after {attempts} attempts)")]
pub struct OutcomeUnknown<R: std::fmt::Debug> {
    /// Why no more attempts are made.
    pub why: Why,
    /// How many were made.
    pub attempts: u32,
    /// The request, key and bytes as they were sent.
    pub request: R,
    /// The last answer, if one came.
    pub answer: Option<http::Response<Bytes>>,
    /// The last error, if one came.
    #[source]
    pub source: Option<BoxError>,
}

/// The body cannot be sent twice. Nothing was sent.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body of a keyed request must be bytes that can be sent again, not a stream")]
pub struct NotReplayable;

/// The attempt took too long.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the attempt took too long")]
pub struct TimedOut;
