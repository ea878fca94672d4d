//! The key of one attempt while it has it: turn, lock, transaction and row together.

use std::sync::Arc;

use sqlx::Transaction;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use hapax_core::attempt::Ticket;
use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record, State};
use hapax_core::store::{Insert, StoreError, Write};
use hapax_core::time::Timestamp;

use crate::Dialect;
use crate::flights::Turn;
use crate::layer::Shared;
use crate::records::{begin, instant};
use crate::statements::{Claim, FailureKind};

/// How often a row that came or went meanwhile is looked at again.
const MAX_RACES: u32 = 8;

/// The pause between two looks for what became of a commit whose answer was lost.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// A claimed key. The fields are dropped in this order: the transaction is over before anybody
/// else gets a turn.
pub(crate) struct Holding<DB: Dialect> {
    /// `None` while the handler has it.
    transaction: Option<Transaction<'static, DB>>,
    _turn: Turn,
    _writer: Option<OwnedSemaphorePermit>,
    /// The claim in the row, and the one that it replaced, where a row was there before.
    claim: ClaimId,
    replaced: Option<ClaimId>,
    /// Whether the handler goes through recovery points, and has no transaction of its own.
    is_flow: bool,
    key: RecordKey,
    /// The database's clock at the claim, and when that was here.
    claimed_at: Timestamp,
    since: Instant,
}

/// Why a key could not be claimed. Nothing was written.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: StoreError,
    /// The database rolled back; running again may succeed.
    pub(crate) is_conflict: bool,
}

/// What came of writing down how an execution ended.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Committed, or found that somebody else has the key.
    Written(Write),
    /// The database rolled back; running again may succeed.
    Conflict,
    /// Certainly not committed.
    RolledBack,
    /// The database cannot be asked what became of the commit.
    Lost,
}

type Claimed<DB, T> = Result<(Option<Holding<DB>>, T), Failure>;

impl<DB: Dialect> Holding<DB> {
    /// Inserts the key's row in a new transaction, if it is vacant or what is there has expired.
    pub(crate) async fn claim(shared: &Arc<Shared<DB>>, ticket: &Ticket) -> Claimed<DB, Insert> {
        let claiming = Self::try_claim(shared, ticket);
        match timeout(shared.options.database_timeout, claiming).await {
            Ok(claimed) => claimed,
            Err(_) => Err(too_slow()),
        }
    }

    async fn try_claim(shared: &Arc<Shared<DB>>, ticket: &Ticket) -> Claimed<DB, Insert> {
        let turn = match shared.flights.take(ticket.key).await {
            Ok(turn) => turn,
            Err(first) => return Ok((None, under_way(ticket, first, Timestamp::default()))),
        };
        if DB::HAS_ONE_WRITER && shared.writer.available_permits() == 0 {
            // A repeat ends here, without waiting for whoever writes.
            let (held, now) = Self::read(shared, &ticket.key).await.map_err(refused)?;
            if let Some(held) = held.filter(|held| !held.is_expired(now)) {
                return Ok((None, occupied(held, now)));
            }
        }
        let writer = writer(shared).await;
        let key = ticket.key.as_bytes();
        for _ in 0..MAX_RACES {
            let mut transaction = begin(&shared.records.pool, shared.begin()).await?;
            let claim = ticket.claim.as_bytes();
            let has_lock = match DB::claim(&mut transaction, key, claim).await? {
                Claim::Claimed(now) => {
                    let now = instant(now);
                    let holding = Self::hold(ticket, transaction, turn, writer, None, now);
                    return Ok((Some(holding), Insert::Claimed { now }));
                }
                Claim::Exists => true,
                Claim::Locked => false,
            };
            let (row, now) = DB::read(&mut transaction, key).await?;
            let now = instant(now);
            let held = row.map(|row| shared.records.held(&ticket.key, row));
            match held.transpose().map_err(refused)? {
                Some(held) if !held.is_expired(now) => {
                    let _ = transaction.rollback().await;
                    return Ok((None, occupied(held, now)));
                }
                Some(held) if has_lock => {
                    let expected = held.record.claim;
                    let taken =
                        DB::take_over(&mut transaction, key, expected.as_bytes(), claim).await?;
                    if let Some(now) = taken.map(instant) {
                        let replaced = Some(expected);
                        let holding = Self::hold(ticket, transaction, turn, writer, replaced, now);
                        return Ok((Some(holding), Insert::Claimed { now }));
                    }
                }
                // Another process has it, and nothing of what it does can be seen.
                _ if !has_lock => {
                    let _ = transaction.rollback().await;
                    let inserted = under_way(ticket, ticket.fingerprint.clone(), now);
                    return Ok((None, inserted));
                }
                // Swept between the insert and the look.
                _ => {}
            }
            let _ = transaction.rollback().await;
        }
        Err(refused(StoreError::Refused {
            reason: "the key's row came and went",
            source: None,
        }))
    }

