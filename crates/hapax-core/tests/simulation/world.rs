//! One history: several attempts on one key, step by step in a random order.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use hapax_core::attempt::{Attempt, Execution, Input, Step, Ticket, UpstreamFailure};
use hapax_core::event::Event;
use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::probe::{Answer, ProbeOutcome, Probed, Resolution, resolve};
use hapax_core::record::{ClaimId, Held, State};
use hapax_core::scope::ScopeId;
use hapax_core::settle::settlement_of;
use hapax_core::store::{Insert, Write};
use hapax_core::time::Timestamp;

use crate::judge::{Client, Judge, Known, Rule, Violation};
use crate::random::Random;
use crate::setting::{Fault, LEASE, RETENTION, RETENTION_MS, Setting, UPSTREAM_TIMEOUT};
use crate::store::{FakeStore, Flaw, MAX_LATENESS};
use crate::upstream::{Call, Plan, content_of};

/// More steps than any attempt may take (G10).
const MAX_STEPS: u32 = 600;
/// More turns than any history may take (G10).
const MAX_TURNS: u32 = 50_000;
/// Attempts after everything has calmed down: the first may be the one that executes, the
/// second must get what the first got.
const PROBES: u64 = 2;

/// What an attempt does next.
enum Doing {
    Perform(Step),
    Deliver(Input),
    Sleep,
    Hear,
    Probe(Probed),
}

/// An attempt, and what is looked at every turn.
struct Seat {
    /// When it can go on.
    due: u64,
    /// The version of the store that it has seen, if it goes on at another, too.
    seen: Option<u64>,
    actor: Box<Actor>,
}

/// A probe that nobody's retry asked for.
struct Completer {
    until: u64,
    held: Held,
    asked_at: Timestamp,
    probed: Probed,
}

/// A driver's side of a call.
#[derive(Clone, Copy)]
struct Upstream {
    call: u8,
    answers_at: u64,
    heartbeat: Option<(u64, u64)>,
    times_out_at: Option<u64>,
    /// What has come already: nothing more comes after that.
    has_ended: bool,
}

struct Actor {
    attempt: Attempt,
    request: u8,
    arrived: u64,
    knew: Known,
    doing: Doing,
    upstream: Option<Upstream>,
    has_met_record: bool,
    steps: u32,
    replies: u32,
    /// Whether the store has acknowledged this attempt's answer.
    has_settled: bool,
    /// Whether its last write was refused because somebody else has the key.
    is_stale: bool,
}

pub(crate) struct World {
    random: Random,
    setting: Setting,
    fault: Fault,
    store: FakeStore,
    judge: Judge,
    calls: Vec<Call>,
    seats: Vec<Seat>,
    /// Room for the attempts to come: making it anew each time costs a tenth of the histories a second.
    #[allow(clippy::vec_box, reason = "they go from here to the seats and back")]
    spare: Vec<Box<Actor>>,
    common: Common,
    completer: Option<Completer>,
    completions: u8,
    probes: Probes,
    arrived: u64,
    is_calm: bool,
    is_traced: bool,
}

/// What probes came to.
#[derive(Debug, Clone, Copy, Default)]
struct Probes {
    happened: u64,
    absent: u64,
}

/// What a history that went well had in it, against vacuous runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) calls: u64,
    pub(crate) effects: u64,
    pub(crate) faults: u64,
    pub(crate) unknown: u64,
    pub(crate) recorded: u64,
    pub(crate) unrecorded: u64,
    pub(crate) resolved: u64,
    pub(crate) probed_happened: u64,
    pub(crate) probed_absent: u64,
    pub(crate) restarts: u64,
    pub(crate) expired: u64,
    pub(crate) observed: u64,
}

/// What all attempts of all histories have in common.
struct Common {
    outline: Arc<[(u32, u32)]>,
    route: Arc<str>,
}

