//! Versioned bytes of a record: the only serialised form.
//!
//! ```text
//! "hpx" version(1) claim(16) meta_len(u32 LE) meta(postcard) content(rest) tag(16)
//! ```
//!
//! The tag is a keyed BLAKE3 hash, truncated to 128 bits, over the record key, whatever the
//! store keeps beside the bytes (its time stamps, say) and everything before the tag, the claim
//! id included. Bytes that moved to another key, were cut, flipped or written by somebody
//! without the store's secret are [`StoreError::Damaged`], never an answer and never "absent".

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::key::RecordKey;
use crate::probe::Values;
use crate::record::{ClaimId, Content, Record, State, StoredResponse, UnknownReason};
use crate::scope::ScopeId;
use crate::secret::{HashKeys, truncated, update_framed};
use crate::store::StoreError;

const MAGIC: &[u8; 3] = b"hpx";
/// What every record is but those of version 2.
const VERSION: u8 = 1;
/// As version 1, with what a probe needs behind the meta part's fields. A program that does not know it refuses the record
/// as written by another version, rather than forget those values when it writes the record again.
const VERSION_WITH_PROBE: u8 = 2;
const TAG_LEN: usize = 16;
/// Magic, version, claim id, length of the meta part.
const HEAD_LEN: usize = 3 + 1 + 16 + 4;

/// What is stored of a record besides the claim id and the content. The order of the fields is
/// the format: a change of either needs a new version.
#[derive(Serialize, Deserialize)]
struct MetaV1<'a> {
    scope: [u8; 16],
    digest: [u8; 16],
    outline: Cow<'a, [(u32, u32)]>,
    attempt: u32,
    route: &'a str,
    trace: Option<&'a str>,
    retention_ms: u64,
    tombstone_ms: u64,
    state: StateV1,
    response: Option<ResponseV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ProbeV2<'a> {
    key: &'a str,
    #[serde(borrow)]
    params: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize, Deserialize)]
enum StateV1 {
    Outstanding { lease_ms: u64 },
    Completed,
    Rejected,
    Unknown(ReasonV1),
}

#[derive(Serialize, Deserialize)]
enum ReasonV1 {
    LeaseLapsed,
    Restarted,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamAnswered,
}

#[derive(Serialize, Deserialize)]
struct ResponseV1<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    is_content_stored: bool,
}

/// Encodes a record for `key`. `beside` is authenticated with it but not part of the bytes.
///
/// # Errors
/// [`StoreError::Refused`] when the record does not fit the format (a part over 4 GiB).
pub fn encode(
    keys: &HashKeys,
    key: &RecordKey,
    record: &Record,
    beside: &[u8],
) -> Result<Bytes, StoreError> {
    let refused = |reason| StoreError::Refused {
        reason,
        source: None,
    };
    let unfit = |_| refused("the record does not fit the stored format");
    let mut meta = postcard::to_allocvec(&meta_of(record)).map_err(unfit)?;
    if let Some(values) = &record.asked_by {
        let probe = ProbeV2 {
            key: &values.key,
            params: borrowed(&values.params),
        };
        meta = postcard::to_extend(&probe, meta).map_err(unfit)?;
    }
    let content = match record.state.response().map(|response| &response.content) {
        Some(Content::Stored(content)) => content.clone(),
        Some(Content::Withheld) | None => Bytes::new(),
    };
    let meta_len =
        u32::try_from(meta.len()).map_err(|_| refused("the record's fields are over 4 GiB"))?;
    let mut out = BytesMut::with_capacity(HEAD_LEN + meta.len() + content.len() + TAG_LEN);
    out.put_slice(MAGIC);
    out.put_u8(match record.asked_by {
        None => VERSION,
        Some(_) => VERSION_WITH_PROBE,
    });
    out.put_slice(record.claim.as_bytes());
    out.put_u32_le(meta_len);
    out.put_slice(&meta);
    out.put_slice(&content);
    let tag = tag_of(keys, key, beside, &out);
    out.put_slice(&tag);
    Ok(out.freeze())
}