    /// Puts the ticket's claim on a row that has the claim `expected`, in a new transaction.
    pub(crate) async fn take_over(
        shared: &Arc<Shared<DB>>,
        ticket: &Ticket,
        expected: ClaimId,
    ) -> Claimed<DB, Write> {
        let taking = async {
            let Ok(turn) = shared.flights.take(ticket.key).await else {
                return Ok((None, Write::Stale));
            };
            let writer = writer(shared).await;
            let mut transaction = begin(&shared.records.pool, shared.begin()).await?;
            let key = ticket.key.as_bytes();
            let claim = ticket.claim.as_bytes();
            let taken = if DB::try_lock(&mut transaction, key).await? {
                DB::take_over(&mut transaction, key, expected.as_bytes(), claim).await?
            } else {
                None
            };
            let Some(now) = taken.map(instant) else {
                let _ = transaction.rollback().await;
                return Ok((None, Write::Stale));
            };
            let replaced = Some(expected);
            let holding = Self::hold(ticket, transaction, turn, writer, replaced, now);
            Ok((Some(holding), Write::Applied { now }))
        };
        match timeout(shared.options.database_timeout, taking).await {
            Ok(taken) => taken,
            Err(_) => Err(too_slow()),
        }
    }

    /// Notes that the request is under way, without a transaction that lasts. Another process may
    /// do the same at the same time: no step is committed twice, and one of them settles.
    pub(crate) async fn begin_flow(
        shared: &Arc<Shared<DB>>,
        ticket: &Ticket,
        request: &[u8],
        replaced: Option<ClaimId>,
    ) -> Claimed<DB, Insert> {
        let beginning = async {
            let turn = match shared.flights.take(ticket.key).await {
                Ok(turn) => turn,
                Err(first) => return Ok((None, under_way(ticket, first, Timestamp::default()))),
            };
            let _writer = writer(shared).await;
            let (key, digest) = (ticket.key.as_bytes(), &ticket.fingerprint.digest);
            let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
            let (noted, now) = DB::begin_flow(&mut transaction, key, digest, request).await?;
            // Only now, since whoever answers the request has to come past the row just written.
            let (row, _) = DB::read(&mut transaction, key).await?;
            let now = instant(now);
            let held = row.map(|row| shared.records.held(&ticket.key, row));
            let held = held.transpose().map_err(refused)?;
            let present = held.as_ref().map(|held| held.record.claim);
            match held {
                Some(held) if replaced.is_none() && !held.is_expired(now) => {
                    let _ = transaction.rollback().await;
                    return Ok((None, occupied(held, now)));
                }
                _ => transaction.commit().await?,
            }
            if noted != digest {
                let first = Fingerprint {
                    digest: noted.try_into().unwrap_or_default(),
                    outline: [].into(),
                };
                return Ok((None, under_way(ticket, first, now)));
            }
            turn.execute(&ticket.fingerprint);
            let holding = Self {
                transaction: None,
                _turn: turn,
                _writer: None,
                claim: ticket.claim,
                replaced: replaced.or(present),
                is_flow: true,
                key: ticket.key,
                claimed_at: now,
                since: Instant::now(),
            };
            Ok((Some(holding), Insert::Claimed { now }))
        };
        match timeout(shared.options.database_timeout, beginning).await {
            Ok(begun) => begun,
            Err(_) => Err(too_slow()),
        }
    }

    /// Whether a step of the request is committed.
    pub(crate) async fn has_steps(shared: &Shared<DB>, key: &RecordKey) -> sqlx::Result<bool> {
        let mut connection = shared.records.pool.acquire().await?;
        DB::has_steps(&mut connection, key.as_bytes()).await
    }

    /// Commits the record of a request whose steps are done, and forgets these.
    pub(crate) async fn settle_flow(
        mut self,
        shared: &Arc<Shared<DB>>,
        key: &RecordKey,
        record: &Record,
    ) -> Settled {
        self._writer = writer(shared).await;
        let (bytes, claim, replaced) = (*key.as_bytes(), *self.claim.as_bytes(), self.replaced);
        let claiming = async {
            let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
            let is_ours = DB::lock_flow(&mut transaction, &bytes).await?
                && match replaced {
                    None => matches!(
                        DB::claim(&mut transaction, &bytes, &claim).await?,
                        Claim::Claimed(_)
                    ),
                    Some(replaced) => {
                        DB::try_lock(&mut transaction, &bytes).await?
                            && DB::take_over(&mut transaction, &bytes, replaced.as_bytes(), &claim)
                                .await?
                                .is_some()
                    }
                };
            DB::end_flow(&mut transaction, &bytes).await?;
            Ok::<_, sqlx::Error>(is_ours.then_some(transaction))
        };
        match timeout(shared.options.database_timeout, claiming).await {
            Ok(Ok(Some(transaction))) => {
                self.transaction = Some(transaction);
                self.settle(shared, key, record).await
            }
            // Another process has settled it meanwhile: looking again finds its answer.
            Ok(Ok(None)) => Settled::Conflict,
            Ok(Err(error)) if DB::kind_of(&error) == FailureKind::Conflict => Settled::Conflict,
            _ => Settled::RolledBack,
        }
    }

