//! A store of one key with a clock of its own, scripted faults, and flaws for the controls.

use http::{HeaderMap, StatusCode};

use hapax_core::attempt::{Input, Step};
use hapax_core::record::{ClaimId, Held, Record, State, StoredResponse, UnknownReason};
use hapax_core::store::{Insert, StoreError, Write};
use hapax_core::time::Timestamp;

use crate::random::Random;
use crate::setting::RETENTION;
use crate::upstream::content_of;

/// What is wrong with the store on purpose: each must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Compare-and-swap that does not compare.
    ReplaceIgnoresExpected,
    /// The same for taking a record away.
    RemoveIgnoresExpected,
    /// A claim that does not look whether the key is held.
    InsertOverwrites,
    /// A settled record that keeps the claim id of the outstanding one.
    SealIsNotRotated,
    /// A lease that frees the key when it runs out.
    LapsedIsVacant,
    /// Settled records that are acknowledged and not kept.
    SettlementIsForgotten,
    /// Claims that are acknowledged and not kept.
    ClaimIsForgotten,
    /// A restart that gives the keys of interrupted claims back.
    RestartFreesClaims,
    /// A sweep that looks at the age of a record and not at its state.
    SweepsUnsettled,
}

pub(crate) struct FakeStore {
    pub(crate) now: u64,
    pub(crate) held: Option<Held>,
    /// Changes with every write, for those who wait.
    pub(crate) version: u64,
    /// Every claim id that was ever durable.
    pub(crate) claims: Vec<ClaimId>,
    /// Faults happen to one in so many operations; 0 for none.
    pub(crate) one_fault_in: u64,
    /// Whether a write may arrive long after it was given up.
    pub(crate) is_late: bool,
    /// Whether a write at least arrives before the same attempt's next one, as in a store that
    /// has one queue.
    pub(crate) is_ordered: bool,
    pub(crate) faults: u32,
    /// Until when every operation fails.
    pub(crate) down_until: u64,
    /// How long it has been down in all, at most.
    pub(crate) downtime: u64,
    pub(crate) flaw: Flaw,
    /// Writes that were given up and have yet to arrive, with when.
    in_flight: Vec<(u64, ClaimId, Step)>,
}

/// When a history begins.
const FIRST_NOW: u64 = 1_000_000_000;
/// A late write arrives at most this many milliseconds after it was given up.
pub(crate) const MAX_LATENESS: u64 = 5_000;

impl FakeStore {
    pub(crate) fn new() -> Self {
        Self {
            now: FIRST_NOW,
            held: None,
            version: 0,
            claims: Vec::new(),
            one_fault_in: 0,
            is_late: false,
            is_ordered: true,
            faults: 0,
            down_until: 0,
            downtime: 0,
            flaw: Flaw::None,
            in_flight: Vec::new(),
        }
    }

    /// A new store in the place of this one, with its flaw.
    pub(crate) fn begin(&mut self, flaw: Flaw) {
        let (mut claims, mut in_flight) = (
            std::mem::take(&mut self.claims),
            std::mem::take(&mut self.in_flight),
        );
        claims.clear();
        in_flight.clear();
        *self = Self {
            claims,
            in_flight,
            flaw,
            ..Self::new()
        };
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// When the next late write arrives.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.in_flight.iter().map(|(due, ..)| *due).min()
    }

    /// Lets time pass, and late writes arrive.
    pub(crate) fn advance_to(&mut self, now: u64) {
        self.now = now;
        while let Some(at) = self.in_flight.iter().position(|(due, ..)| *due <= now) {
            let (.., write) = self.in_flight.swap_remove(at);
            self.apply(write);
        }
        if self.flaw == Flaw::SweepsUnsettled
            && self.held.as_ref().is_some_and(|held| {
                self.at().since(held.written_at) >= held.record.retention.min(RETENTION)
            })
        {
            self.held = None;
            self.version += 1;
        }
    }

    /// The process ends with what was in flight, some of which had arrived, and another one finds its claims (P16).
    pub(crate) fn restart(&mut self, random: &mut Random) {
        self.down_until = self.now;
        for (.., write) in std::mem::take(&mut self.in_flight) {
            if random.once_in(2) {
                self.apply(write);
            }
        }
        let now = self.at();
        if let Some(held) = &mut self.held
            && matches!(held.record.state, State::Outstanding { .. })
        {
            held.record.state = State::Unknown {
                reason: UnknownReason::Restarted,
                response: None,
            };
            held.written_at = now;
            self.version += 1;
            if self.flaw == Flaw::RestartFreesClaims {
                self.held = None;
            }
        }
    }

    /// Takes the record away if it has expired.
    pub(crate) fn sweep(&mut self) {
        let now = self.at();
        if self.held.as_ref().is_some_and(|held| held.is_expired(now)) {
            self.held = None;
            self.version += 1;
        }
    }