/// Decodes the record of `key`, checking that these very bytes were written for it.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn decode(
    keys: &HashKeys,
    key: &RecordKey,
    bytes: &Bytes,
    beside: &[u8],
) -> Result<Record, StoreError> {
    let damaged = |what| StoreError::Damaged { what };
    let body_len = bytes
        .len()
        .checked_sub(TAG_LEN)
        .ok_or(damaged("cut short"))?;
    let (body, tag) = bytes
        .split_at_checked(body_len)
        .ok_or(damaged("cut short"))?;
    if body.get(..3) != Some(MAGIC.as_slice()) {
        return Err(damaged("not a record"));
    }
    // Before the tag: a newer version may be tagged in another way, and the message should say
    // that the program is too old rather than that the disk is bad.
    let version = body.get(3).copied();
    if !matches!(version, Some(VERSION | VERSION_WITH_PROBE)) {
        return Err(damaged("written by another version of hapax"));
    }
    // Compared in constant time, so that nobody can search for a tag byte by byte.
    if blake3::Hash::from_bytes(padded(tag))
        != blake3::Hash::from_bytes(padded(&tag_of(keys, key, beside, body)))
    {
        return Err(damaged("its tag does not match its bytes"));
    }
    let claim = body
        .get(4..20)
        .and_then(|claim| claim.try_into().ok())
        .ok_or(damaged("cut short"))?;
    let meta_len = body
        .get(20..HEAD_LEN)
        .and_then(|len| len.try_into().ok())
        .ok_or(damaged("cut short"))?;
    let meta_end = HEAD_LEN + u32::from_le_bytes(meta_len) as usize;
    let meta = body.get(HEAD_LEN..meta_end).ok_or(damaged("cut short"))?;
    let unread = |_| damaged("its fields do not parse");
    let (meta, rest) = postcard::take_from_bytes::<MetaV1<'_>>(meta).map_err(unread)?;
    let (asked_by, rest) = if version == Some(VERSION_WITH_PROBE) {
        let (probe, rest) = postcard::take_from_bytes::<ProbeV2<'_>>(rest).map_err(unread)?;
        (Some(Arc::new(values_of(probe))), rest)
    } else {
        (None, rest)
    };
    if !rest.is_empty() {
        return Err(damaged("it has more fields than its version"));
    }
    let content = bytes.slice(meta_end..body_len);
    let record = record_of(ClaimId::from_bytes(claim), meta, content)
        .ok_or(damaged("its fields do not fit together"))?;
    Ok(Record { asked_by, ..record })
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn values_of(probe: ProbeV2<'_>) -> Values {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Values {
        key: probe.key.to_owned(),
        params: probe.params.into_iter().map(owned).collect(),
    }
}

fn padded(tag: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(tag) {
        *to = *from;
    }
    out
}

fn tag_of(keys: &HashKeys, key: &RecordKey, beside: &[u8], body: &[u8]) -> [u8; TAG_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(&keys.tag);
    hasher.update(key.as_bytes());
    update_framed(&mut hasher, beside);
    hasher.update(body);
    truncated(&hasher.finalize())
}

fn meta_of(record: &Record) -> MetaV1<'_> {
    MetaV1 {
        scope: *record.scope.as_bytes(),
        digest: record.fingerprint.digest,
        outline: Cow::Borrowed(&record.fingerprint.outline),
        attempt: record.attempt,
        route: &record.route,
        trace: record.trace.as_deref(),
        retention_ms: millis(record.retention),
        tombstone_ms: millis(record.tombstone),
        state: match &record.state {
            State::Outstanding { lease } => StateV1::Outstanding {
                lease_ms: millis(*lease),
            },
            State::Completed(_) => StateV1::Completed,
            State::Rejected(_) => StateV1::Rejected,
            State::Unknown { reason, .. } => StateV1::Unknown(match reason {
                UnknownReason::LeaseLapsed => ReasonV1::LeaseLapsed,
                UnknownReason::Restarted => ReasonV1::Restarted,
                UnknownReason::UpstreamFailed => ReasonV1::UpstreamFailed,
                UnknownReason::UpstreamTimeout => ReasonV1::UpstreamTimeout,
                UnknownReason::UpstreamAnswered => ReasonV1::UpstreamAnswered,
            }),
        },
        response: record.state.response().map(|response| ResponseV1 {
            status: response.status.as_u16(),
            headers: response
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect(),
            is_content_stored: matches!(response.content, Content::Stored(_)),
        }),
    }
}

fn record_of(claim: ClaimId, meta: MetaV1<'_>, content: Bytes) -> Option<Record> {
    let response = match meta.response {
        None => None,
        Some(response) => Some(response_of(response, content)?),
    };
    let state = match (meta.state, response) {
        (StateV1::Outstanding { lease_ms }, None) => State::Outstanding {
            lease: Duration::from_millis(lease_ms),
        },
        (StateV1::Completed, Some(response)) => State::Completed(response),
        (StateV1::Rejected, Some(response)) => State::Rejected(response),
        (StateV1::Unknown(reason), response) => {
            let reason = match reason {
                ReasonV1::LeaseLapsed => UnknownReason::LeaseLapsed,
                ReasonV1::Restarted => UnknownReason::Restarted,
                ReasonV1::UpstreamFailed => UnknownReason::UpstreamFailed,
                ReasonV1::UpstreamTimeout => UnknownReason::UpstreamTimeout,
                ReasonV1::UpstreamAnswered => UnknownReason::UpstreamAnswered,
            };
            State::Unknown { reason, response }
        }
        _ => return None,
    };
    Some(Record {
        claim,
        scope: ScopeId::from_bytes(meta.scope),
        fingerprint: Fingerprint {
            digest: meta.digest,
            outline: meta.outline.into(),
        },
        attempt: meta.attempt,
        route: meta.route.into(),
        trace: meta.trace.map(Into::into),
        asked_by: None,
        retention: Duration::from_millis(meta.retention_ms),
        tombstone: Duration::from_millis(meta.tombstone_ms),
        state,
    })
}