    /// Forgets a request of which no step is done. With one, it waits for the next attempt, or for
    /// the completer.
    async fn leave_flow(shared: &Arc<Shared<DB>>, key: RecordKey) -> sqlx::Result<()> {
        let _writer = writer(shared).await;
        let key = key.as_bytes();
        let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
        if DB::lock_flow(&mut transaction, key).await?
            && !DB::has_steps(&mut transaction, key).await?
        {
            DB::end_flow(&mut transaction, key).await?;
        }
        transaction.commit().await
    }

    fn hold(
        ticket: &Ticket,
        transaction: Transaction<'static, DB>,
        turn: Turn,
        writer: Option<OwnedSemaphorePermit>,
        replaced: Option<ClaimId>,
        claimed_at: Timestamp,
    ) -> Self {
        turn.execute(&ticket.fingerprint);
        Self {
            transaction: Some(transaction),
            _turn: turn,
            _writer: writer,
            claim: ticket.claim,
            replaced,
            is_flow: false,
            key: ticket.key,
            claimed_at,
            since: Instant::now(),
        }
    }

    /// The committed record of a key, through a connection of its own.
    pub(crate) async fn read(
        shared: &Shared<DB>,
        key: &RecordKey,
    ) -> Result<(Option<Held>, Timestamp), StoreError> {
        let reading = async {
            let mut connection = shared.records.pool.acquire().await?;
            DB::read(&mut connection, key.as_bytes()).await
        };
        let read = timeout(shared.options.database_timeout, reading).await;
        let (row, now) = read
            .map_err(|_| too_slow().error)?
            .map_err(|error| Failure::from(error).error)?;
        let held = row.map(|row| shared.records.held(key, row)).transpose()?;
        Ok((held, instant(now)))
    }

