//! What the scripts answer, and a record as a string.

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::Timestamp;
use redis::Value;

use super::error::Failure;
use crate::shared::{self, Stamped};

/// Bytes of a record's head.
const HEAD: usize = 50;

/// A script's answer.
pub(super) struct Answer {
    /// One of the numbers of `scripts`.
    pub(super) outcome: i64,
    /// The instant of the script.
    pub(super) now: Timestamp,
    rest: Vec<Value>,
}

impl Answer {
    /// Takes an answer that must be the one of `call`.
    pub(super) fn parse(call: &str, value: Value) -> Result<Self, Failure> {
        let Value::Array(parts) = value else {
            return Err(Failure::Strange);
        };
        let mut parts = parts.into_iter();
        let (Some(Value::BulkString(of)), Some(Value::Int(outcome)), Some(Value::Int(now))) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::Strange);
        };
        if of != call.as_bytes() {
            return Err(Failure::Strange);
        }
        Ok(Self {
            outcome,
            now: timestamp(now),
            rest: parts.collect(),
        })
    }

    /// The number in place `index` behind the instant.
    pub(super) fn number(&self, index: usize) -> Result<u64, StoreError> {
        match self.rest.get(index) {
            Some(Value::Int(number)) => Ok(u64::try_from(*number).unwrap_or(0)),
            _ => Err(strange()),
        }
    }

    /// The bytes in place `index`.
    pub(super) fn bytes(&self, index: usize) -> Result<&[u8], StoreError> {
        match self.rest.get(index) {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(strange()),
        }
    }

    /// The record keys in place `index`.
    pub(super) fn members(&self, index: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        match self.rest.get(index) {
            Some(members @ Value::Array(_)) => members_of(members.clone()),
            _ => Err(strange()),
        }
    }

    /// All that comes behind the instant.
    pub(super) fn into_rest(self) -> Vec<Value> {
        self.rest
    }

    /// The record behind the instant.
    pub(super) fn held(self, keys: &HashKeys, key: &RecordKey) -> Result<Held, StoreError> {
        match self.rest.into_iter().next() {
            Some(Value::BulkString(bytes)) => held(keys, key, &Bytes::from(bytes)),
            _ => Err(strange()),
        }
    }
}

/// A list of texts, as an index answers.
pub(super) fn members_of(value: Value) -> Result<Vec<Vec<u8>>, StoreError> {
    redis::from_redis_value(value).map_err(|error| StoreError::Refused {
        reason: "Redis answered something else than was asked for",
        source: Some(Box::new(error)),
    })
}

/// A record's string, which the script has found to have a whole head.
pub(super) fn held(keys: &HashKeys, key: &RecordKey, string: &Bytes) -> Result<Held, StoreError> {
    let cut = StoreError::Damaged { what: "cut short" };
    if string.len() < HEAD {
        return Err(cut);
    }
    let value = string.slice(HEAD..);
    let (Some(claim), Some(claimed_at), Some(written_at), Some(expires_at)) = (
        string.get(2..18),
        instant(string, 18),
        instant(string, 26),
        instant(string, 34),
    ) else {
        return Err(cut);
    };
    let stamped = Stamped {
        claim,
        claimed_at,
        written_at,
        expires_at: Some(expires_at).filter(|expires_at| *expires_at != 0),
    };
    shared::decode(keys, key, &value, stamped)
}

fn instant(string: &[u8], at: usize) -> Option<i64> {
    let bytes = string.get(at..at.checked_add(8)?)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

/// A server whose clock stands before 1970 is taken to stand there.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn strange() -> StoreError {
    StoreError::Refused {
        reason: "Redis answered something else than was asked for",
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_call_is_not_taken() {
        let answer = |call: &str| {
            Value::Array(vec![
                Value::BulkString(call.as_bytes().to_vec()),
                Value::Int(1),
                Value::Int(1_700_000_000_000),
            ])
        };
        let taken = Answer::parse("7", answer("7")).expect("its own");
        assert_eq!(taken.outcome, 1);
        assert_eq!(taken.now, Timestamp::from_millis(1_700_000_000_000));
        for other in [answer("8"), Value::Nil, Value::Array(vec![])] {
            let refused = Answer::parse("7", other);
            assert!(matches!(refused, Err(Failure::Strange)));
        }
    }
}