impl World {
    /// A world before its first history.
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0);
        let mut store = FakeStore::new();
        let setting = Setting::draw(&mut random, Fault::None, &mut store);
        Self {
            random,
            judge: Judge::new(setting.demands),
            setting,
            fault: Fault::None,
            store,
            calls: Vec::new(),
            seats: Vec::new(),
            spare: Vec::new(),
            common: Common {
                outline: [].into(),
                route: "".into(),
            },
            completer: None,
            completions: 0,
            probes: Probes::default(),
            arrived: 0,
            is_calm: false,
            is_traced: false,
        }
    }

    /// Runs the history of `seed`, of which nothing depends on those before.
    pub(crate) fn run(&mut self, seed: u64, fault: Fault) -> Result<Tally, Violation> {
        self.begin(seed, fault);
        self.go_on()
    }

    /// The same, printing every step.
    pub(crate) fn run_traced(&mut self, seed: u64, fault: Fault) -> Result<Tally, Violation> {
        self.is_traced = true;
        let result = self.run(seed, fault);
        self.is_traced = false;
        result
    }

    fn begin(&mut self, seed: u64, fault: Fault) {
        self.random = Random::new(seed);
        self.store.begin(match fault {
            Fault::Store(flaw) => flaw,
            _ => Flaw::None,
        });
        self.setting = Setting::draw(&mut self.random, fault, &mut self.store);
        self.judge = Judge::new(self.setting.demands);
        self.fault = fault;
        self.calls.clear();
        self.leave_all();
        self.completer = None;
        self.completions = 0;
        self.probes = Probes::default();
        self.arrived = 0;
        self.is_calm = false;
    }

    fn go_on(&mut self) -> Result<Tally, Violation> {
        let mut tally = Tally::default();
        let mut turns = 0;
        while self.arrived < self.setting.attempts || !self.seats.is_empty() {
            self.turn(&mut tally);
            turns += 1;
            self.judge
                .require(turns < MAX_TURNS, Rule::Liveness, "it never ends");
            if let Some(violation) = self.judge.violation {
                return Err(violation);
            }
        }
        self.calm_down(&mut tally);
        self.judge.ends(&self.store, &self.calls);
        if let Some(violation) = self.judge.violation {
            return Err(violation);
        }
        tally.calls = self.calls.len() as u64;
        tally.effects = self.calls.iter().filter(|call| call.has_acted).count() as u64;
        tally.faults = u64::from(self.store.faults);
        tally.unknown = u64::from(self.is_unknown());
        tally.recorded = u64::from(self.judge.known == Known::Recorded);
        tally.unrecorded = u64::from(self.judge.known == Known::Answered);
        tally.resolved = u64::from(self.judge.is_operated);
        tally.probed_happened = self.probes.happened;
        tally.probed_absent = self.probes.absent;
        tally.expired = u64::from(self.judge.epoch);
        tally.observed = u64::from(self.setting.demands.is_observing) * tally.calls;
        Ok(tally)
    }

    fn is_unknown(&self) -> bool {
        (self.store.held.as_ref())
            .is_some_and(|held| matches!(held.record.state, State::Unknown { .. }))
    }

    /// Faults stop; whatever is on its way arrives; leases run out; and clients ask once more.
    fn calm_down(&mut self, tally: &mut Tally) {
        self.store.one_fault_in = 0;
        self.store.down_until = 0;
        self.is_calm = true;
        self.advance_to(self.store.now + MAX_LATENESS);
        self.advance_to(self.store.now + 10 * LEASE);
        // What was tried for a whole lease may be given up.
        let was_down = self.store.downtime >= LEASE / 2;
        let is_excused = was_down
            || self.setting.is_frozen
            || self.setting.is_crashing
            || self.setting.is_restarting
            || !self.store.is_ordered;
        let is_harmless = self.calls.iter().all(|call| call.plan.is_harmless());
        let is_false = self.setting.demands.is_safe
            && !is_excused
            && is_harmless
            && (self.is_unknown() || self.is_outstanding());
        self.judge.require(
            !is_false,
            Rule::HonestUnknown,
            "unknown although nothing can have happened",
        );
        for _ in 0..PROBES {
            self.arrive();
            while !self.seats.is_empty() && self.judge.violation.is_none() {
                self.turn(tally);
            }
        }
    }

    fn is_outstanding(&self) -> bool {
        (self.store.held.as_ref())
            .is_some_and(|held| matches!(held.record.state, State::Outstanding { .. }))
    }

    /// One thing happens.
    fn turn(&mut self, tally: &mut Tally) {
        let ready = self.ready();
        let count = u64::from(ready.count_ones());
        let may_arrive = self.arrived < self.setting.attempts;
        let choice = self.random.below(count + 1 + u64::from(may_arrive));
        if choice < count {
            tally.steps += 1;
            self.act(nth(ready, choice));
        } else if choice > count && self.random.once_in(2) {
            // Some come together, some long after the first.
            self.arrive();
        } else if self.is_calm || !self.befalls(tally) {
            self.pass_time(count > 0);
        }
    }

    /// Something comes upon the world, perhaps.
    fn befalls(&mut self, tally: &mut Tally) -> bool {
        let setting = &self.setting;
        if setting.is_crashing && !self.seats.is_empty() && self.random.once_in(18) {
            let count = self.seats.len() as u64;
            let at = usize::try_from(self.random.below(count)).unwrap_or_default();
            let seat = self.seats.swap_remove(at);
            self.spare.push(seat.actor);
        } else if setting.is_restarting && self.random.once_in(40) {
            tally.restarts += 1;
            self.restart();
        } else if setting.has_operator && self.random.once_in(4) {
            self.resolve();
        } else if setting.is_probing && self.random.once_in(4) {
            self.complete_in_background();
        } else if setting.has_outages && self.random.once_in(25) {
            let longest = if self.random.once_in(4) {
                2 * LEASE
            } else {
                LEASE / 20
            };
            let outage = self.random.between(10, longest);
            self.store.down_until = self.store.now + outage;
            self.store.downtime += outage;
        } else {
            return false;
        }
        true
    }

    /// The process ends, and begins again on the same store (P16).
    fn restart(&mut self) {
        self.leave_all();
        self.completer = None;
        self.store.restart(&mut self.random);
    }

    fn leave_all(&mut self) {
        self.spare
            .extend(self.seats.drain(..).map(|seat| seat.actor));
    }

    /// Who could do something at once: a bit for each actor.
    fn ready(&self) -> u32 {
        let (now, version) = (self.store.now, self.store.version);
        let mut ready = 0;
        for (at, seat) in self.seats.iter().enumerate() {
            let is_ready = seat.due <= now || seat.seen.is_some_and(|seen| seen != version);
            ready |= u32::from(is_ready) << at;
        }
        ready
    }

    /// Retention ends: nobody is owed the answer any more (G11), and when its tombstone is gone, too, the key means
    /// another operation.
    fn expire(&mut self) {
        let now = self.store.at();
        let Some(held) = &self.store.held else { return };
        if held.retained_until().is_none_or(|until| now < until) {
            return;
        }
        let is_settled = matches!(held.record.state, State::Completed(_) | State::Rejected(_));
        self.judge.require(
            is_settled && now.since(held.written_at) >= RETENTION,
            Rule::Retention,
            "a record that is not settled expires",
        );
        self.judge.known = Known::Nothing;
        for seat in &mut self.seats {
            seat.actor.knew = Known::Nothing;
        }
        if held.is_expired(now) {
            self.judge.begin_anew(self.calls.len());
            if self.random.once_in(3) {
                self.store.sweep();
            }
        }
    }

    fn arrive(&mut self) {
        self.arrived += 1;
        if self.setting.is_expiring {
            self.expire();
        }
        let request = match &self.store.held {
            // Only the same request finds out that a lease has run out.
            Some(held) if self.is_calm => held.record.fingerprint.digest[0],
            _ if self.setting.demands.is_one_request || self.random.once_in(2) => 1,
            _ => 2,
        };
        let id = |kind| {
            let mut bytes = [0; 16];
            bytes[0] = kind;
            bytes[1] = u8::try_from(self.arrived).unwrap_or(u8::MAX);
            ClaimId::from_bytes(bytes)
        };
        let ticket = Ticket {
            key: RecordKey::from_bytes([1; 16]),
            scope: ScopeId::from_bytes([2; 16]),
            fingerprint: Fingerprint {
                digest: [request; 16],
                outline: Arc::clone(&self.common.outline),
            },
            policy: Arc::clone(&self.setting.policy),
            route: Arc::clone(&self.common.route),
            claim: id(1),
            seal: id(2),
            trace: None,
            asked_by: None,
        };
        let actor = Actor {
            attempt: Attempt::new(ticket),
            request,
            arrived: self.store.now,
            knew: self.judge.known,
            doing: Doing::Deliver(Input::Begin),
            upstream: None,
            has_met_record: false,
            steps: 0,
            replies: 0,
            has_settled: false,
            is_stale: false,
        };
        let actor = match self.spare.pop() {
            Some(mut room) => {
                *room = actor;
                room
            }
            None => Box::new(actor),
        };
        self.seats.push(Seat {
            due: 0,
            seen: None,
            actor,
        });
    }

    /// An operator finds out what happened and writes it down.
    fn resolve(&mut self) {
        if self.setting.demands.is_safe
            && self.is_unknown()
            && let Some(id) = self.judge.resolve()
        {
            self.store.resolve(id);
        }
    }

    /// What the upstream would say now.
    fn ask(&mut self) -> Probed {
        if !self.is_calm && self.random.once_in(10) {
            return Probed::ByAnother;
        }
        if self.setting.is_troubled && !self.is_calm && self.random.once_in(4) {
            return Probed::Failed;
        }
        let effect = self.calls.iter().position(|call| call.has_acted);
        let status = match effect {
            Some(_) => StatusCode::CREATED,
            None => StatusCode::NOT_FOUND,
        };
        // Only a call of this process is known to be under way, and there may be others.
        let is_waited_for = |actor: &Actor| actor.upstream.is_some_and(|call| !call.has_ended);
        let is_seen = self.fault != Fault::ProbesWithoutFence && self.random.once_in(2);
        let id = effect
            .and_then(|id| u8::try_from(id).ok())
            .unwrap_or_default();
        Probed::Answered(Answer {
            status,
            settlement: settlement_of(status),
            headers: HeaderMap::new(),
            content: content_of(id),
            is_first_under_way: is_seen && self.seats.iter().any(|seat| is_waited_for(&seat.actor)),
        })
    }

    /// The background asks about an unknown record, and some time later writes what it was told.
    fn complete_in_background(&mut self) {
        let now = self.store.now;
        let Some(asked) = self.completer.take_if(|asked| asked.until <= now) else {
            if self.completer.is_none() && self.is_unknown() {
                let probed = self.ask();
                self.completer = self.store.held.clone().map(|held| Completer {
                    until: now + self.random.below(2_000),
                    held,
                    asked_at: self.store.at(),
                    probed,
                });
            }
            return;
        };
        let Probed::Answered(answer) = asked.probed else {
            return;
        };
        self.completions = self.completions.saturating_add(1);
        let mut seal = [3; 16];
        seal[1] = self.completions;
        let seal = ClaimId::from_bytes(seal);
        let quiescence = self.setting.policy.probe_after;
        let resolution = resolve(&asked.held, quiescence, asked.asked_at, answer, seal);
        self.probes.count(resolution.outcome());
        let expected = asked.held.record.claim;
        let step = match resolution {
            Resolution::Complete(record) => Step::Replace {
                expected,
                record: *record,
            },
            Resolution::Free => Step::Remove { expected },
            Resolution::Leave(_) => return,
        };
        // Whether that was written shows in the record.
        let _ = self.store.perform(seal, step, &mut self.random);
    }

    fn pass_time(&mut self, is_busy: bool) {
        let now = self.store.now;
        let to = if self.setting.is_frozen && !self.is_calm && self.random.once_in(12) {
            now + self.random.between(1_000, 2 * LEASE)
        } else if self.setting.is_expiring && self.seats.is_empty() && self.random.once_in(3) {
            now + self.random.between(1_000, 2 * RETENTION_MS)
        } else if is_busy {
            now + self.random.below(30)
        } else {
            let due = self.seats.iter().map(|seat| seat.due);
            let due = due.chain(self.store.next_due()).min();
            due.unwrap_or(now + self.random.below(5_000)).max(now)
        };
        self.advance_to(to);
    }

    fn advance_to(&mut self, now: u64) {
        for call in &mut self.calls {
            call.has_acted |= call.acts_at.is_some_and(|at| at <= now);
        }
        self.store.now = now;
        // Before late writes arrive, which may take the place of what has expired.
        if self.setting.is_expiring {
            self.expire();
        }
        self.store.advance_to(now);
    }

    /// The actor at `at` does one thing.
    fn act(&mut self, at: usize) {
        let mut seat = self.seats.swap_remove(at);
        let actor = &mut *seat.actor;
        let goes_on = match std::mem::replace(&mut actor.doing, Doing::Sleep) {
            Doing::Sleep => {
                actor.doing = Doing::Deliver(Input::Waited);
                Some((0, None))
            }
            Doing::Perform(step) => {
                let claim = actor.attempt.ticket().claim;
                let performed = self.store.perform(claim, step, &mut self.random);
                performed.map(|input| {
                    actor.has_met_record |= has_met_record(&input);
                    if let Input::Written(result) = &input {
                        actor.is_stale = matches!(result, Ok(Write::Stale));
                    }
                    actor.doing = Doing::Deliver(input);
                    (0, None)
                })
            }
            Doing::Hear => {
                if let Some(input) = self.hear(actor) {
                    actor.doing = Doing::Deliver(input);
                }
                Some((0, None))
            }
            Doing::Probe(probed) => {
                actor.doing = Doing::Deliver(Input::Probed(probed));
                Some((0, None))
            }
            Doing::Deliver(input) => self.deliver(actor, input),
        };
        if let Some((due, seen)) = goes_on {
            (seat.due, seat.seen) = (due, seen);
            self.seats.push(seat);
        } else {
            self.spare.push(seat.actor);
        }
    }

    /// One of the things that are due from the upstream.
    fn hear(&mut self, actor: &mut Actor) -> Option<Input> {
        let now = self.store.now;
        let upstream = actor.upstream.as_mut()?;
        let is_answered = upstream.answers_at <= now;
        let is_beating = upstream.heartbeat.is_some_and(|(_, due)| due <= now);
        let is_late = upstream.times_out_at.is_some_and(|due| due <= now);
        Some(
            if is_answered && (!(is_beating || is_late) || self.random.once_in(2)) {
                upstream.has_ended = true;
                match self.calls.get(usize::from(upstream.call)) {
                    Some(call) => call.result(upstream.call),
                    None => Input::Failed(UpstreamFailure::AfterDispatch),
                }
            } else if is_late && (!is_beating || self.random.once_in(2)) {
                upstream.times_out_at = None;
                Input::TimedOut
            } else {
                upstream.heartbeat = upstream.heartbeat.map(|(every, _)| (every, now + every));
                Input::HeartbeatDue
            },
        )
    }

    /// Says when the actor goes on, and at which version of the store it need not wait for that; `None` when it is over.
    fn deliver(&mut self, actor: &mut Actor, input: Input) -> Option<(u64, Option<u64>)> {
        let now = self.store.now;
        actor.steps += 1;
        self.judge
            .require(actor.steps < MAX_STEPS, Rule::Liveness, "too many steps");
        let elapsed = Duration::from_millis(now - actor.arrived);
        let said = self.is_traced.then(|| format!("{input:?}"));
        let mut has_settled = false;
        let probes = &mut self.probes;
        let step = actor.attempt.advance(input, elapsed, &mut |event| {
            has_settled |= matches!(event, Event::Settled { .. });
            if let Event::Probed { outcome, .. } = event {
                probes.count(outcome);
            }
        });
        actor.has_settled |= has_settled;
        if let Some(said) = said {
            print_step(now, actor, &said, &step);
        }
        match step {
            Step::Insert(_) | Step::Replace { .. } | Step::Remove { .. } | Step::Read => {
                actor.doing = Doing::Perform(step);
                Some((0, None))
            }
            Step::Probe => {
                let until = now + self.random.below(2_000);
                actor.doing = Doing::Probe(self.ask());
                Some((until, None))
            }
            Step::Wait(_) if self.random.once_in(10) => {
                actor.doing = Doing::Deliver(Input::WaitRefused);
                Some((0, None))
            }
            Step::Wait(time) => Some((now + millis(time).min(2_000), Some(self.store.version))),
            Step::Pause(time) => Some((now + millis(time), None)),
            Step::Execute(execution) => {
                let upstream = self.dispatch(actor, execution);
                actor.doing = Doing::Hear;
                Some((upstream.next_due(), None))
            }
            Step::Await => {
                let upstream = actor.upstream.filter(|upstream| !upstream.has_ended);
                self.judge.require(
                    upstream.is_some(),
                    Rule::Liveness,
                    "waits for a call that has ended",
                );
                actor.doing = Doing::Hear;
                Some((upstream?.next_due(), None))
            }
            Step::Reply(reply) => {
                actor.replies += 1;
                let client = self.client(actor);
                self.judge
                    .replies(&reply, client, self.store.faults, &self.calls);
                actor.doing = Doing::Deliver(Input::Replied);
                Some((0, None))
            }
            Step::Done => {
                let is_answered = actor.replies == 1;
                self.judge
                    .require(is_answered, Rule::OneReply, "not one reply");
                None
            }
        }
    }

    fn client(&self, actor: &Actor) -> Client {
        let is_vacant = self.store.held.is_none();
        Client {
            request: actor.request,
            knew: actor.knew,
            call: actor.upstream.map(|upstream| upstream.call),
            has_settled: actor.has_settled,
            is_stale: actor.is_stale && !is_vacant,
            is_freed: actor.is_stale && is_vacant,
        }
    }

    fn dispatch(&mut self, actor: &mut Actor, execution: Execution) -> Upstream {
        let (store, calls) = (&self.store, &self.calls);
        self.judge.executes(
            execution,
            actor.attempt.ticket(),
            actor.has_met_record,
            store,
            calls,
        );
        self.judge.require(
            actor.upstream.is_none(),
            Rule::OneEffect,
            "one attempt executed twice",
        );
        let now = self.store.now;
        let is_slow = self.setting.is_slow && !self.is_calm;
        let plan = Plan::random(&mut self.random, self.setting.is_troubled && !self.is_calm);
        let times = if self.fault == Fault::SentTwice { 2 } else { 1 };
        let mut answers_at = now;
        for _ in 0..times {
            let mut call = Call::new(plan, actor.request, now, is_slow, &mut self.random);
            call.epoch = self.judge.epoch;
            answers_at = call.answers_at;
            self.calls.push(call);
        }
        let upstream = Upstream {
            call: u8::try_from(self.calls.len().saturating_sub(1)).unwrap_or(u8::MAX),
            answers_at,
            heartbeat: execution
                .heartbeat
                .map(|every| (millis(every), now + millis(every))),
            times_out_at: Some(now + UPSTREAM_TIMEOUT),
            has_ended: false,
        };
        actor.upstream = Some(upstream);
        upstream
    }
}

impl Upstream {
    /// When the next thing comes from the call.
    fn next_due(&self) -> u64 {
        let heartbeat = self.heartbeat.map_or(u64::MAX, |(_, due)| due);
        let times_out_at = self.times_out_at.unwrap_or(u64::MAX);
        self.answers_at.min(heartbeat).min(times_out_at)
    }
}

impl Probes {
    fn count(&mut self, outcome: ProbeOutcome) {
        self.happened += u64::from(outcome == ProbeOutcome::Happened);
        self.absent += u64::from(outcome == ProbeOutcome::Absent);
    }
}

/// Whether the store has just shown somebody's record.
fn has_met_record(input: &Input) -> bool {
    matches!(input, Input::Inserted(Ok(Insert::Occupied { .. })))
}

#[allow(clippy::print_stdout, reason = "only to look into one history")]
fn print_step(now: u64, actor: &Actor, said: &str, step: &Step) {
    let claim = actor.attempt.ticket().claim;
    println!("{now} {claim:?} {said}\n    -> {step:?}");
}

/// The position of the `n`th set bit, from 0.
fn nth(mut bits: u32, n: u64) -> usize {
    for _ in 0..n {
        bits &= bits - 1;
    }
    bits.trailing_zeros() as usize
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