    /// The transaction, for the handler.
    pub(crate) fn lend(&mut self) -> Option<Transaction<'static, DB>> {
        self.transaction.take()
    }

    /// The transaction again.
    pub(crate) fn take_back(&mut self, transaction: Transaction<'static, DB>) {
        self.transaction = Some(transaction);
    }

    /// The database's clock now, without asking it again.
    fn now(&self) -> Timestamp {
        self.claimed_at.plus(self.since.elapsed())
    }

    /// Ends the transaction without effect and lets the key go.
    pub(crate) async fn roll_back(mut self, shared: &Arc<Shared<DB>>) -> Timestamp {
        let now = self.now();
        if self.is_flow {
            // What stays is found by the next attempt.
            let _ = timeout(
                shared.options.database_timeout,
                Self::leave_flow(shared, self.key),
            )
            .await;
        }
        if let Some(transaction) = self.transaction.take() {
            // A connection that does not answer is left to the pool, which ends it.
            let _ = timeout(shared.options.database_timeout, transaction.rollback()).await;
        }
        now
    }

    /// Writes the record and commits.
    pub(crate) async fn settle(
        mut self,
        shared: &Shared<DB>,
        key: &RecordKey,
        record: &Record,
    ) -> Settled {
        let now = self.now();
        let (Some(mut transaction), Ok((row, expires_at))) = (
            self.transaction.take(),
            shared.records.row(key, record, now),
        ) else {
            return Settled::RolledBack;
        };
        let claim = self.claim.as_bytes();
        let patience = shared.options.database_timeout;
        let writing = DB::write(&mut transaction, key.as_bytes(), claim, &row, expires_at);
        match timeout(patience, writing).await {
            Ok(Ok(true)) => {}
            Ok(Err(error)) if DB::kind_of(&error) == FailureKind::Conflict => {
                return Settled::Conflict;
            }
            // Without its row the effect must not be committed: dropping rolls it back.
            _ => return Settled::RolledBack,
        }
        match timeout(patience, transaction.commit()).await {
            Ok(Ok(())) => Settled::Written(Write::Applied { now }),
            Ok(Err(error)) if DB::kind_of(&error) == FailureKind::Conflict => Settled::Conflict,
            // The connection may have broken before or after the commit.
            _ => Self::find_out(shared, key, record, now).await,
        }
    }

    /// What became of a commit whose answer was lost. As long as the old transaction lives, it has
    /// the lock; whoever gets the lock sees how it ended.
    async fn find_out(
        shared: &Shared<DB>,
        key: &RecordKey,
        record: &Record,
        now: Timestamp,
    ) -> Settled {
        let looking = async {
            loop {
                if let Ok(Some(is_there)) = Self::look(shared, key, record.claim).await {
                    return is_there;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(shared.options.database_timeout, looking).await {
            Ok(true) => Settled::Written(Write::Applied { now }),
            Ok(false) => Settled::RolledBack,
            Err(_) => Settled::Lost,
        }
    }

    /// Whether the row has the claim `seal`; `None` while another transaction has the key.
    async fn look(
        shared: &Shared<DB>,
        key: &RecordKey,
        seal: ClaimId,
    ) -> sqlx::Result<Option<bool>> {
        let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
        let found = if DB::try_lock(&mut transaction, key.as_bytes()).await? {
            let (row, _) = DB::read(&mut transaction, key.as_bytes()).await?;
            Some(row.is_some_and(|row| row.claim == seal.as_bytes()))
        } else {
            None
        };
        transaction.rollback().await?;
        Ok(found)
    }

    /// Rolls back what the handler wrote, claims the key again and commits the record alone. The
    /// turn is kept, so that no attempt of this process comes in between; one of another process
    /// may, and then it has the key.
    pub(crate) async fn settle_anew(
        mut self,
        shared: &Shared<DB>,
        ticket: &Ticket,
        record: &Record,
    ) -> Settled {
        if let Some(transaction) = self.transaction.take() {
            let _ = timeout(shared.options.database_timeout, transaction.rollback()).await;
        }
        let (key, claim) = (ticket.key.as_bytes(), ticket.claim.as_bytes());
        let replaced = self.replaced;
        let claiming = async {
            let mut transaction = begin(&shared.records.pool, shared.begin()).await?;
            let is_ours = match replaced {
                None => matches!(
                    DB::claim(&mut transaction, key, claim).await?,
                    Claim::Claimed(_)
                ),
                Some(replaced) => {
                    DB::try_lock(&mut transaction, key).await?
                        && DB::take_over(&mut transaction, key, replaced.as_bytes(), claim)
                            .await?
                            .is_some()
                }
            };
            Ok::<_, sqlx::Error>(is_ours.then_some(transaction))
        };
        match timeout(shared.options.database_timeout, claiming).await {
            Ok(Ok(Some(transaction))) => {
                self.transaction = Some(transaction);
                self.settle(shared, &ticket.key, record).await
            }
            Ok(Ok(None)) => Settled::Written(Write::Stale),
            Ok(Err(error)) if DB::kind_of(&error) == FailureKind::Conflict => Settled::Conflict,
            _ => Settled::RolledBack,
        }
    }
}

/// Where the database has one writer, the turn to write: taken before a connection is.
pub(crate) async fn writer<DB: Dialect>(shared: &Arc<Shared<DB>>) -> Option<OwnedSemaphorePermit> {
    if !DB::HAS_ONE_WRITER {
        return None;
    }
    // Never closed.
    Arc::clone(&shared.writer).acquire_owned().await.ok()
}

fn occupied(held: Held, now: Timestamp) -> Insert {
    let held = Box::new(held);
    Insert::Occupied { held, now }
}

/// A record that no other transaction can see yet, as far as it is known.
fn under_way(ticket: &Ticket, fingerprint: Fingerprint, now: Timestamp) -> Insert {
    let record = Record {
        // Nobody's: it is never written under.
        claim: ClaimId::from_bytes([0; 16]),
        scope: ticket.scope,
        fingerprint,
        attempt: 1,
        route: Arc::clone(&ticket.route),
        trace: None,
        asked_by: None,
        retention: ticket.policy.retention,
        tombstone: ticket.policy.tombstone,
        // Its transaction holds the lock for as long as it lives: there is no lease to run out.
        state: State::Outstanding {
            lease: std::time::Duration::MAX,
        },
    };
    let held = Held {
        record,
        claimed_at: now,
        written_at: now,
    };
    occupied(held, now)
}

fn refused(error: StoreError) -> Failure {
    Failure {
        error,
        is_conflict: false,
    }
}

fn too_slow() -> Failure {
    refused(StoreError::Refused {
        reason: "the database took too long",
        source: None,
    })
}

impl From<sqlx::Error> for Failure {
    /// Before a commit nothing is written.
    fn from(error: sqlx::Error) -> Self {
        let is_conflict = crate::kind_of(&error) == FailureKind::Conflict;
        Self {
            error: StoreError::Refused {
                reason: "the database failed",
                source: Some(Box::new(error)),
            },
            is_conflict,
        }
    }
}
