//! What hapax remembers about a key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::fingerprint::Fingerprint;
use crate::probe::Values;
use crate::scope::ScopeId;
use crate::time::Timestamp;

/// Names one claim of one key: 16 random bytes, never reused (P14).
///
/// Every later write names the claim it was made under, so that a stale holder's write can
/// be refused. Random and not counted: a counter would start again when a record is swept,
/// and an ancient holder could match.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId([u8; 16]);

impl ClaimId {
    /// Takes 16 bytes from a cryptographic generator.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::secret::write_hex(f, &self.0)
    }
}

/// One key's record, as a store keeps it. Instants are not in here: a store stamps them with
/// its own clock ([`Held`]), durations travel to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The claim that may write next.
    pub claim: ClaimId,
    /// Who sent the key; for quotas and for operators' filters.
    pub scope: ScopeId,
    /// What makes two requests the same.
    pub fingerprint: Fingerprint,
    /// How often the operation has been sent to the upstream, this time included; from 1.
    pub attempt: u32,
    /// The route's name as configured (`POST /v1/orders`), for operators.
    pub route: Arc<str>,
    /// `traceparent` of the execution, so that a replay's span can link to it.
    pub trace: Option<Arc<str>>,
    /// What the upstream knows the operation by, for a probe that no caller asks for (P47); only while the record is not
    /// settled, and only where the question needs no credentials.
    pub asked_by: Option<Arc<Values>>,
    /// How long a settled record is kept, counted from settlement (P34).
    pub retention: Duration,
    /// How long a tombstone stays after that; zero for none (P34).
    pub tombstone: Duration,
    /// What is known.
    pub state: State,
}

/// What a record takes besides its answer: an estimate for quotas, from above.
const BARE_BYTES: u64 = 512;

impl Record {
    /// How long a key stays used after the write of this record, if it is not written again: for quotas. The record of an
    /// operation under way counts as if its holder died: it becomes unknown with its lease.
    pub fn stays_for(&self) -> Duration {
        let unknown = self.retention.max(MIN_UNKNOWN_RETENTION);
        match self.state {
            State::Outstanding { lease } => lease.saturating_add(unknown),
            State::Unknown { .. } => unknown,
            State::Completed(_) | State::Rejected(_) => {
                self.retention.saturating_add(self.tombstone)
            }
        }
    }

    /// How many bytes the record counts for in quotas: its answer's content and fields, and 512.
    pub fn weight(&self) -> u64 {
        let answer = self.state.response().map_or(0, |response| {
            let fields = response.headers.iter();
            let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
            let content = match &response.content {
                Content::Stored(content) => content.len(),
                Content::Withheld => 0,
            };
            fields.sum::<usize>() + content
        });
        BARE_BYTES + answer as u64
    }
}

/// The states of a record. *Vacant* is the absence of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Claimed, not settled. The claim lives for `lease` after the record was last written.
    Outstanding {
        /// How long the claim lives without a heartbeat.
        lease: Duration,
    },
    /// The operation ran and this is its answer.
    Completed(StoredResponse),
    /// The operation was refused for good; a corrected payload may claim the key anew.
    Rejected(StoredResponse),
    /// Nobody can know whether the effect happened. Never ends by itself while `retention`
    /// (at least [`MIN_UNKNOWN_RETENTION`]) lasts.
    Unknown {
        /// What made it unknown.
        reason: UnknownReason,
        /// The upstream's own 5xx answer, where there was one.
        response: Option<StoredResponse>,
    },
}

/// An unknown outcome is kept at least this long: long enough for a person to come back from
/// a long weekend and settle it (P34).
pub const MIN_UNKNOWN_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why an outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// The claim's lease ran out without a heartbeat.
    LeaseLapsed,
    /// The process that held the claim ended (P16).
    Restarted,
    /// The upstream failed after the request was sent, or part of it (P22).
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream answered 5xx, or said so with `Hapax-Outcome: unknown` (P25).
    UpstreamAnswered,
}

/// The name of a state without its content: for filters, gauges and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// See [`State::Outstanding`].
    Outstanding,
    /// See [`State::Completed`].
    Completed,
    /// See [`State::Rejected`].
    Rejected,
    /// See [`State::Unknown`].
    Unknown,
    /// Retention is over and only the fact that the key was used is left.
    Tombstone,
}

impl State {
    /// The state's name.
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Outstanding { .. } => StateKind::Outstanding,
            Self::Completed(_) => StateKind::Completed,
            Self::Rejected(_) => StateKind::Rejected,
            Self::Unknown { .. } => StateKind::Unknown,
        }
    }

    /// The stored answer, where there is one.
    pub const fn response(&self) -> Option<&StoredResponse> {
        match self {
            Self::Completed(response) | Self::Rejected(response) => Some(response),
            Self::Unknown { response, .. } => response.as_ref(),
            Self::Outstanding { .. } => None,
        }
    }
}

/// An answer as it is kept: status, the fields a replay keeps (P28), and content.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// The status code.
    pub status: StatusCode,
    /// Fields in the order and multiplicity in which they came.
    pub headers: HeaderMap,
    /// The content, byte for byte.
    pub content: Content,
}

/// The content of a stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Stored(Bytes),
    /// It was too large or a stream and went through without being kept (P32).
    Withheld,
}

/// A record as a store holds it, with the store's own instants.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The record.
    pub record: Record,
    /// When the present claim was taken: stamped by a write that changes the claim id.
    pub claimed_at: Timestamp,
    /// When the record was last written: for a settled record, when it was settled.
    pub written_at: Timestamp,
}

impl Held {
    /// What state the record is in at `now`; `None` when it has expired and the key is vacant.
    ///
    /// An outstanding record never expires: a lease that ran out makes the outcome unknown, it
    /// does not free the key (P15).
    pub fn kind_at(&self, now: Timestamp) -> Option<StateKind> {
        let Some(retained_until) = self.retained_until() else {
            return Some(StateKind::Outstanding);
        };
        if now < retained_until {
            return Some(self.record.state.kind());
        }
        let is_settled = self.record.state.kind() != StateKind::Unknown;
        (is_settled && now < retained_until.plus(self.record.tombstone))
            .then_some(StateKind::Tombstone)
    }

    /// When the answer stops being replayed; `None` while outstanding.
    pub fn retained_until(&self) -> Option<Timestamp> {
        match &self.record.state {
            State::Outstanding { .. } => None,
            State::Unknown { .. } => Some(
                self.written_at
                    .plus(self.record.retention.max(MIN_UNKNOWN_RETENTION)),
            ),
            State::Completed(_) | State::Rejected(_) => {
                Some(self.written_at.plus(self.record.retention))
            }
        }
    }

    /// When the key is vacant again; `None` while outstanding, which never expires.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let retained_until = self.retained_until()?;
        match self.record.state.kind() {
            StateKind::Unknown => Some(retained_until),
            _ => Some(retained_until.plus(self.record.tombstone)),
        }
    }

    /// Whether the key is vacant at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at()
            .is_some_and(|expires_at| expires_at <= now)
    }

    /// Whether an outstanding record's lease has run out; false for any other state.
    pub fn is_lapsed(&self, now: Timestamp) -> bool {
        match self.record.state {
            State::Outstanding { lease } => self.written_at.plus(lease) <= now,
            _ => false,
        }
    }
}

impl StateKind {
    /// The state's name in lower case, as operators write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Tombstone => "tombstone",
        }
    }
}

impl UnknownReason {
    /// A short name for logs and operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseLapsed => "lease_lapsed",
            Self::Restarted => "restarted",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamAnswered => "upstream_answered",
        }
    }
}
