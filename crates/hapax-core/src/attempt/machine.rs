//! The state machine itself: one arm a pair of phase and input, one method an arm.

use std::time::Duration;

use http::StatusCode;

use crate::event::{Event, Outcome};
use crate::policy::Mode;
use crate::record::{Held, Record, State, UnknownReason};
use crate::settle::IdempotencyStatus;
use crate::time::Timestamp;

use super::{Input, Reply, Step, Ticket};

/// Where an attempt tells what happened.
pub type Tell<'a> = &'a mut dyn FnMut(Event<'_>);

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    pub(super) ticket: Ticket,
    pub(super) phase: Phase,
    pub(super) races: u32,
    /// Whether it has asked the upstream, or waited for somebody who did: once is enough.
    pub(super) has_probed: bool,
    /// Whether the store has shown this attempt that the key is held.
    pub(super) has_met_record: bool,
    /// What was written, or may yet be, without having been used.
    pub(super) unused: Unused,
    /// When the last write was asked for: a lease that it began cannot have run out sooner than
    /// a lease after this.
    pub(super) written_since: Duration,
}

/// Claims of an attempt that were given up: lapsed, or never confirmed. They may yet arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unused {
    /// None.
    Nothing,
    /// Of a key that was vacant, or whose operation had no effect: taken back at the end (P51).
    Claim,
    /// Of an operation that has been sent before: never taken back, since that would forget that
    /// the earlier execution may have had its effect. It lapses instead.
    Resend,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Before or during the claim.
    Claiming,
    /// The scope has no room for another record before this time has passed; looking whether the key is held.
    LookingWithoutRoom { until: Duration },
    /// The claim's write may have happened; looking.
    CheckingClaim,
    /// Claiming a key anew that is held by a settled record: a rebind or a re-send.
    TakingOver { attempt: u32 },
    /// The takeover's write may have happened; looking.
    CheckingTakeover,
    /// Writing down that a lapsed claim's outcome is unknown.
    MarkingUnknown,
    /// The upstream is being asked about this record, since that instant of the store's clock.
    Probing {
        held: Box<Held>,
        asked_at: Timestamp,
    },
    /// The answer of a probe is being written down.
    Resolving { status: StatusCode },
    /// A duplicate, waiting.
    Waiting,
    /// The request is with the upstream.
    Executing(Executing),
    /// A heartbeat's write is under way.
    Renewing(Executing),
    /// The end of the execution is being written.
    Settling(Box<Settling>),
    /// A settling write was refused; looking who holds the key.
    CheckingSettlement(Box<Settling>),
    /// A failed settling write waits for its next try.
    Pausing(Box<Settling>),
    /// The client is being answered; this comes next.
    Replying(Then),
    /// A claim that was given up without having been used is being taken back.
    Undoing { tries: u32, since: Duration },
    /// Nothing more to do.
    Done,
}

#[derive(Debug)]
pub(super) enum Then {
    /// Nothing more.
    Done,
    /// Try on to write the end of the execution down.
    Settle(Box<Settling>),
    /// Wait for the answer that comes too late for the client.
    AwaitLate(Executing),
    /// Take back a claim that may have been written.
    Undo,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Executing {
    pub(super) attempt: u32,
    /// Whether there is a record of this execution: not when failing open, and not for a
    /// duplicate that is only observed.
    pub(super) is_recorded: bool,
    /// Whether the client has been told that the outcome is unknown.
    pub(super) has_replied: bool,
    /// What an unrecorded execution counts as.
    pub(super) outcome: Outcome,
}

/// The end of an execution on its way into the store.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) executing: Executing,
    /// What to write; `None` gives the key back.
    pub(super) record: Option<Record>,
    /// What the client gets once that is written; taken when sent.
    pub(super) reply: Option<Reply>,
    /// How often writing failed, and since when.
    pub(super) failures: u32,
    pub(super) failing_since: Duration,
    /// Whether the operation goes on after this (the client's time-out is not its end).
    pub(super) is_interim: bool,
}

impl Attempt {
    /// An attempt that has not done anything yet; begin with [`Input::Begin`].
    pub fn new(ticket: Ticket) -> Self {
        Self {
            ticket,
            phase: Phase::Claiming,
            races: 0,
            has_probed: false,
            has_met_record: false,
            unused: Unused::Nothing,
            written_since: Duration::ZERO,
        }
    }

