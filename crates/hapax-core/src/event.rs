//! Everything worth observing, in one enum.
//!
//! The core and the drivers say what happened; whoever watches gives it names, labels and lines.
//! No event holds a key, a scope's credentials or content.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::key::RecordKey;
use crate::probe::ProbeOutcome;
use crate::record::{StateKind, UnknownReason};
use crate::store::StoreError;
use crate::trace::Spans;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The operation ran; the answer is the upstream's.
    Executed,
    /// The stored answer of a completed record.
    Replayed,
    /// The stored answer of a rejected record.
    RejectedReplayed,
    /// 409: the first attempt is still under way.
    InProgress,
    /// 422: the key belongs to another request.
    Mismatch,
    /// 400: the route needs a key.
    KeyMissing,
    /// 400: the key is not one.
    KeyInvalid,
    /// Nobody can know what happened.
    Unknown,
    /// 422: the key was used before and its answer is gone.
    Expired,
    /// No key: passed through.
    Unkeyed,
    /// Watched and passed through.
    Observed,
    /// The store could not be asked.
    StoreError,
    /// The upstream could not be reached; nothing was sent.
    UpstreamError,
    /// Refused before the key was claimed, for another reason than the key: too large, too
    /// many, malformed, or cut short by the client.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 14] = [
        Self::Executed,
        Self::Replayed,
        Self::RejectedReplayed,
        Self::InProgress,
        Self::Mismatch,
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::Unknown,
        Self::Expired,
        Self::Unkeyed,
        Self::Observed,
        Self::StoreError,
        Self::UpstreamError,
        Self::Refused,
    ];

    /// The outcome's name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::RejectedReplayed => "rejected_replayed",
            Self::InProgress => "in_progress",
            Self::Mismatch => "mismatch",
            Self::KeyMissing => "key_missing",
            Self::KeyInvalid => "key_invalid",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Unkeyed => "unkeyed",
            Self::Observed => "observed",
            Self::StoreError => "store_error",
            Self::UpstreamError => "upstream_error",
            Self::Refused => "refused",
        }
    }

    /// Whether a second execution was prevented: without hapax, the upstream would have got
    /// this request again.
    pub const fn is_duplicate_stopped(self) -> bool {
        matches!(
            self,
            Self::Replayed
                | Self::RejectedReplayed
                | Self::InProgress
                | Self::Mismatch
                | Self::Expired
        )
    }
}

/// Which method of the store a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOperation {
    /// `Store::insert`.
    Insert,
    /// `Store::replace`.
    Replace,
    /// `Store::remove`.
    Remove,
    /// `Store::read`.
    Read,
    /// `Store::sweep`.
    Sweep,
}

impl StoreOperation {
    /// Every operation.
    pub const ALL: [Self; 5] = [
        Self::Insert,
        Self::Replace,
        Self::Remove,
        Self::Read,
        Self::Sweep,
    ];

    /// The operation's name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Replace => "replace",
            Self::Remove => "remove",
            Self::Read => "read",
            Self::Sweep => "sweep",
        }
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A key was claimed, durably.
    Claimed {
        /// The record.
        record: RecordKey,
        /// The route's name.
        route: &'a str,
        /// The how-manieth execution this will be.
        attempt: u32,
    },
    /// The request is on its way to the upstream.
    Forwarded {
        /// The record.
        record: RecordKey,
        /// The how-manieth execution this is.
        attempt: u32,
    },
    /// The claim was given back unused: the key is vacant.
    Released {
        /// The record.
        record: RecordKey,
    },
    /// The operation's answer is stored.
    Settled {
        /// The record.
        record: RecordKey,
        /// Completed or rejected.
        state: StateKind,
        /// The answer's status.
        status: StatusCode,
    },
    /// From now on nobody can know what happened.
    BecameUnknown {
        /// The record.
        record: RecordKey,
        /// The route's name.
        route: &'a str,
        /// Why.
        reason: UnknownReason,
        /// Whether the route asks the upstream about it by itself.
        is_probed: bool,
    },
    /// The upstream was asked whether an operation of unknown outcome happened.
    Probed {
        /// The record.
        record: RecordKey,
        /// The route's name.
        route: &'a str,
        /// What the answer says.
        outcome: ProbeOutcome,
    },
    /// A heartbeat found that the claim no longer holds the key.
    LeaseLost {
        /// The record.
        record: RecordKey,
    },
    /// A write under a claim that no longer holds the key was refused (P14).
    StaleWriteRefused {
        /// The record.
        record: RecordKey,
    },
    /// The answer could not be stored while the lease lived; the record will be unknown (P24).
    SettlementAbandoned {
        /// The record.
        record: RecordKey,
        /// The last error.
        error: &'a StoreError,
    },
    /// On a route that only observes: what enforcing would have done.
    WouldHave {
        /// The route's name.
        route: &'a str,
        /// The outcome that the caller would have seen.
        outcome: Outcome,
    },
    /// The client left before its answer was ready; the operation goes on (P18).
    ClientGone {
        /// The record.
        record: RecordKey,
    },
    /// A store operation ended.
    StoreCalled {
        /// Which one.
        operation: StoreOperation,
        /// How long it took.
        took: Duration,
        /// What went wrong, if anything.
        error: Option<&'a StoreError>,
    },
    /// The upstream answered, or failed, after this long.
    UpstreamCalled {
        /// The record.
        record: RecordKey,
        /// The route's name.
        route: &'a str,
        /// The answer's status; `None` when it failed.
        status: Option<StatusCode>,
        /// From sending to the end of the buffered answer.
        took: Duration,
    },
    /// The scope has as many records as it may, and the key was vacant: nothing was claimed (P36).
    QuotaExceeded {
        /// The route's name.
        route: &'a str,
    },
    /// So many scopes have records that this one's are not counted: it has no quota for now.
    QuotaNotCounted {
        /// The route's name.
        route: &'a str,
    },
    /// A request was answered. Exactly one for each request, keyed or not.
    Answered(Answered<'a>),
}

/// The figures of one answered request.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The route's name.
    pub route: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The status the client got.
    pub status: StatusCode,
    /// What became of the request.
    pub outcome: Outcome,
    /// The record, for a keyed request that got as far as having one.
    pub record: Option<RecordKey>,
    /// How often the operation has been sent to the upstream, where that is known.
    pub attempt: Option<u32>,
    /// How long ago the record was settled or claimed, where the answer came from one.
    pub age: Option<Duration>,
    /// Time spent in the upstream.
    pub upstream: Option<Duration>,
    /// Time from the request's head to its answer's head.
    pub total: Duration,
    /// The trace id of the request's `traceparent`.
    pub trace_id: Option<&'a str>,
    /// The request's spans, where the observer [wants them](Observer::wants_spans).
    pub spans: Option<&'a Spans>,
}

/// Whoever watches. Called on the data path: must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// Takes note of an event.
    fn observe(&self, event: &Event<'_>);

    /// Whether requests are given spans. Asked once a request; without spans a request costs nothing for them.
    fn wants_spans(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Observer for () {
    fn observe(&self, _event: &Event<'_>) {}
}
