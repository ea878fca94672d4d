//! Performs the steps of one attempt, in a task of its own. Decides nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_service::Service;

use hapax_core::attempt::{
    Attempt, Execution, Input, Reply, ReplyContent, Step, UpstreamAnswer, UpstreamFailure,
};
use hapax_core::event::{Answered, Event, StoreOperation};
use hapax_core::fingerprint::{Fingerprint, Subject};
use hapax_core::key::RecordKey;
use hapax_core::policy::{KeySource, Mode, UpstreamKey};
use hapax_core::probe::{Probed, Values};
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::record::{ClaimId, Content, Record};
use hapax_core::refusal;
use hapax_core::settle;
use hapax_core::store::{Store, StoreError};
use hapax_core::trace::{Spans, Work};

use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::coding;
use crate::exchange::{Exchange, Kept, exchange, pipe};
use crate::layer::{Routed, Shared};
use crate::places::Place;
use crate::probes::{self, Asking, UnderWay};
use crate::quotas::{Charge, Room};
use crate::service::target_of;

/// An answer that has not come this long after the client was told that the outcome is unknown
/// is no longer waited for; the record stays unknown.
const LATE_ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A waiting duplicate looks again, even when nothing wakes it: the first attempt may be on
/// another node, or its end may have slipped in between looking and waiting. First after this
/// long, and then after twice as long each time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Not longer than this, however often it has looked.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);

type Call<R> = Pin<Box<dyn Future<Output = Result<Exchange<R>, UpstreamFailure>> + Send>>;

/// What an attempt needs to know of its request, besides the request itself.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Until the request is sent on.
    pub(crate) content: Bytes,
    pub(crate) key_as_received: HeaderValue,
    pub(crate) derived_key: Option<HeaderValue>,
    /// What a probe asks with, on a route that has one.
    pub(crate) values: Option<Values>,
}

pub(crate) struct Drive<S, I, B, R> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) routed: Routed,
    pub(crate) inner: Option<I>,
    /// The request, until it is sent on; from then on what answering still needs of its fields.
    pub(crate) request: Result<Box<Request<RequestBody<B>>>, HeaderMap>,
    pub(crate) asked: Asked,
    pub(crate) key: RecordKey,
    pub(crate) started: Instant,
    pub(crate) spans: Option<Box<Spans>>,
    pub(crate) reply_to: Option<oneshot::Sender<Response<ResponseBody<R>>>>,
    pub(crate) call: Option<Call<R>>,
    pub(crate) answer: Option<Box<Exchange<R>>>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) next_heartbeat: Option<Instant>,
    pub(crate) times_out_at: Option<Instant>,
    pub(crate) has_timed_out: bool,
    /// On a route that probes: that the upstream may still act on this request.
    pub(crate) under_way: Option<UnderWay>,
    /// While it asks the upstream about the record, and until the record says what was found out.
    pub(crate) asking: Option<Asking>,
    pub(crate) dispatched_at: Option<Instant>,
    pub(crate) upstream_took: Option<Duration>,
    /// How often it has looked, as a waiting duplicate.
    pub(crate) looks: u32,
    /// What its scope is charged with for it.
    pub(crate) charge: Charge,
    /// Held until the attempt is over: what is under way is bounded.
    pub(crate) _place: Place,
}

