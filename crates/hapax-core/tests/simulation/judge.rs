//! What must hold in every history.

use hapax_core::attempt::{Execution, Reply, ReplyContent, Ticket};
use hapax_core::event::Outcome;
use hapax_core::record::{Content, State};
use hapax_core::settle::IdempotencyStatus;

use crate::store::FakeStore;
use crate::upstream::{Call, Plan};

/// The guarantee that a history broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    OneEffect,
    OneAnswer,
    NoPhantom,
    NoLoss,
    ClaimFirst,
    OwnerOnly,
    OtherPayload,
    HonestUnknown,
    Liveness,
    /// A record that is not settled is removed.
    Retention,
    /// A route that only observes does more, or less, than that (P6).
    Observing,
    OneReply,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: &'static str,
}

/// What is demanded of a history, besides what always is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands {
    /// `on_unknown = "refuse"` and fail closed: at most one effect.
    pub(crate) is_safe: bool,
    /// Fail closed: nothing is executed without a record.
    pub(crate) is_closed: bool,
    /// Nothing goes wrong: no unknown outcome, no unavailable store.
    pub(crate) is_clean: bool,
    /// A holder may be frozen past its lease.
    pub(crate) is_frozen: bool,
    /// `on_unknown = { probe = … }`: an operation that had no effect, and will not, may run again.
    pub(crate) is_probing: bool,
    /// The route only observes: every request is executed.
    pub(crate) is_observing: bool,
    /// All requests are the same.
    pub(crate) is_one_request: bool,
}

/// An answer that its client will not ask again for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Final {
    status: u16,
    /// The call whose answer it is.
    call: u8,
}

/// What an attempt that arrives now must respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// A client has a final answer, but it could not be recorded (P24).
    Answered,
    /// A client has a final answer and the record has it too.
    Recorded,
}

/// Who is being answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Which of the two requests it sent.
    pub(crate) request: u8,
    /// What was known when it arrived.
    pub(crate) knew: Known,
    /// The call made for it.
    pub(crate) call: Option<u8>,
    /// Whether the store has acknowledged the answer of that call.
    pub(crate) has_settled: bool,
    /// Whether it was refused because somebody else has the key.
    pub(crate) is_stale: bool,
    /// Whether it was refused because nobody has the key any more.
    pub(crate) is_freed: bool,
}

pub(crate) struct Judge {
    pub(crate) demands: Demands,
    pub(crate) violation: Option<Violation>,
    pub(crate) known: Known,
    /// The answer that every later one must equal.
    answer: Option<Final>,
    /// Whether an operator has said what the answer is.
    pub(crate) is_operated: bool,
    /// How often the record has expired, and the first call after that.
    pub(crate) epoch: u32,
    first_call: usize,
}

/// The call that an operator's own answer stands for.
const OPERATORS: u8 = u8::MAX;

impl Judge {
    pub(crate) fn new(demands: Demands) -> Self {
        Self {
            demands,
            violation: None,
            known: Known::Nothing,
            answer: None,
            is_operated: false,
            epoch: 0,
            first_call: 0,
        }
    }

    /// The record has expired after so many `calls`: whatever comes now is another operation.
    pub(crate) fn begin_anew(&mut self, calls: usize) {
        if calls > self.first_call {
            self.first_call = calls;
            self.epoch += 1;
        }
        self.answer = None;
        self.known = Known::Nothing;
    }