fn response_of(response: ResponseV1<'_>, content: Bytes) -> Option<StoredResponse> {
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for (name, value) in response.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(StoredResponse {
        status: StatusCode::from_u16(response.status).ok()?,
        headers,
        content: if response.is_content_stored {
            Content::Stored(content)
        } else {
            Content::Withheld
        },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn keys() -> HashKeys {
        HashKeys::derive(&Secret::from_bytes([9; 32]))
    }

    fn record(state: State) -> Record {
        Record {
            claim: ClaimId::from_bytes([5; 16]),
            scope: ScopeId::from_bytes([6; 16]),
            fingerprint: Fingerprint {
                digest: [7; 16],
                outline: [(1, 2), (3, u32::MAX)].into(),
            },
            attempt: 2,
            route: "POST /orders".into(),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            retention: Duration::from_secs(86_400),
            tombstone: Duration::from_millis(1),
            asked_by: None,
            state,
        }
    }

    fn response(content: Content) -> StoredResponse {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_bytes(b"\xff").expect("a value"));
        StoredResponse {
            status: StatusCode::CREATED,
            headers,
            content,
        }
    }

    fn states() -> Vec<State> {
        let stored = || response(Content::Stored(Bytes::from_static(&[0, 255, 13, 10])));
        let reason = UnknownReason::UpstreamAnswered;
        vec![
            State::Outstanding {
                lease: Duration::from_secs(60),
            },
            State::Completed(stored()),
            State::Completed(response(Content::Withheld)),
            State::Rejected(response(Content::Stored(Bytes::new()))),
            State::Unknown {
                reason,
                response: Some(stored()),
            },
            State::Unknown {
                reason: UnknownReason::Restarted,
                response: None,
            },
        ]
    }

    #[test]
    fn every_state_reads_back_as_written() {
        let key = RecordKey::from_bytes([1; 16]);
        for record in records() {
            let bytes = encode(&keys(), &key, &record, b"beside").expect("it fits");
            assert_eq!(
                decode(&keys(), &key, &bytes, b"beside").expect("intact"),
                record
            );
        }
    }

    /// Every state, without and with what a probe needs.
    fn records() -> Vec<Record> {
        let values = Values {
            key: "k-1".to_owned(),
            params: vec![("id".to_owned(), "7/8".to_owned())],
        };
        let plain = states().into_iter().map(record);
        let with = states().into_iter().map(|state| Record {
            asked_by: Some(Arc::new(values.clone())),
            ..record(state)
        });
        plain.chain(with).collect()
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_place_is_noticed() {
        let key = RecordKey::from_bytes([1; 16]);
        for record in records() {
            let bytes = encode(&keys(), &key, &record, b"beside").expect("it fits");
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    decode(&keys(), &key, &flipped.into(), b"beside").is_err(),
                    "bit {bit}"
                );
            }
            for len in 0..bytes.len() {
                assert!(
                    decode(&keys(), &key, &bytes.slice(..len), b"beside").is_err(),
                    "cut at {len}"
                );
            }
            let other = RecordKey::from_bytes([2; 16]);
            assert!(decode(&keys(), &other, &bytes, b"beside").is_err());
            assert!(decode(&keys(), &key, &bytes, b"Beside").is_err());
            let stranger = HashKeys::derive(&Secret::from_bytes([8; 32]));
            assert!(decode(&stranger, &key, &bytes, b"beside").is_err());
        }
    }

    #[test]
    fn the_stored_format_of_version_1_does_not_change() {
        let key = RecordKey::from_bytes([1; 16]);
        let record = record(State::Completed(response(Content::Stored(
            Bytes::from_static(b"ok"),
        ))));
        let bytes = encode(&keys(), &key, &record, b"").expect("it fits");
        let digest = blake3::hash(&bytes);
        assert_eq!(
            &digest.to_hex()[..16],
            FORMAT_V1,
            "records on disk would no longer be read"
        );
    }

    #[test]
    fn the_stored_format_of_version_2_does_not_change() {
        let record = records().pop().expect("one");
        let key = RecordKey::from_bytes([1; 16]);
        let bytes = encode(&keys(), &key, &record, b"").expect("it fits");
        let digest = blake3::hash(&bytes);
        assert_eq!((bytes[3], &digest.to_hex()[..16]), (2, FORMAT_V2));
    }

    const FORMAT_V2: &str = "53bdf4fccff1503a";
    const FORMAT_V1: &str = "445e42bb057749b5";

    #[test]
    fn another_version_is_named_as_such() {
        let key = RecordKey::from_bytes([1; 16]);
        let record = record(State::Outstanding {
            lease: Duration::ZERO,
        });
        let mut bytes = encode(&keys(), &key, &record, b"")
            .expect("it fits")
            .to_vec();
        bytes[3] = 3;
        let error = decode(&keys(), &key, &bytes.into(), b"").expect_err("not ours");
        assert!(error.to_string().contains("another version"), "{error}");
    }
}
