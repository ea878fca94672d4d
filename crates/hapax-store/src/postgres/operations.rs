//! The operations that are done in batches: claims, completions and looks.

use std::sync::Arc;

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Record};
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use tokio_postgres::Row;

use super::batch::{Follow, Member};
use super::error::{Failure, Intent};
use super::link::{Link, Parameters};
use super::value::Found;
use crate::shared;

/// A record as it is written.
struct Written {
    claim: ClaimId,
    state: i16,
    lifetime_ms: Option<i64>,
    value: Bytes,
}

impl Written {
    fn new(keys: &HashKeys, key: &RecordKey, record: &Record) -> Result<Self, StoreError> {
        Ok(Self {
            claim: record.claim,
            state: shared::state(record),
            lifetime_ms: shared::lifetime_ms(record),
            value: shared::encode(keys, key, record)?,
        })
    }
}

/// A claim of a key.
pub(super) struct Claim {
    key: RecordKey,
    record: Written,
}

/// What a claim comes to.
#[derive(Clone)]
pub(super) enum Claimed {
    /// The key was vacant and is the claim's, since this instant.
    Taken(i64),
    /// It is held.
    Held(Arc<Found>),
    /// Somebody took it, or gave it back, while the statement ran.
    Again,
}

impl Claim {
    pub(super) fn new(
        keys: &HashKeys,
        key: &RecordKey,
        record: &Record,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            key: *key,
            record: Written::new(keys, key, record)?,
        })
    }
}

impl Member for Claim {
    type Outcome = Claimed;

    /// Whoever came together with the one that took the key sees it held the next time.
    const FOLLOW: Option<Follow<Claimed>> = Some(|claimed| match claimed {
        Claimed::Held(found) => Claimed::Held(Arc::clone(found)),
        Claimed::Taken(_) | Claimed::Again => Claimed::Again,
    });

    fn key(&self) -> &RecordKey {
        &self.key
    }

    fn bytes(&self) -> usize {
        self.record.value.len()
    }

    fn written(outcome: &Claimed) -> bool {
        matches!(outcome, Claimed::Taken(_))
    }

    async fn perform(link: &Link, members: &[Self]) -> Result<Vec<Claimed>, Failure> {
        let keys = column(members, |claim| claim.key.as_bytes().as_slice());
        let claims = column(members, |claim| claim.record.claim.as_bytes().as_slice());
        let states = column(members, |claim| claim.record.state);
        let lifetimes = column(members, |claim| claim.record.lifetime_ms);
        let values = column(members, |claim| claim.record.value.as_ref());
        let parameters: Parameters<'_> = &[&keys, &claims, &states, &lifetimes, &values];
        let rows = link.run(Intent::Write, |all| &all.claim, parameters);
        by_key(members, &rows.await?, &Claimed::Again, |row| {
            Ok(match Found::read(row)? {
                Some(found) => Claimed::Held(Arc::new(found)),
                None => Claimed::Taken(row.try_get("now")?),
            })
        })
    }
}

/// The record that follows a claim.
pub(super) struct Completion {
    key: RecordKey,
    expected: ClaimId,
    record: Written,
}

impl Completion {
    pub(super) fn new(
        keys: &HashKeys,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            key: *key,
            expected,
            record: Written::new(keys, key, record)?,
        })
    }
}

impl Member for Completion {
    /// The instant it was written at; `None` for one that was stale.
    type Outcome = Option<i64>;

    const FOLLOW: Option<Follow<Option<i64>>> = None;

    fn key(&self) -> &RecordKey {
        &self.key
    }

    fn bytes(&self) -> usize {
        self.record.value.len()
    }

    fn written(outcome: &Option<i64>) -> bool {
        outcome.is_some()
    }

    async fn perform(link: &Link, members: &[Self]) -> Result<Vec<Option<i64>>, Failure> {
        let keys = column(members, |one| one.key.as_bytes().as_slice());
        let expected = column(members, |one| one.expected.as_bytes().as_slice());
        let claims = column(members, |one| one.record.claim.as_bytes().as_slice());
        let states = column(members, |one| one.record.state);
        let lifetimes = column(members, |one| one.record.lifetime_ms);
        let values = column(members, |one| one.record.value.as_ref());
        let parameters: Parameters<'_> = &[&keys, &expected, &claims, &states, &lifetimes, &values];
        let rows = link.run(Intent::Write, |all| &all.replace, parameters);
        by_key(members, &rows.await?, &None, |row| {
            row.try_get("written_at").map(Some)
        })
    }
}

/// A question for what is held under a key.
pub(super) struct Look {
    pub(super) key: RecordKey,
}

/// What was seen, and when.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) found: Option<Arc<Found>>,
    pub(super) now: i64,
}

impl Member for Look {
    type Outcome = Option<Seen>;

    const FOLLOW: Option<Follow<Option<Seen>>> = Some(Clone::clone);

    fn key(&self) -> &RecordKey {
        &self.key
    }

    fn bytes(&self) -> usize {
        0
    }

    fn written(_: &Option<Seen>) -> bool {
        false
    }

    async fn perform(link: &Link, members: &[Self]) -> Result<Vec<Option<Seen>>, Failure> {
        let keys = column(members, |look| look.key.as_bytes().as_slice());
        let rows = link.run(Intent::Read, |all| &all.look, &[&keys]).await?;
        by_key(members, &rows, &None, |row| {
            Ok(Some(Seen {
                found: Found::read(row)?.map(Arc::new),
                now: row.try_get("now")?,
            }))
        })
    }
}

/// Of each member the same part, as the statements want it.
fn column<'m, M, T>(members: &'m [M], part: impl Fn(&'m M) -> T) -> Vec<T> {
    members.iter().map(part).collect()
}

/// What the rows say of each member's key, of which each has one row at most; `absent` where
/// there is none.
fn by_key<M: Member>(
    members: &[M],
    rows: &[Row],
    absent: &M::Outcome,
    read: impl Fn(&Row) -> Result<M::Outcome, tokio_postgres::Error>,
) -> Result<Vec<M::Outcome>, Failure> {
    let mut outcomes = vec![absent.clone(); members.len()];
    for row in rows {
        let key: &[u8] = row.try_get("key").map_err(Failure::failed)?;
        let place = members.binary_search_by(|member| member.key().as_bytes().as_slice().cmp(key));
        if let Some(outcome) = place.ok().and_then(|place| outcomes.get_mut(place)) {
            *outcome = read(row).map_err(Failure::failed)?;
        }
    }
    Ok(outcomes)
}