    pub(crate) fn require(&mut self, holds: bool, rule: Rule, what: &'static str) {
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { rule, what });
        }
    }

    /// An attempt is about to send the operation.
    pub(crate) fn executes(
        &mut self,
        execution: Execution,
        ticket: &Ticket,
        has_met_record: bool,
        store: &FakeStore,
        calls: &[Call],
    ) {
        let is_held = store
            .held
            .as_ref()
            .is_some_and(|held| held.record.claim == ticket.claim);
        let is_claimed = match execution.heartbeat {
            Some(_) if self.demands.is_closed => is_held,
            Some(_) => store.claims.contains(&ticket.claim),
            None if self.demands.is_observing => true,
            None => !self.demands.is_safe && !has_met_record,
        };
        self.require(is_claimed, Rule::ClaimFirst, "executed without a claim");
        let may_ask = self.demands.is_probing;
        let is_first = calls
            .iter()
            .skip(self.first_call)
            .all(|call| call.plan.is_harmless() || (may_ask && call.acts_at.is_none()));
        // A rejection that could not be recorded is forgotten by a probe: nothing had happened, and so it says.
        if may_ask
            && self.known == Known::Answered
            && self.answer.is_some_and(|answer| answer.status != 201)
        {
            self.answer = None;
            self.known = Known::Nothing;
        }
        self.require(
            is_first
                || execution.attempt > 1
                || !self.demands.is_closed
                || !self.demands.is_one_request,
            Rule::OneEffect,
            "executed as the first although an earlier call may have had its effect",
        );
        if !self.demands.is_safe {
            return;
        }
        self.require(
            is_first,
            Rule::OneEffect,
            "executed although an earlier call may have had its effect",
        );
        self.require(
            self.answer.is_none(),
            Rule::NoLoss,
            "executed although a client has a final answer",
        );
    }

    /// A client is being answered, in a history that had so many `faults` of the store.
    pub(crate) fn replies(&mut self, reply: &Reply, to: Client, faults: u32, calls: &[Call]) {
        if self.demands.is_observing {
            let is_observed = reply.status == Some(IdempotencyStatus::Observed);
            let is_executed = to.call.is_some() && is_observed;
            let what = "answered without having executed";
            self.require(is_executed, Rule::Observing, what);
            return;
        }
        // What was read before the record expired may be said after that.
        let answer = final_of(reply, to.call, calls).filter(|answer| {
            answer.call == OPERATORS || usize::from(answer.call) >= self.first_call
        });
        if let Some(answer) = answer {
            let is_recorded = to.has_settled || matches!(reply.content, ReplyContent::Stored(_));
            let is_excused = faults > 0 || reply.outcome == Outcome::StoreError;
            self.require(
                is_recorded || is_excused || self.is_forgotten(answer, to),
                Rule::NoLoss,
                "answered before the record was there",
            );
            self.require(
                is_recorded || !to.is_stale,
                Rule::OwnerOnly,
                "a stale holder gave a final answer",
            );
            self.is_final(answer, to.request, is_recorded, calls);
        }
        let is_trouble = matches!(reply.outcome, Outcome::Unknown | Outcome::StoreError);
        self.require(
            !(self.demands.is_clean && is_trouble),
            Rule::HonestUnknown,
            "trouble was told where there was none",
        );
        self.require(
            reply.outcome != Outcome::StoreError || faults > 0 || self.demands.is_frozen,
            Rule::HonestUnknown,
            "the store was blamed without a fault",
        );
        if !self.demands.is_safe || to.knew == Known::Nothing || answer.is_some() {
            return;
        }
        let is_kept = match reply.outcome {
            Outcome::StoreError => true,
            Outcome::Mismatch => !self.demands.is_one_request,
            Outcome::Unknown | Outcome::InProgress => to.knew == Known::Answered,
            _ => self.demands.is_probing && to.knew == Known::Answered,
        };
        self.require(is_kept, Rule::NoLoss, "a final answer was lost");
    }

    /// A holder that was frozen past its lease finds its key freed by a probe that was told that nothing had happened. That is
    /// what a rejection says; an effect would have been seen.
    fn is_forgotten(&self, answer: Final, to: Client) -> bool {
        let may_be_freed = self.demands.is_probing && self.demands.is_frozen;
        may_be_freed && to.is_freed && answer.status != 201
    }

    fn is_final(&mut self, answer: Final, request: u8, is_recorded: bool, calls: &[Call]) {
        if answer.call != OPERATORS {
            let call = calls.get(usize::from(answer.call));
            self.require(
                call.is_some_and(|call| call.request == request),
                Rule::OtherPayload,
                "the answer to another request was given",
            );
            self.require(
                answer.status != 201 || call.is_some_and(|call| call.has_acted),
                Rule::NoPhantom,
                "a final answer without an effect",
            );
        }
        if !self.demands.is_safe {
            return;
        }
        // A rejection is an answer for good only where nobody can rebind the key.
        if answer.status != 201 && !self.demands.is_one_request {
            return;
        }
        // The real answer is sent although it cannot be written down (P24), and an operator may
        // have said otherwise meanwhile.
        if self.is_operated && !is_recorded {
            return;
        }
        let first = *self.answer.get_or_insert(answer);
        self.require(first == answer, Rule::OneAnswer, "two final answers");
        if is_recorded {
            self.known = Known::Recorded;
        } else if self.known == Known::Nothing {
            self.known = Known::Answered;
        }
    }

    /// An operator completes the unknown record; says with the answer of which call. Who was told
    /// that the operation was rejected has told the operator: then it is not completed.
    pub(crate) fn resolve(&mut self) -> Option<u8> {
        let (status, call) = (201, OPERATORS);
        let answer = *self.answer.get_or_insert(Final { status, call });
        if answer.status != status {
            return None;
        }
        self.is_operated = true;
        self.known = Known::Recorded;
        Some(answer.call)
    }

    /// Everything is over, and whatever was broken works again.
    pub(crate) fn ends(&mut self, store: &FakeStore, calls: &[Call]) {
        let is_outstanding = store
            .held
            .as_ref()
            .is_some_and(|held| matches!(held.record.state, State::Outstanding { .. }));
        self.require(!is_outstanding, Rule::Liveness, "something is outstanding");
        let mut effects = calls.iter().filter(|call| call.has_acted);
        let mut last = None;
        let is_one = effects.all(|call| last.replace(call.epoch) != Some(call.epoch));
        self.require(
            is_one || !self.demands.is_safe,
            Rule::OneEffect,
            "two effects",
        );
    }
}

fn stored_final(stored: &hapax_core::record::StoredResponse) -> Option<Final> {
    let status = stored.status.as_u16();
    let Content::Stored(content) = &stored.content else {
        return None;
    };
    let call = *content.first()?;
    matches!(status, 201 | 422).then_some(Final { status, call })
}

fn final_of(reply: &Reply, own_call: Option<u8>, calls: &[Call]) -> Option<Final> {
    match &reply.content {
        ReplyContent::Stored(stored) => stored_final(stored),
        ReplyContent::Upstream => {
            let call = own_call?;
            let status = match calls.get(usize::from(call))?.plan {
                Plan::Completes => 201,
                Plan::Rejects => 422,
                _ => return None,
            };
            Some(Final { status, call })
        }
        ReplyContent::Problem(_) | ReplyContent::Mismatch { .. } => None,
    }
}
