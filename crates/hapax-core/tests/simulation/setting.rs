//! What may happen in a history; drawn from its seed.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::policy::{OnStoreFailure, OnUnknown, Policy};
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
}

/// What may happen in a history.
pub(crate) struct Setting {
    pub(crate) demands: Demands,
    pub(crate) policy: Arc<Policy>,
    pub(crate) attempts: u64,
    pub(crate) is_frozen: bool,
    pub(crate) is_crashing: bool,
    pub(crate) is_troubled: bool,
    pub(crate) is_slow: bool,
    pub(crate) has_operator: bool,
    pub(crate) has_outages: bool,
    pub(crate) is_probing: bool,
}

impl Setting {
    pub(crate) fn draw(random: &mut Random, fault: Fault, store: &mut FakeStore) -> Self {
        let is_clean = random.once_in(8);
        let mut maybe = |times| !is_clean && random.once_in(times);
        let (is_frozen, is_crashing) = (maybe(3), maybe(3));
        let (is_troubled, is_slow, is_faulty) = (maybe(2), maybe(2), maybe(2));
        store.is_late = maybe(2);
        store.is_ordered = !maybe(4);
        let (has_operator, has_outages) = (maybe(3), maybe(3));
        if is_faulty {
            store.one_fault_in = random.between(2, 12);
        }
        let is_unfenced = fault == Fault::ProbesWithoutFence;
        let is_probing = is_unfenced || random.once_in(3);
        let is_resending = !is_unfenced && (fault == Fault::Resends || random.once_in(10));
        let is_probing = is_probing && !is_resending;
        let template = Template::parse("GET /orders?request={key}").map(Arc::new);
        // What ran unrecorded under a key is what a probe by that key finds: with failing open there is nothing to judge by.
        let is_open = fault == Fault::FailsOpen || (!is_probing && random.once_in(10));
        let is_probing = is_probing && !is_open;
        let policy = Policy {
            lease: Duration::from_millis(LEASE),
            upstream_timeout: Duration::from_millis(UPSTREAM_TIMEOUT),
            wait: Duration::from_secs(if random.once_in(2) { 5 } else { 0 }),
            on_unknown: if is_resending {
                OnUnknown::Resend
            } else if let (true, Ok(template)) = (is_probing, template) {
                OnUnknown::Probe(template)
            } else {
                OnUnknown::Refuse
            },
            probe_after: Duration::from_millis(if is_unfenced { 0 } else { QUIESCENCE }),
            on_store_failure: if is_open {
                OnStoreFailure::FailOpen
            } else {
                OnStoreFailure::FailClosed
            },
            methods: Vec::new(),
            key_from: Vec::new(),
            scope: Vec::new(),
            ..Policy::default()
        };
        let is_judged_safe = matches!(fault, Fault::Resends | Fault::FailsOpen);
        let demands = Demands {
            is_safe: is_judged_safe || !(is_resending || is_open),
            is_closed: fault == Fault::FailsOpen || !is_open,
            is_clean,
            is_frozen,
            is_probing,
            is_one_request: !random.once_in(5),
        };
        Self {
            demands,
            policy: Arc::new(policy),
            attempts: random.between(2, 6),
            is_frozen,
            is_crashing,
            is_troubled,
            is_slow,
            has_operator,
            has_outages,
            is_probing,
        }
    }
}