impl<S, I, B, R> Drive<S, I, B, R>
where
    S: Store,
    I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    /// Boxed, because a future holds what it is given twice: as it was given and as it is used.
    pub(crate) async fn run(mut self: Box<Self>, mut attempt: Box<Attempt>) {
        // Once: every request counts what it shares, on whichever core it is.
        let (shared, key) = (Arc::clone(&self.shared), self.key);
        let mut input = Input::Begin;
        loop {
            let step = attempt.advance(input, self.started.elapsed(), &mut |event| {
                shared.observer.observe(&event);
            });
            let work = self.work_of(&step);
            let from = work.map(|_| self.started.elapsed());
            input = match step {
                Step::Done => return,
                Step::Reply(reply) => {
                    self.asking = None;
                    self.reply(reply, &attempt);
                    Input::Replied
                }
                Step::Execute(execution) => {
                    self.dispatch(execution);
                    self.upstream_event().await
                }
                Step::Await => self.upstream_event().await,
                // All others are boxed: an operation under way waits for the upstream for most of its life, and should
                // not hold the room that asking the store takes.
                Step::Insert(record) => Box::pin(self.insert(record)).await,
                Step::Replace { expected, record } => {
                    Box::pin(self.replace(expected, record)).await
                }
                Step::Remove { expected } => Box::pin(self.remove(expected)).await,
                Step::Read => Box::pin(read(&shared, key)).await,
                Step::Probe => Input::Probed(Box::pin(self.probe(&attempt)).await),
                Step::Wait(up_to) => Box::pin(self.wait(up_to, &attempt)).await,
                Step::Pause(pause) => {
                    Box::pin(sleep(pause)).await;
                    Input::Waited
                }
            };
            if let (Some(spans), Some(work), Some(from)) = (self.spans.as_mut(), work, from) {
                spans.tell(work, from, self.started.elapsed());
            }
        }
    }

    /// What a step is called in a trace; heartbeats and waits have no name. The upstream's part is told when it ends.
    fn work_of(&self, step: &Step) -> Option<Work> {
        self.spans.as_ref()?;
        match step {
            Step::Probe => Some(Work::Probe),
            Step::Insert(_) => Some(Work::Claim),
            Step::Replace { .. } if self.dispatched_at.is_none() => Some(Work::Claim),
            Step::Replace { .. } | Step::Remove { .. } if self.call.is_none() => {
                Some(Work::Complete)
            }
            _ => None,
        }
    }

    /// Claims the key, where the scope has room for one more.
    async fn insert(&mut self, record: Record) -> Input {
        match self.charge.room(&self.shared.quotas, record.scope) {
            Room::Full { until } => return Input::NoRoom { until },
            Room::Charged => {}
            Room::NotCounted => {
                let route = &*self.routed.name;
                let event = Event::QuotaNotCounted { route };
                self.shared.observer.observe(&event);
            }
        }
        let inserting = self.shared.store.insert(&self.key, &record);
        let inserted = timed(&self.shared, StoreOperation::Insert, inserting).await;
        self.charge.inserted(&record, &inserted);
        Input::Inserted(inserted)
    }

    async fn replace(&mut self, expected: ClaimId, record: Record) -> Input {
        let replacing = self.shared.store.replace(&self.key, expected, &record);
        let written = timed(&self.shared, StoreOperation::Replace, replacing).await;
        self.charge.replaced(&self.shared.quotas, &record, &written);
        self.asking = None;
        self.shared.waiters.wake(&self.key);
        Input::Written(written)
    }

    async fn remove(&mut self, expected: ClaimId) -> Input {
        let removing = self.shared.store.remove(&self.key, expected);
        let written = timed(&self.shared, StoreOperation::Remove, removing).await;
        self.charge.removed(&written);
        self.shared.waiters.wake(&self.key);
        Input::Written(written)
    }

    /// Waits for the first attempt. A client that leaves waits no longer: nothing of it is under
    /// way, so its place is for others.
    async fn wait(&mut self, up_to: Duration, attempt: &Attempt) -> Input {
        let ticket = attempt.ticket();
        let patience = up_to.min(look_again(attempt, self.looks));
        self.looks = self.looks.saturating_add(1);
        let waiting = self.shared.waiters.wait(ticket.key, ticket.scope, patience);
        let Some(reply_to) = self.reply_to.as_mut() else {
            return Input::WaitRefused;
        };
        tokio::select! {
            biased;
            waited = waiting => match waited {
                Ok(()) => Input::Waited,
                Err(_) => Input::WaitRefused,
            },
            () = reply_to.closed() => Input::WaitRefused,
        }
    }

    /// Asks the upstream with the retry's own credentials.
    async fn probe(&mut self, attempt: &Attempt) -> Probed {
        let (Some(template), Some(values), Some(inner), Ok(request)) = (
            self.routed.policy.probe(),
            &self.asked.values,
            &self.inner,
            &self.request,
        ) else {
            return Probed::Failed;
        };
        let fields = probes::fields_of(request.headers(), &self.routed.policy);
        let Some(question) = probes::question(template, values, fields) else {
            return Probed::Failed;
        };
        let probes = &self.shared.probes;
        let asking = probes.ask(
            attempt.ticket().key,
            inner.clone(),
            question,
            &self.routed.policy,
        );
        let (probed, asking) = asking.await;
        self.asking = asking;
        probed
    }

    fn dispatch(&mut self, execution: Execution) {
        let attempt = execution.attempt;
        self.send(execution);
        let record = self.key;
        let event = Event::Forwarded { record, attempt };
        self.shared.observer.observe(&event);
    }

    fn send(&mut self, execution: Execution) {
        let kept = fields_of_retry(self.fields());
        // Both are there: `Execute` is said once an attempt.
        let sent = std::mem::replace(&mut self.request, Err(kept));
        let (Some(inner), Ok(mut request)) = (self.inner.take(), sent) else {
            return;
        };
        self.asked.content = Bytes::new();
        self.prepare(request.headers_mut(), execution.attempt);
        let policy = &self.routed.policy;
        // A route that only observes changes nothing, so its answers go straight through.
        let max_stored = if policy.mode == Mode::Observe {
            0
        } else {
            policy.max_stored_response
        };
        if policy.probe().is_some() {
            self.under_way = Some(self.shared.probes.under_way(self.key));
        }
        let now = Instant::now();
        self.call = Some(Box::pin(exchange(inner, request, max_stored)));
        self.dispatched_at = Some(now);
        self.heartbeat = execution.heartbeat;
        self.next_heartbeat = execution.heartbeat.map(|every| now + every);
        self.times_out_at = Some(now + policy.upstream_timeout);
    }

    /// What the upstream's copy of the request says besides what the client said (P26, P30).
    fn prepare(&self, headers: &mut HeaderMap, attempt: u32) {
        headers.insert(settle::HAPAX_ATTEMPT, HeaderValue::from(attempt));
        headers.remove(settle::HAPAX_OUTCOME);
        if let Some(spans) = &self.spans {
            spans.hand_on(headers);
        }
        if self.routed.policy.mode == Mode::Observe {
            return;
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let (UpstreamKey::Derive, Some(derived)) =
            (self.routed.policy.upstream_key, &self.asked.derived_key)
        {
            for source in &self.routed.policy.key_from {
                if let KeySource::Header(name) = source
                    && headers.contains_key(name)
                {
                    headers.insert(name, derived.clone());
                }
            }
        }
    }

    /// Whatever comes first: the answer, the next heartbeat, or the end of patience.
    async fn upstream_event(&mut self) -> Input {
        let Some(call) = self.call.as_mut() else {
            return Input::Failed(UpstreamFailure::AfterDispatch);
        };
        let wake_at = [self.next_heartbeat, self.times_out_at]
            .into_iter()
            .flatten()
            .min();
        let ended = match wake_at {
            None => Some(call.await),
            Some(wake_at) => tokio::select! {
                biased;
                ended = call => Some(ended),
                () = sleep_until(wake_at) => None,
            },
        };
        match ended {
            Some(ended) => self.upstream_ended(ended, self.key),
            None if self.times_out_at.is_some_and(|at| at <= Instant::now()) => self.out_of_time(),
            None => {
                self.next_heartbeat = self.heartbeat.map(|every| Instant::now() + every);
                Input::HeartbeatDue
            }
        }
    }

    fn out_of_time(&mut self) -> Input {
        if self.has_timed_out {
            self.call = None;
            self.under_way = None;
            return Input::Failed(UpstreamFailure::AfterDispatch);
        }
        self.has_timed_out = true;
        self.next_heartbeat = None;
        self.times_out_at = Some(Instant::now() + LATE_ANSWER_LIMIT);
        Input::TimedOut
    }

    fn upstream_ended(
        &mut self,
        ended: Result<Exchange<R>, UpstreamFailure>,
        record: RecordKey,
    ) -> Input {
        self.call = None;
        self.under_way = None;
        let took = self
            .dispatched_at
            .map(|at| at.elapsed())
            .unwrap_or_default();
        self.upstream_took = Some(took);
        if let Some(spans) = self.spans.as_mut() {
            let until = self.started.elapsed();
            spans.tell(Work::Upstream, until.saturating_sub(took), until);
        }
        self.shared.observer.observe(&Event::UpstreamCalled {
            record,
            route: &self.routed.name,
            status: ended.as_ref().ok().map(|exchange| exchange.parts.status),
            took,
        });
        match ended {
            Err(failure) => Input::Failed(failure),
            Ok(exchange) => {
                let answer = UpstreamAnswer {
                    status: exchange.parts.status,
                    settlement: exchange.settlement,
                    headers: settle::stored_headers(&exchange.parts.headers),
                    content: match &exchange.content {
                        Kept::Whole(content) => Content::Stored(content.clone()),
                        Kept::Part(..) => Content::Withheld,
                    },
                };
                self.answer = Some(Box::new(exchange));
                Input::Answered(answer)
            }
        }
    }

    fn reply(&mut self, mut reply: Reply, attempt: &Attempt) {
        let mut response = self.response_for(&mut reply, attempt);
        let headers = response.headers_mut();
        settle::annotate(
            headers,
            &self.asked.key_as_received,
            reply.status,
            reply.expires,
        );
        let record = attempt.ticket().key;
        let trace = attempt.ticket().trace.as_deref();
        if let Some(spans) = self.spans.as_mut() {
            spans.first = reply.first.take();
        }
        self.shared.observer.observe(&Event::Answered(Answered {
            route: &self.routed.name,
            method: &self.asked.method,
            status: response.status(),
            outcome: reply.outcome,
            record: Some(record),
            attempt: reply.attempt,
            age: reply.age,
            upstream: self.upstream_took,
            total: self.started.elapsed(),
            trace_id: trace.and_then(trace_id),
            spans: self.spans.as_deref(),
        }));
        let sent = self
            .reply_to
            .take()
            .is_some_and(|to| to.send(response).is_ok());
        if !sent {
            self.shared.observer.observe(&Event::ClientGone { record });
        }
    }

    fn response_for(&mut self, reply: &mut Reply, attempt: &Attempt) -> Response<ResponseBody<R>> {
        // An answer that is not sent is still read to its end: the upstream is not cut off.
        let upstream = self.answer.take().map(|exchange| {
            let content = match exchange.content {
                Kept::Whole(content) => ResponseBody::full(content),
                Kept::Part(read, rest) => pipe(read, rest, self.routed.policy.upstream_timeout),
            };
            Response::from_parts(exchange.parts, content)
        });
        let made = match &reply.content {
            ReplyContent::Upstream => match upstream {
                Some(response) => return response,
                // Said only after an answer; whatever happened, it is not known.
                None => unknown_problem().response(),
            },
            ReplyContent::Stored(stored) => match self.replay(stored) {
                Ok(response) => response,
                Err(problem) => {
                    reply.status = None;
                    problem.response()
                }
            },
            ReplyContent::Problem(problem) => problem.response(),
            ReplyContent::Mismatch { first } => self.mismatch(first, attempt).response(),
        };
        made.map(ResponseBody::full)
    }

    fn replay(
        &self,
        stored: &hapax_core::record::StoredResponse,
    ) -> Result<Response<Bytes>, Problem> {
        let response = settle::replay(stored, self.fields())?;
        coding::fit_to_retry(response, self.fields()).map_err(|_| {
            Problem::new(
                ProblemKind::ResponseUnavailable,
                "The operation ran once; its answer is stored in a content coding that this \
                 request does not accept.",
            )
        })
    }

    /// The request's fields, or what is kept of them.
    fn fields(&self) -> &HeaderMap {
        match &self.request {
            Ok(request) => request.headers(),
            Err(kept) => kept,
        }
    }

    fn mismatch(&self, first: &Fingerprint, attempt: &Attempt) -> Problem {
        // A request that was sent on cannot turn out to be another one.
        let subject = self.request.as_ref().ok().map(|request| Subject {
            method: request.method(),
            target: target_of(request.uri()),
            headers: request.headers(),
            content: &self.asked.content,
        });
        let (keys, policy) = (&self.shared.keys, &attempt.ticket().policy);
        refusal::mismatch(first, keys, policy, subject.as_ref())
    }
}

