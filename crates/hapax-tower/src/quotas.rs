//! How many records one scope may have this process keep; refusal comes before the claim (G13, P36).
//!
//! Every claim is charged to its scope before it is asked for, and stays charged until the key is free by what was last
//! written: at once where it was released, else when retention and tombstone are over. When that is, is rounded up by a
//! sixteenth of the time at most, so that an account is small however many records it has. A record that is claimed anew
//! is charged anew, on top of its first charge, which runs out. So an account is never below what its scope has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use hapax_core::record::Record;
use hapax_core::scope::ScopeId;
use hapax_core::store::{Insert, StoreError, Write};

use crate::layer::Limits;

/// Scopes that have records and are counted; about a kibibyte each at worst. Beyond, a scope without an account has no quota.
const MOST_SCOPES: usize = 65_536;
/// In how many steps the records of one retention run out.
const STEPS: u64 = 16;
/// How often all accounts are looked through for empty ones, at most, when there is no room for another.
const LOOK_THROUGH_EVERY: u64 = 1;

/// The quotas of all scopes; without a limit, nothing is counted.
#[derive(Debug, Clone)]
pub(crate) struct Quotas(Option<Arc<Ledger>>);

/// Whether a scope may have another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes, and it is charged; or nothing is counted at all.
    Charged,
    /// Yes, because there are too many scopes to count.
    NotCounted,
    /// Not before this time has passed.
    Full { until: Duration },
}

/// What an attempt has charged to its scope; runs out as last written when dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge(Option<Entry>);

#[derive(Debug)]
struct Ledger {
    most_records: u64,
    most_bytes: u64,
    most_scopes: usize,
    epoch: Instant,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    of: HashMap<ScopeId, Account>,
    looked_through_at: Option<u64>,
}

/// What a scope has.
#[derive(Debug, Default)]
struct Account {
    sum: Sum,
    /// The part of it that runs out, by the second in which it does.
    leaving: BTreeMap<u64, Sum>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    records: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    ledger: Arc<Ledger>,
    scope: ScopeId,
    bytes: u64,
    /// When it runs out; `None` for what has not been written, or is gone.
    until: Option<u64>,
}

impl Quotas {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::counting(limits, MOST_SCOPES)
    }

    fn counting(limits: &Limits, most_scopes: usize) -> Self {
        let (most_records, most_bytes) = (limits.records_per_scope, limits.bytes_per_scope);
        if most_records == u64::MAX && most_bytes == u64::MAX {
            return Self(None);
        }
        Self(Some(Arc::new(Ledger {
            most_records,
            most_bytes,
            most_scopes,
            epoch: Instant::now(),
            accounts: Mutex::default(),
        })))
    }
}

impl Charge {
    /// Asks for room for a record, before the store is asked to insert it.
    pub(crate) fn room(&mut self, quotas: &Quotas, scope: ScopeId) -> Room {
        let (Some(ledger), None) = (&quotas.0, &self.0) else {
            return Room::Charged;
        };
        let now = ledger.now();
        let mut accounts = ledger.accounts();
        let Some(account) = accounts.account(scope, ledger.most_scopes, now) else {
            return Room::NotCounted;
        };
        if account.sum.records >= ledger.most_records || account.sum.bytes >= ledger.most_bytes {
            let first = account.leaving.keys().next();
            let seconds = first.map_or(1, |first| first.saturating_sub(now));
            accounts.forget_if_empty(scope);
            return Room::Full {
                until: Duration::from_secs(seconds.max(1)),
            };
        }
        account.sum.records += 1;
        drop(accounts);
        self.0 = Some(Entry {
            ledger: Arc::clone(ledger),
            scope,
            bytes: 0,
            until: None,
        });
        Room::Charged
    }

    /// Takes note of what came of inserting `record`.
    pub(crate) fn inserted(&mut self, record: &Record, result: &Result<Insert, StoreError>) {
        let is_there = match result {
            Ok(Insert::Claimed { .. }) => true,
            Ok(Insert::Occupied { held, .. }) => held.record.claim == record.claim,
            Err(error) => error.may_have_written(),
        };
        match &mut self.0 {
            Some(entry) if is_there => entry.wrote(record),
            Some(entry) if entry.until.is_none() => self.0 = None,
            Some(_) | None => {}
        }
    }

