//! Records to test with.

use std::time::Duration;

use bytes::Bytes;
use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Content, Record, State, StoredResponse, UnknownReason};
use hapax_core::scope::ScopeId;
use http::{HeaderMap, HeaderValue, StatusCode};

/// How long the samples are kept once they are settled.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// How long the samples' claims live.
pub const LEASE: Duration = Duration::from_secs(60);

/// A record key that differs for every `number`, spread over the key space.
pub fn key(number: u64) -> RecordKey {
    // An odd multiplier is a bijection on 64 bits: no two numbers share a key.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RecordKey::from_bytes(((u128::from(spread) << 64) | u128::from(number)).to_be_bytes())
}

/// A claim id that differs for every `number`.
pub fn claim_id(number: u64) -> ClaimId {
    ClaimId::from_bytes((u128::from(number) | (1 << 127)).to_be_bytes())
}

/// A record of claim `number` in `state`.
pub fn record(number: u64, state: State) -> Record {
    Record {
        claim: claim_id(number),
        scope: ScopeId::from_bytes([3; 16]),
        fingerprint: Fingerprint {
            digest: [4; 16],
            outline: [(1, 2), (3, 4)].into(),
        },
        attempt: 1,
        route: "POST /orders".into(),
        asked_by: None,
        trace: None,
        retention: RETENTION,
        tombstone: Duration::ZERO,
        state,
    }
}

/// A claim of [`LEASE`].
pub fn outstanding(number: u64) -> Record {
    record(number, State::Outstanding { lease: LEASE })
}

/// A completed record whose content is `content`.
pub fn completed(number: u64, content: impl Into<Bytes>) -> Record {
    record(number, State::Completed(response(content)))
}

/// An unknown record without an answer.
pub fn unknown(number: u64) -> Record {
    let state = State::Unknown {
        reason: UnknownReason::UpstreamTimeout,
        response: None,
    };
    record(number, state)
}

/// An answer with repeated and binary fields.
pub fn response(content: impl Into<Bytes>) -> StoredResponse {
    let mut headers = HeaderMap::new();
    headers.append("location", HeaderValue::from_static("/orders/17"));
    headers.append("x-part", HeaderValue::from_static("1"));
    headers.append("x-part", HeaderValue::from_static("2"));
    StoredResponse {
        status: StatusCode::CREATED,
        headers,
        content: Content::Stored(content.into()),
    }
}