async fn read<S: Store>(shared: &Shared<S>, key: RecordKey) -> Input {
    Input::Found(timed(shared, StoreOperation::Read, shared.store.read(&key)).await)
}

/// Bounds an operation of the store in time and tells how it went.
pub(crate) async fn timed<S, T>(
    shared: &Shared<S>,
    operation: StoreOperation,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let started = Instant::now();
    let result = timeout(shared.options.store_timeout, work)
        .await
        .unwrap_or_else(|_| {
            let reason = "the operation took too long";
            Err(StoreError::Uncertain {
                reason,
                source: None,
            })
        });
    let (took, error) = (started.elapsed(), result.as_ref().err());
    shared.observer.observe(&Event::StoreCalled {
        operation,
        took,
        error,
    });
    result
}

fn unknown_problem() -> Problem {
    Problem::new(
        ProblemKind::OutcomeUnknown,
        "The outcome of the operation is not known.",
    )
}

/// How long a duplicate that has looked `looks` times waits before it looks again: up to a
/// quarter less than its turn, so that many waiters do not ask together. The randomness is what
/// each attempt already has, another part of it each time.
fn look_again(attempt: &Attempt, looks: u32) -> Duration {
    let turn = LOOK_AGAIN
        .saturating_mul(1 << looks.min(16))
        .min(LOOK_AT_LEAST);
    let random = attempt.ticket().claim.as_bytes();
    let part = random.iter().cycle().nth(looks as usize % random.len());
    turn - turn * u32::from(part.copied().unwrap_or_default()) / 1024
}

/// The trace id of a `traceparent` (W3C Trace Context).
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}

/// The fields of a request that matter to an answer made after the request was sent on.
fn fields_of_retry(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [ORIGIN, ACCEPT_ENCODING] {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