    /// Takes note of what came of writing `record` in place of another.
    pub(crate) fn replaced(
        &mut self,
        quotas: &Quotas,
        record: &Record,
        result: &Result<Write, StoreError>,
    ) {
        let (Some(ledger), Ok(Write::Applied { .. })) = (&quotas.0, result) else {
            return;
        };
        if self.0.is_none() {
            // The key is in use already: quota or not, it goes on.
            let mut accounts = ledger.accounts();
            let now = ledger.now();
            let Some(account) = accounts.account(record.scope, ledger.most_scopes, now) else {
                return;
            };
            account.sum.records += 1;
            drop(accounts);
            self.0 = Some(Entry {
                ledger: Arc::clone(ledger),
                scope: record.scope,
                bytes: 0,
                until: None,
            });
        }
        if let Some(entry) = &mut self.0 {
            entry.wrote(record);
        }
    }

    /// Takes note of what came of removing the record.
    pub(crate) fn removed(&mut self, result: &Result<Write, StoreError>) {
        // Removed, or found not to be there.
        if let (Some(entry), Ok(_)) = (&mut self.0, result) {
            entry.until = None;
            self.0 = None;
        }
    }
}

impl Ledger {
    fn now(&self) -> u64 {
        Instant::now()
            .saturating_duration_since(self.epoch)
            .as_secs()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The second by which what stays for `time` from now on is certainly gone.
    fn end_of(&self, time: Duration) -> u64 {
        // Both the present second and the time may have a fraction.
        let seconds = time.as_secs().saturating_add(2);
        let step = (seconds / STEPS).max(1);
        let end = self.now().saturating_add(seconds);
        end.div_ceil(step).saturating_mul(step)
    }
}

impl Accounts {
    /// The scope's account, with what has run out taken off; `None` when there are too many.
    fn account(&mut self, scope: ScopeId, most: usize, now: u64) -> Option<&mut Account> {
        if !self.of.contains_key(&scope) && self.of.len() >= most {
            let is_due = |at: u64| now >= at.saturating_add(LOOK_THROUGH_EVERY);
            if !self.looked_through_at.is_none_or(is_due) {
                return None;
            }
            self.looked_through_at = Some(now);
            self.of.retain(|_, account| !account.settle(now).is_empty());
            if self.of.len() >= most {
                return None;
            }
        }
        let account = self.of.entry(scope).or_default();
        account.settle(now);
        Some(account)
    }

    fn forget_if_empty(&mut self, scope: ScopeId) {
        if self.of.get(&scope).is_some_and(Account::is_empty) {
            self.of.remove(&scope);
        }
    }
}

impl Account {
    /// Takes off what has run out.
    fn settle(&mut self, now: u64) -> &Self {
        while let Some(first) = self
            .leaving
            .first_entry()
            .filter(|first| *first.key() <= now)
        {
            let gone = first.remove();
            self.sum.records = self.sum.records.saturating_sub(gone.records);
            self.sum.bytes = self.sum.bytes.saturating_sub(gone.bytes);
        }
        self
    }

    fn is_empty(&self) -> bool {
        self.sum.records == 0
    }
}

impl Entry {
    fn wrote(&mut self, record: &Record) {
        let weight = record.weight();
        self.until = Some(self.ledger.end_of(record.stays_for()));
        let mut accounts = self.ledger.accounts();
        if let Some(account) = accounts.of.get_mut(&self.scope) {
            account.sum.bytes = account.sum.bytes.saturating_sub(self.bytes) + weight;
        }
        drop(accounts);
        self.bytes = weight;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut accounts = self.ledger.accounts();
        let Some(account) = accounts.of.get_mut(&self.scope) else {
            return;
        };
        if let Some(until) = self.until {
            let leaving = account.leaving.entry(until).or_default();
            leaving.records += 1;
            leaving.bytes += self.bytes;
        } else {
            account.sum.records = account.sum.records.saturating_sub(1);
            account.sum.bytes = account.sum.bytes.saturating_sub(self.bytes);
            accounts.forget_if_empty(self.scope);
        }
    }
}

#[cfg(test)]
mod tests;
