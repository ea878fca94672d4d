//! What a run leaves for the judge: clients' history and the upstream's effects, on one clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hapax_check::evidence::{Effect, Effects, Event, History};
use hapax_core::event::{self, Observer, Outcome};

/// Written by everybody in a run. Hosts run one after the other, so the order of writing is one of those in which it can
/// have happened; instants follow it.
#[derive(Default)]
pub(super) struct Evidence {
    inner: Mutex<Inner>,
    next_op: AtomicU64,
    pub(super) executed: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) waited: AtomicU64,
}

#[derive(Default)]
struct Inner {
    last_us: u64,
    history: History,
    effects: Effects,
}

impl Inner {
    /// Now: no two things happen at the same instant.
    fn now(&mut self) -> u64 {
        let now = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        self.last_us = u64::try_from(now).unwrap().max(self.last_us + 1);
        self.last_us
    }
}

impl Evidence {
    pub(super) fn next_op(&self) -> u64 {
        self.next_op.fetch_add(1, Ordering::Relaxed)
    }

    /// The clock of the steps, for what happens outside of hosts.
    pub(super) fn reaches(&self, now_us: u64) {
        let mut inner = self.inner.lock().unwrap();
        inner.last_us = inner.last_us.max(now_us);
    }

    pub(super) fn tell(&self, event: impl FnOnce(u64) -> Event) {
        let mut inner = self.inner.lock().unwrap();
        let event = event(inner.now());
        inner.history.events.push(event);
    }

    /// A fault that lasts until it is healed.
    pub(super) fn begins(&self, fault: &str, node: Option<String>) {
        let fault = fault.to_owned();
        self.tell(|at_us| Event::Fault { at_us, fault, node });
    }

    pub(super) fn ends(&self, fault: &str, node: Option<String>) {
        let fault = Some(fault.to_owned());
        self.tell(|at_us| Event::Healed { at_us, fault, node });
    }

    /// All is well.
    pub(super) fn heals(&self) {
        let (fault, node) = (None, None);
        self.tell(|at_us| Event::Healed { at_us, fault, node });
    }

    /// A fault of one instant.
    pub(super) fn strikes(&self, fault: &str, node: Option<String>) {
        self.begins(fault, node.clone());
        self.ends(fault, node);
    }

    /// An effect, written down where no crash of the upstream reaches, with the content that tells of it.
    pub(super) fn acts(
        &self,
        (key, scope, payload): (&str, &str, &str),
        content: impl FnOnce(u64) -> Vec<u8>,
    ) -> (u64, Vec<u8>) {
        let mut inner = self.inner.lock().unwrap();
        let at_us = inner.now();
        let effect = inner.effects.effects.len() as u64 + 1;
        let content = content(effect);
        inner.effects.effects.push(Effect {
            at_us,
            key: key.to_owned(),
            scope: scope.to_owned(),
            payload: payload.to_owned(),
            effect,
            answer: Some(digest(&content)),
        });
        (effect, content)
    }

    pub(super) fn taken(&self) -> (History, Effects) {
        for (name, value) in [("executed", &self.executed), ("replayed", &self.replayed)] {
            self.tell(|at_us| Event::Figure {
                at_us,
                name: name.to_owned(),
                value: value.load(Ordering::Relaxed),
                node: None,
            });
        }
        let mut inner = self.inner.lock().unwrap();
        (
            std::mem::take(&mut inner.history),
            std::mem::take(&mut inner.effects),
        )
    }
}

/// Counts what the gateways say that they did (G16).
impl Observer for Evidence {
    fn observe(&self, event: &event::Event<'_>) {
        if let event::Event::Answered(answered) = event {
            let counter = match answered.outcome {
                Outcome::Executed => &self.executed,
                Outcome::Replayed | Outcome::RejectedReplayed => &self.replayed,
                Outcome::InProgress => &self.waited,
                _ => return,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A digest of content: enough to tell one from another, FNV-1a.
pub(super) fn digest(content: &[u8]) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}
