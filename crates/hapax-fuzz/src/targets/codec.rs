//! The stored bytes of a record.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use hapax_core::encoding::{decode, encode};
use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::probe::Values;
use hapax_core::record::{ClaimId, Content, Record, State, StoredResponse, UnknownReason};
use hapax_core::scope::ScopeId;
use hapax_core::secret::{HashKeys, Secret};

use super::pieces::Pieces;

const SECRET: [u8; 32] = [7; 32];
const BESIDE: &[u8] = b"what the store keeps beside it";
const TAG_LEN: usize = 16;

/// A record comes back as it was written, for its own key and nobody else's. A flipped bit, a cut, another key or other
/// stamps make an error of it, and so do bytes that somebody made up. Bytes whose tag fits and whose fields do not are an
/// error or a record that is written back the same, never a crash.
pub fn codec(data: &[u8]) {
    let keys = HashKeys::derive(&Secret::from_bytes(SECRET));
    let mut pieces = Pieces(data);
    let key = RecordKey::from_bytes(pieces.array());
    let (place, flip) = (pieces.number() as usize, pieces.byte());
    let other = RecordKey::from_bytes(pieces.array());
    let record = record_of(&mut pieces);
    let made_up = Bytes::copy_from_slice(data);
    assert!(
        decode(&keys, &key, &made_up, BESIDE).is_err(),
        "nobody guesses a tag"
    );

    let bytes = encode(&keys, &key, &record, BESIDE).expect("it is small");
    let read = decode(&keys, &key, &bytes, BESIDE);
    assert_eq!(
        read.expect("it was written so"),
        record,
        "it comes back as it was"
    );
    assert!(
        other == key || decode(&keys, &other, &bytes, BESIDE).is_err(),
        "a record stays with its key"
    );
    assert!(
        decode(&keys, &key, &bytes, b"other stamps").is_err(),
        "and with its stamps"
    );

    let place = place % bytes.len();
    let mut flipped = bytes.to_vec();
    flipped[place] ^= if flip == 0 { 1 } else { flip };
    assert!(
        decode(&keys, &key, &flipped.clone().into(), BESIDE).is_err(),
        "a flipped bit is noticed"
    );
    assert!(
        decode(&keys, &key, &bytes.slice(..place), BESIDE).is_err(),
        "a cut is noticed"
    );

    flipped.truncate(flipped.len() - TAG_LEN);
    let tag = tag_of(&key, &flipped);
    flipped.extend_from_slice(&tag);
    if let Ok(odd) = decode(&keys, &key, &flipped.into(), BESIDE) {
        let again = encode(&keys, &key, &odd, BESIDE).expect("it was read");
        assert_eq!(
            decode(&keys, &key, &again, BESIDE).expect("it was written"),
            odd
        );
    }
}

/// The tag as `docs/store-format.md` says it is made: so that mutations reach what stands behind the tag.
fn tag_of(key: &RecordKey, body: &[u8]) -> [u8; TAG_LEN] {
    let secret = blake3::derive_key("hapax 2026-11 record tag", &SECRET);
    let mut hasher = blake3::Hasher::new_keyed(&secret);
    hasher.update(key.as_bytes());
    hasher.update(&(BESIDE.len() as u64).to_le_bytes());
    hasher.update(BESIDE);
    hasher.update(body);
    let hash = hasher.finalize();
    std::array::from_fn(|index| hash.as_bytes()[index])
}

pub(crate) fn record_of(pieces: &mut Pieces<'_>) -> Record {
    let state = match pieces.byte() % 5 {
        0 => State::Outstanding {
            lease: millis(pieces),
        },
        1 => State::Completed(response_of(pieces)),
        2 => State::Rejected(response_of(pieces)),
        3 => State::Unknown {
            reason: reason_of(pieces),
            response: None,
        },
        _ => State::Unknown {
            reason: reason_of(pieces),
            response: Some(response_of(pieces)),
        },
    };
    let flags = pieces.byte();
    let pairs = usize::from(flags & 3);
    Record {
        claim: ClaimId::from_bytes(pieces.array()),
        scope: ScopeId::from_bytes(pieces.array()),
        fingerprint: Fingerprint {
            digest: pieces.array(),
            outline: (0..pairs)
                .map(|_| (pieces.number(), pieces.number()))
                .collect(),
        },
        attempt: pieces.number(),
        route: pieces.text().into(),
        trace: (flags & 4 != 0).then(|| pieces.text().into()),
        asked_by: (flags & 8 != 0).then(|| {
            let key = pieces.text();
            let params = (0..pairs).map(|_| (pieces.text(), pieces.text())).collect();
            Arc::new(Values { key, params })
        }),
        retention: millis(pieces),
        tombstone: millis(pieces),
        state,
    }
}

fn millis(pieces: &mut Pieces<'_>) -> Duration {
    Duration::from_millis(u64::from(pieces.number()))
}

fn reason_of(pieces: &mut Pieces<'_>) -> UnknownReason {
    match pieces.byte() % 5 {
        0 => UnknownReason::LeaseLapsed,
        1 => UnknownReason::Restarted,
        2 => UnknownReason::UpstreamFailed,
        3 => UnknownReason::UpstreamTimeout,
        _ => UnknownReason::UpstreamAnswered,
    }
}

fn response_of(pieces: &mut Pieces<'_>) -> StoredResponse {
    let status = 100 + u16::from_le_bytes(pieces.array()) % 900;
    let mut headers = HeaderMap::new();
    for _ in 0..pieces.byte() % 4 {
        let (name, value) = (pieces.bytes(), pieces.bytes());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let content = match pieces.byte() % 2 {
        0 => Content::Stored(Bytes::copy_from_slice(pieces.bytes())),
        _ => Content::Withheld,
    };
    StoredResponse {
        status: StatusCode::from_u16(status).expect("100 to 999"),
        headers,
        content,
    }
}