    /// Performs a step of the attempt with the claim `by`; `None` if it is not the store's.
    pub(crate) fn perform(
        &mut self,
        by: ClaimId,
        step: Step,
        random: &mut Random,
    ) -> Option<Input> {
        match step {
            Step::Insert(_) | Step::Replace { .. } | Step::Remove { .. } => {}
            Step::Read => {
                let fault = self.strikes(random).then(|| self.error(random));
                return Some(Input::Found(match fault {
                    Some(error) => Err(error),
                    None => Ok((self.live().cloned(), self.at())),
                }));
            }
            _ => return None,
        }
        if self.is_ordered && !self.in_flight.is_empty() {
            while let Some(at) = self.in_flight.iter().position(|(_, owner, _)| *owner == by) {
                let (.., earlier) = self.in_flight.remove(at);
                self.apply(earlier);
            }
        }
        let is_insert = matches!(step, Step::Insert(_));
        if !self.strikes(random) {
            return Some(self.apply(step));
        }
        let reason = "simulated";
        let uncertain = StoreError::Uncertain {
            reason,
            source: None,
        };
        let error = match random.below(4) {
            0 => {
                self.apply(step);
                uncertain
            }
            1 if self.is_late => {
                let due = self.now + random.between(1, MAX_LATENESS);
                self.in_flight.push((due, by, step));
                uncertain
            }
            1 | 2 => uncertain,
            _ => self.error(random),
        };
        Some(if is_insert {
            Input::Inserted(Err(error))
        } else {
            Input::Written(Err(error))
        })
    }

    /// What an operator does to an unknown record: completes it with the answer of call `id`,
    /// under a claim id of its own.
    pub(crate) fn resolve(&mut self, id: u8) {
        let Some(held) = &self.held else { return };
        let mut record = held.record.clone();
        let mut claim = [0xff; 16];
        claim[0] = id;
        record.claim = ClaimId::from_bytes(claim);
        record.state = State::Completed(StoredResponse {
            status: StatusCode::CREATED,
            headers: HeaderMap::new(),
            content: content_of(id),
        });
        self.write(record);
    }

    fn strikes(&mut self, random: &mut Random) -> bool {
        let strikes = self.now < self.down_until
            || self.one_fault_in != 0 && random.once_in(self.one_fault_in);
        self.faults += u32::from(strikes);
        strikes
    }

    /// An error after which certainly nothing was written.
    fn error(&self, random: &mut Random) -> StoreError {
        let (reason, source) = ("simulated", None);
        match random.below(4) {
            0 => StoreError::Full { what: reason },
            1 => StoreError::Damaged { what: reason },
            _ => StoreError::Refused { reason, source },
        }
    }

    fn live(&self) -> Option<&Held> {
        let now = self.at();
        self.held.as_ref().filter(|held| !held.is_expired(now))
    }

    fn apply(&mut self, step: Step) -> Input {
        let now = self.at();
        match step {
            Step::Insert(record) => {
                let is_ignored = match self.flaw {
                    Flaw::InsertOverwrites => true,
                    Flaw::LapsedIsVacant => self.live().is_some_and(|held| held.is_lapsed(now)),
                    _ => false,
                };
                Input::Inserted(Ok(match self.live().filter(|_| !is_ignored) {
                    Some(held) => Insert::Occupied {
                        held: Box::new(held.clone()),
                        now,
                    },
                    None => {
                        self.write(record);
                        Insert::Claimed { now }
                    }
                }))
            }
            Step::Replace {
                expected,
                mut record,
            } => {
                if !self.holds(expected, Flaw::ReplaceIgnoresExpected) {
                    return Input::Written(Ok(Write::Stale));
                }
                if self.flaw == Flaw::SealIsNotRotated && is_settled(&record) {
                    record.claim = expected;
                }
                self.write(record);
                Input::Written(Ok(Write::Applied { now }))
            }
            Step::Remove { expected } => {
                if !self.holds(expected, Flaw::RemoveIgnoresExpected) {
                    return Input::Written(Ok(Write::Stale));
                }
                self.held = None;
                self.version += 1;
                Input::Written(Ok(Write::Applied { now }))
            }
            // `perform` lets nothing else pass.
            _ => Input::Written(Ok(Write::Stale)),
        }
    }

    fn holds(&self, expected: ClaimId, unless: Flaw) -> bool {
        self.live()
            .is_some_and(|held| held.record.claim == expected || self.flaw == unless)
    }

    fn write(&mut self, record: Record) {
        let now = self.at();
        let is_forgotten = match self.flaw {
            Flaw::SettlementIsForgotten => is_settled(&record),
            Flaw::ClaimIsForgotten => !is_settled(&record),
            _ => false,
        };
        if is_forgotten {
            return;
        }
        let claimed_at = match &self.held {
            Some(held) if held.record.claim == record.claim => held.claimed_at,
            _ => now,
        };
        self.claims.push(record.claim);
        self.held = Some(Held {
            record,
            claimed_at,
            written_at: now,
        });
        self.version += 1;
    }
}

fn is_settled(record: &Record) -> bool {
    matches!(record.state, State::Completed(_) | State::Rejected(_))
}
