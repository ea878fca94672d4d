//! What may happen in a history; drawn from its seed.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::policy::{Mode, OnStoreFailure, OnUnknown, Policy};
use hapax_core::probe::Template;

use crate::judge::Demands;
use crate::random::Random;
use crate::store::{FakeStore, Flaw};

/// How long a claim lives, in milliseconds.
pub(crate) const LEASE: u64 = 60_000;
/// After which the client is told that the outcome is unknown, in milliseconds.
pub(crate) const UPSTREAM_TIMEOUT: u64 = 30_000;
/// No effect comes later than this after its request was sent: what `probe_after` assumes, in milliseconds.
pub(crate) const QUIESCENCE: u64 = 150_000;

/// How long a settled record is kept in histories in which some expire.
pub(crate) const RETENTION: Duration = Duration::from_millis(RETENTION_MS);
/// The same in milliseconds.
pub(crate) const RETENTION_MS: u64 = 100_000;
/// How long its tombstone stays, where it has one.
const TOMBSTONE: Duration = Duration::from_secs(40);

/// What is wrong on purpose, for the controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Store(Flaw),
    /// The transport sends a request twice.
    SentTwice,
    /// The route re-sends unknown operations, and is judged as if it did not.
    Resends,
    /// The route fails open, and is judged as if it did not.
    FailsOpen,
    /// A probe's "no such thing" frees the key at once.
    ProbesWithoutFence,
    /// The route enforces, and is judged as if it only observed.
    Enforces,
}

/// What may happen in a history.
pub(crate) struct Setting {
    pub(crate) demands: Demands,
    pub(crate) policy: Arc<Policy>,
    pub(crate) attempts: u64,
    pub(crate) is_frozen: bool,
    pub(crate) is_crashing: bool,
    pub(crate) is_restarting: bool,
    pub(crate) is_troubled: bool,
    pub(crate) is_slow: bool,
    pub(crate) has_operator: bool,
    pub(crate) has_outages: bool,
    pub(crate) is_probing: bool,
    pub(crate) is_expiring: bool,
}

/// What a history's policy is made of; see [`POLICIES`].
#[derive(Clone, Copy)]
struct Choice {
    /// `refuse`, `resend` or `probe`.
    on_unknown: usize,
    is_unfenced: bool,
    is_open: bool,
    is_observing: bool,
    is_expiring: bool,
    has_tombstone: bool,
    waits: bool,
}

const REFUSE: usize = 0;
const RESEND: usize = 1;
const PROBE: usize = 2;

thread_local! {
    /// Every policy that a history may have. Making one costs as much as a short history, and counting the uses of one
    /// together with another thread, too.
    static POLICIES: Vec<Arc<Policy>> = (0..3 << 6).map(|number| Arc::new(policy(numbered(number)))).collect();
}

fn numbered(number: usize) -> Choice {
    let is = |bit: usize| number >> bit & 1 == 1;
    Choice {
        on_unknown: number >> 6,
        is_unfenced: is(5),
        is_open: is(4),
        is_observing: is(3),
        is_expiring: is(2),
        has_tombstone: is(1),
        waits: is(0),
    }
}

impl Choice {
    fn policy(self) -> Arc<Policy> {
        let flags = [
            self.is_unfenced,
            self.is_open,
            self.is_observing,
            self.is_expiring,
            self.has_tombstone,
            self.waits,
        ];
        let add = |number, flag: &bool| number << 1 | usize::from(*flag);
        let number = flags.iter().fold(self.on_unknown, add);
        let policy = POLICIES.with(|policies| policies.get(number).cloned());
        policy.unwrap_or_default()
    }
}

fn policy(choice: Choice) -> Policy {
    let defaults = Policy::default();
    let template = Template::parse("GET /orders?request={key}").map(Arc::new);
    Policy {
        mode: if choice.is_observing {
            Mode::Observe
        } else {
            Mode::Enforce
        },
        lease: Duration::from_millis(LEASE),
        upstream_timeout: Duration::from_millis(UPSTREAM_TIMEOUT),
        wait: Duration::from_secs(if choice.waits { 5 } else { 0 }),
        retention: if choice.is_expiring {
            RETENTION
        } else {
            defaults.retention
        },
        tombstone: if choice.has_tombstone {
            TOMBSTONE
        } else {
            Duration::ZERO
        },
        on_unknown: match (choice.on_unknown, template) {
            (RESEND, _) => OnUnknown::Resend,
            (PROBE, Ok(template)) => OnUnknown::Probe(template),
            _ => OnUnknown::Refuse,
        },
        probe_after: Duration::from_millis(if choice.is_unfenced { 0 } else { QUIESCENCE }),
        on_store_failure: if choice.is_open {
            OnStoreFailure::FailOpen
        } else {
            OnStoreFailure::FailClosed
        },
        methods: Vec::new(),
        key_from: Vec::new(),
        scope: Vec::new(),
        ..defaults
    }
}

impl Choice {
    fn draw(random: &mut Random, fault: Fault) -> Self {
        let is_unfenced = fault == Fault::ProbesWithoutFence;
        let is_probing = is_unfenced || random.once_in(3);
        let is_resending = !is_unfenced && (fault == Fault::Resends || random.once_in(10));
        let is_probing = is_probing && !is_resending;
        // What ran unrecorded under a key is what a probe by that key finds: with failing open there is nothing to judge by.
        let is_open = fault == Fault::FailsOpen || (!is_probing && random.once_in(10));
        // A probe by the key finds what it stood for before it expired.
        let is_expiring = !is_probing && random.once_in(5);
        Self {
            on_unknown: match (is_probing, is_resending) {
                (true, _) => PROBE,
                (false, true) => RESEND,
                (false, false) => REFUSE,
            },
            is_unfenced,
            is_open,
            is_observing: fault == Fault::None && random.once_in(16),
            is_expiring,
            has_tombstone: is_expiring && random.once_in(2),
            waits: random.once_in(2),
        }
    }
}

impl Setting {
    pub(crate) fn draw(random: &mut Random, fault: Fault, store: &mut FakeStore) -> Self {
        let is_clean = random.once_in(8);
        let mut maybe = |times| !is_clean && random.once_in(times);
        let (is_frozen, is_crashing, is_restarting) = (maybe(3), maybe(3), maybe(5));
        let (is_troubled, is_slow, is_faulty) = (maybe(2), maybe(2), maybe(2));
        store.is_late = maybe(2);
        store.is_ordered = !maybe(4);
        let (has_operator, has_outages) = (maybe(3), maybe(3));
        if is_faulty {
            store.one_fault_in = random.between(2, 12);
        }
        let choice = Choice::draw(random, fault);
        let is_probing = choice.on_unknown == PROBE;
        let is_resending = choice.on_unknown == RESEND;
        let is_observing = choice.is_observing;
        let is_judged_safe = matches!(fault, Fault::Resends | Fault::FailsOpen);
        let demands = Demands {
            is_safe: is_judged_safe || !(is_resending || choice.is_open || is_observing),
            is_closed: fault == Fault::FailsOpen || !(choice.is_open || is_observing),
            is_clean,
            is_frozen,
            is_probing,
            is_observing: is_observing || fault == Fault::Enforces,
            is_one_request: !random.once_in(5),
        };
        Self {
            demands,
            policy: choice.policy(),
            attempts: random.between(2, 6),
            is_frozen,
            is_crashing,
            is_restarting,
            is_troubled,
            is_slow,
            // An operator's answer has no call that would say of which operation it is.
            has_operator: has_operator && !choice.is_expiring,
            has_outages,
            is_probing,
            is_expiring: choice.is_expiring,
        }
    }
}
