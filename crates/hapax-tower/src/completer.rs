//! Asks the upstream about unknown outcomes that no retry asks about (P47).
//!
//! Only records that carry what the question needs are asked about: those of routes that probe, claimed without credentials or
//! under a derived key. A question is asked at once, then with growing pauses; who else settles a record is never overruled,
//! because every write names the claim it was decided on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tower_service::Service;

use hapax_core::event::{Event, StoreOperation};
use hapax_core::key::RecordKey;
use hapax_core::policy::Policy;
use hapax_core::probe::{ProbeOutcome, Probed, Resolution, resolve};
use hapax_core::record::{Held, StateKind};
use hapax_core::store::{Filter, Store, StoreError, Write};
use hapax_core::time::Timestamp;

use crate::body::{BoxError, RequestBody};
use crate::drive::timed;
use crate::layer::{HapaxLayer, Shared};
use crate::probes;
use crate::quotas::Charge;
use crate::service::claim_ids;

/// How often the store is looked through for unknown records; a look that finds none costs one question to the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records a page.
const PAGE: usize = 100;
/// Questions under way at once.
const AT_ONCE: usize = 4;
/// The pause after the first question about a record; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two questions about a record.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Records whose pauses are remembered; more wait until some of these are settled.
const MAX_TRACKED: usize = 10_000;

/// When a record is asked about again.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    asked: u32,
    next: Timestamp,
    /// The pass that last saw the record.
    seen_in: u64,
}

impl<S: Store> HapaxLayer<S> {
    /// Settles unknown outcomes by probes, for as long as the future is polled. `inner` is asked; `policy_of` says the present
    /// rules of a route by its name.
    pub async fn complete_unknown<I, B, R>(
        &self,
        inner: I,
        policy_of: impl Fn(&str) -> Option<Arc<Policy>> + Send,
    ) where
        I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        I::Error: Into<BoxError>,
        I::Future: Send,
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + Unpin + 'static,
        R::Error: Into<BoxError>,
    {
        let mut turns = HashMap::new();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for pass in 0.. {
            ticks.tick().await;
            // A store that fails is told of by whoever needs it; here there is another time.
            let _ = self
                .look_through(pass, &mut turns, &inner, &policy_of)
                .await;
        }
    }

    async fn look_through<I, B, R>(
        &self,
        pass: u64,
        turns: &mut HashMap<RecordKey, Turn>,
        inner: &I,
        policy_of: &(impl Fn(&str) -> Option<Arc<Policy>> + Send),
    ) -> Result<(), StoreError>
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        I::Error: Into<BoxError>,
        I::Future: Send,
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + Unpin + 'static,
        R::Error: Into<BoxError>,
    {
        let stats = self.store().stats().await?;
        if stats.unknown == 0 {
            turns.clear();
            return Ok(());
        }
        let filter = Filter {
            state: Some(StateKind::Unknown),
            ..Filter::default()
        };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        let mut after = None;
        loop {
            let page = self.store().list(&filter, after, PAGE).await?;
            for (key, held) in page.records {
                let Some(policy) = policy_of(&held.record.route) else {
                    continue;
                };
                if policy.probe().is_none()
                    || held.record.asked_by.is_none()
                    || !is_due(turns, pass, key, &held, policy.probe_after, stats.now)
                {
                    continue;
                }
                // Never closed, so there is always a place in the end.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    break;
                };
                let (shared, inner, now) = (Arc::clone(&self.shared), inner.clone(), stats.now);
                asking.spawn(async move {
                    ask(&shared, inner, key, held, &policy, now).await;
                    drop(place);
                });
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        while asking.join_next().await.is_some() {}
        turns.retain(|_, turn| turn.seen_in == pass);
        Ok(())
    }
}

/// Whether it is this record's turn; if so, says when the next is.
fn is_due(
    turns: &mut HashMap<RecordKey, Turn>,
    pass: u64,
    key: RecordKey,
    held: &Held,
    probe_after: Duration,
    now: Timestamp,
) -> bool {
    if turns.len() >= MAX_TRACKED && !turns.contains_key(&key) {
        return false;
    }
    let turn = turns.entry(key).or_default();
    turn.seen_in = pass;
    if now < turn.next {
        return false;
    }
    let factor = 1u32.checked_shl(turn.asked).unwrap_or(u32::MAX);
    let pause = FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE);
    turn.asked = turn.asked.saturating_add(1);
    turn.next = now.plus(pause);
    // The moment from which "no such thing" counts is not slept through.
    let quiet_from = held.written_at.plus(probe_after);
    if now < quiet_from {
        turn.next = turn.next.min(quiet_from);
    }
    true
}

async fn ask<S, I, B, R>(
    shared: &Shared<S>,
    inner: I,
    key: RecordKey,
    held: Held,
    policy: &Policy,
    now: Timestamp,
) where
    S: Store,
    I: Service<Request<RequestBody<B>>, Response = Response<R>>,
    I::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    let random = shared.options.random;
    let (Some(template), Some(values), Some((_, seal))) =
        (policy.probe(), &held.record.asked_by, claim_ids(random))
    else {
        return;
    };
    let (probed, _asking) = match probes::question(template, values, HeaderMap::new()) {
        Some(question) => shared.probes.ask(key, inner, question, policy).await,
        None => (Probed::Failed, None),
    };
    let resolution = match probed {
        Probed::ByAnother => return,
        Probed::Failed => Resolution::Leave(ProbeOutcome::Failed),
        Probed::Answered(answer) => resolve(&held, policy.probe_after, now, answer, seal),
    };
    shared.observer.observe(&Event::Probed {
        record: key,
        route: &held.record.route,
        outcome: resolution.outcome(),
    });
    let expected = held.record.claim;
    match resolution {
        Resolution::Leave(_) => return,
        Resolution::Complete(record) => {
            let replacing = shared.store.replace(&key, expected, &record);
            let written = timed(shared, StoreOperation::Replace, replacing).await;
            Charge::default().replaced(&shared.quotas, &record, &written);
            if let (Ok(Write::Applied { .. }), Some(response)) = (written, record.state.response())
            {
                shared.observer.observe(&Event::Settled {
                    record: key,
                    state: StateKind::Completed,
                    status: response.status,
                });
            }
        }
        Resolution::Free => {
            let removing = shared.store.remove(&key, expected);
            let written = timed(shared, StoreOperation::Remove, removing).await;
            if matches!(written, Ok(Write::Applied { .. })) {
                shared.observer.observe(&Event::Released { record: key });
            }
        }
    }
    shared.waiters.wake(&key);
}