    /// What the attempt is about.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Takes what came of the last step, `elapsed` after the attempt arrived, and says the next.
    pub fn advance(&mut self, input: Input, elapsed: Duration, tell: Tell<'_>) -> Step {
        let step = self.next_step(input, elapsed, tell);
        if matches!(step, Step::Insert(_) | Step::Replace { .. }) {
            self.written_since = elapsed;
        }
        step
    }

    fn next_step(&mut self, input: Input, elapsed: Duration, tell: Tell<'_>) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        match (phase, input) {
            (Phase::Claiming, Input::Begin) | (Phase::Waiting, Input::Waited) => self.claim(),
            (Phase::Claiming, Input::Inserted(result)) => self.on_inserted(result, elapsed, tell),
            (Phase::Claiming, Input::NoRoom { until }) => {
                self.phase = Phase::LookingWithoutRoom { until };
                Step::Read
            }
            (Phase::LookingWithoutRoom { until }, Input::Found(found)) => {
                self.on_looked_without_room(until, found, elapsed, tell)
            }
            (Phase::CheckingClaim, Input::Found(found)) => {
                self.on_claim_checked(found, elapsed, tell)
            }
            (Phase::TakingOver { attempt }, Input::Written(result)) => {
                self.on_taken_over(attempt, result, elapsed, tell)
            }
            (Phase::CheckingTakeover, Input::Found(found)) => {
                self.on_takeover_checked(found, elapsed, tell)
            }
            (Phase::MarkingUnknown, Input::Written(result)) => self.on_marked_unknown(result, tell),
            (Phase::Probing { held, asked_at }, Input::Probed(probed)) => {
                self.on_probed(&held, asked_at, probed, tell)
            }
            (Phase::Resolving { status }, Input::Written(result)) => {
                self.on_resolved(status, result, tell)
            }
            (Phase::Waiting, Input::WaitRefused) => self.in_progress(tell),
            (Phase::Executing(executing), Input::RolledBack { problem, outcome }) => {
                self.on_rolled_back(executing, problem, outcome, tell)
            }
            (Phase::Settling(settling), Input::RolledBack { problem, outcome }) => {
                self.on_rolled_back(settling.executing, problem, outcome, tell)
            }
            (Phase::Executing(executing), input) => self.on_executing(executing, input),
            (Phase::Renewing(executing), Input::Written(result)) => {
                self.on_renewed(executing, &result, tell)
            }
            (Phase::Settling(settling), Input::Written(result)) => {
                self.on_settled(settling, result, elapsed, tell)
            }
            (Phase::CheckingSettlement(settling), Input::Found(found)) => {
                self.on_settlement_checked(settling, found, elapsed, tell)
            }
            (Phase::Pausing(settling), Input::Waited) => self.settle(settling),
            (Phase::Replying(then), Input::Replied) => self.after_reply(then, elapsed),
            (Phase::Undoing { tries, since }, input) => {
                self.on_undoing(tries, since, &input, elapsed)
            }
            // A driver that reports what was not asked for: nothing can be known any more, so
            // nothing more is done, and the lease will say so.
            _ => Step::Done,
        }
    }

    pub(super) fn is_observing(&self) -> bool {
        self.ticket.policy.mode == Mode::Observe
    }

    pub(super) fn outstanding(&self, attempt: u32) -> Record {
        let policy = &self.ticket.policy;
        Record {
            claim: self.ticket.claim,
            scope: self.ticket.scope,
            fingerprint: self.ticket.fingerprint.clone(),
            attempt,
            route: self.ticket.route.clone(),
            trace: self.ticket.trace.clone(),
            asked_by: self.ticket.asked_by.clone(),
            retention: policy.retention,
            tombstone: policy.tombstone,
            state: State::Outstanding {
                lease: policy.lease,
            },
        }
    }

    pub(super) fn sealed(&self, attempt: u32, state: State) -> Record {
        let outstanding = self.outstanding(attempt);
        let is_unknown = matches!(state, State::Unknown { .. });
        Record {
            claim: self.ticket.seal,
            state,
            asked_by: outstanding.asked_by.clone().filter(|_| is_unknown),
            ..outstanding
        }
    }

    pub(super) fn status_of(&self, status: IdempotencyStatus) -> IdempotencyStatus {
        if self.is_observing() {
            IdempotencyStatus::Observed
        } else {
            status
        }
    }

    pub(super) fn tell_unknown(&self, reason: UnknownReason, tell: Tell<'_>) {
        tell(Event::BecameUnknown {
            record: self.ticket.key,
            route: &self.ticket.route,
            reason,
            is_probed: self.ticket.policy.probe().is_some(),
        });
    }
}
