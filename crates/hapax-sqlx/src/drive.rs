//! Performs the steps of one attempt within a transaction, in a task of its own. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use hapax_core::attempt::{Attempt, Input, Reply, ReplyContent, Step, Ticket, UpstreamAnswer};
use hapax_core::event::{Answered, Event, Outcome};
use hapax_core::fingerprint::{Fingerprint, Subject};
use hapax_core::key::RecordKey;
use hapax_core::policy::Mode;
use hapax_core::probe::Probed;
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::record::{ClaimId, Content, State};
use hapax_core::refusal::{Refusal, mismatch};
use hapax_core::scope::ScopeId;
use hapax_core::settle::{self, Settlement};
use hapax_core::store::{Insert, Write};

use crate::Dialect;
use crate::complete;
use crate::execution::{self, BoxError, Ended, kept};
use crate::holding::{Holding, Settled};
use crate::layer::{Rejections, Shared};
use crate::service::target_of;
use crate::statements::FailureKind;
use crate::steps::Steps;
use crate::transaction::{Failed, Slot};
use crate::unkeyed::{self, failed_problem, kept_problem, stopped_problem};

/// The pause before a run after the first; doubled, and spread by a random factor up to two.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// What a request asks for, worked out before its attempt began.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) key: RecordKey,
    pub(crate) scope: ScopeId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) key_as_received: HeaderValue,
    pub(crate) trace: Option<Arc<str>>,
}

/// One request on its way through claim, handler, commit and answer.
pub(crate) struct Drive<DB: Dialect, I> {
    shared: Arc<Shared<DB>>,
    inner: I,
    parts: Parts,
    content: Bytes,
    asked: Asked,
    started: Instant,
    reply_to: Option<oneshot::Sender<Response<Body>>>,
    /// The transaction and what else an attempt has while it has the key.
    holding: Option<Holding<DB>>,
    answer: Option<Response<Body>>,
    handler_took: Option<Duration>,
    runs: u32,
}

/// What came of a step; `None` when the database rolled the transaction back, and everything
/// begins anew.
type Next = Option<Input>;

impl<DB, I> Drive<DB, I>
where
    DB: Dialect,
    I: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
{
    pub(crate) fn new(
        shared: Arc<Shared<DB>>,
        inner: I,
        parts: Parts,
        content: Bytes,
        asked: Asked,
        started: Instant,
    ) -> Self {
        Self {
            shared,
            inner,
            parts,
            content,
            asked,
            started,
            reply_to: None,
            holding: None,
            answer: None,
            handler_took: None,
            runs: 0,
        }
    }

    /// The attempt, run again while the database asks for that. `_place` is given back at the end.
    pub(crate) async fn run(
        mut self,
        reply_to: oneshot::Sender<Response<Body>>,
        _place: OwnedSemaphorePermit,
    ) {
        self.reply_to = Some(reply_to);
        loop {
            self.runs += 1;
            let Some(ticket) = self.ticket() else {
                let refused = Refusal::no_random_numbers();
                let response = refused.problem.response().map(Body::from);
                self.send(response, refused.outcome, None, None);
                return;
            };
            let spread = ticket.claim.as_bytes().first().copied().unwrap_or(0);
            if self.drive(Attempt::new(ticket)).await {
                return;
            }
            self.give_back().await;
            let pause = FIRST_PAUSE * (1 << self.runs.min(8));
            sleep(pause + pause * u32::from(spread) / 256).await;
        }
    }

    /// Whether the attempt came to its end.
    async fn drive(&mut self, mut attempt: Attempt) -> bool {
        let mut input = Input::Begin;
        loop {
            let observer = Arc::clone(&self.shared.observer);
            let step = attempt.advance(input, self.started.elapsed(), &mut |event| {
                observer.observe(&event)
            });
            if matches!(step, Step::Done) {
                self.give_back().await;
                return true;
            }
            input = match self.perform(step, &attempt).await {
                Some(input) => input,
                None => return false,
            };
        }
    }

    async fn perform(&mut self, step: Step, attempt: &Attempt) -> Next {
        let ticket = attempt.ticket();
        Some(match step {
            Step::Insert(_) => return self.claim(ticket).await,
            Step::Replace { expected, record } => match &record.state {
                State::Outstanding { .. } => return self.take_over(ticket, expected).await,
                State::Rejected(_) => return self.settle_rejection(ticket, &record).await,
                State::Completed(_) | State::Unknown { .. } => {
                    return self.settle(ticket, &record).await;
                }
            },
            Step::Remove { .. } => {
                let now = self.give_back().await;
                Input::Written(Ok(Write::Applied { now }))
            }
            Step::Read => Input::Found(Holding::read(&self.shared, &ticket.key).await),
            Step::Wait(up_to) => self.wait(ticket.key, up_to).await,
            Step::Pause(pause) => {
                sleep(pause).await;
                Input::Waited
            }
            Step::Execute(_) if self.holding.is_none() => self.execute_unrecorded().await,
            Step::Execute(execution) => return self.execute(execution.attempt).await,
            // Said only about unknown outcomes, and this layer has none.
            Step::Probe => Input::Probed(Probed::Failed),
            // Said only while the handler runs, and that is over when `execute` returns.
            Step::Await => {
                self.rolled_back(kept_problem(), Outcome::UpstreamError)
                    .await
            }
            Step::Reply(reply) => {
                // Whoever waits for the key goes on before the answer is sent.
                self.give_back().await;
                self.reply(reply);
                Input::Replied
            }
            // The loop ends before it asks for this.
            Step::Done => Input::Replied,
        })
    }

    async fn claim(&mut self, ticket: &Ticket) -> Next {
        let claimed = if self.shared.options.recovery_points {
            let request = self.request();
            Holding::begin_flow(&self.shared, ticket, &request, None).await
        } else {
            Holding::claim(&self.shared, ticket).await
        };
        match claimed {
            Ok((holding, inserted)) => {
                self.holding = holding;
                Some(Input::Inserted(Ok(inserted)))
            }
            Err(failure) if failure.is_conflict && self.may_run_again() => None,
            Err(failure) => Some(Input::Inserted(Err(failure.error))),
        }
    }

    /// What the completer needs to go on with this request.
    fn request(&self) -> Vec<u8> {
        complete::encode(
            &self.parts,
            &self.content,
            self.asked.scope,
            &self.shared.policy,
        )
    }

    async fn take_over(&mut self, ticket: &Ticket, expected: ClaimId) -> Next {
        let taken = if self.shared.options.recovery_points {
            let request = self.request();
            Holding::begin_flow(&self.shared, ticket, &request, Some(expected))
                .await
                .map(|(holding, inserted)| match inserted {
                    Insert::Claimed { now } => (holding, Write::Applied { now }),
                    Insert::Occupied { .. } => (None, Write::Stale),
                })
        } else {
            Holding::take_over(&self.shared, ticket, expected).await
        };
        match taken {
            Ok((holding, written)) => {
                self.holding = holding;
                Some(Input::Written(Ok(written)))
            }
            Err(failure) if failure.is_conflict && self.may_run_again() => None,
            Err(failure) => Some(Input::Written(Err(failure.error))),
        }
    }

    /// Waits for the first attempt. A client that leaves waits no longer.
    async fn wait(&mut self, key: RecordKey, up_to: Duration) -> Input {
        let Some(reply_to) = self.reply_to.as_mut() else {
            return Input::WaitRefused;
        };
        tokio::select! {
            biased;
            waited = self.shared.flights.wait(key, up_to) => match waited {
                Ok(()) => Input::Waited,
                Err(_) => Input::WaitRefused,
            },
            () = reply_to.closed() => Input::WaitRefused,
        }
    }

    /// The request as the handler gets it, and where it finds its transaction.
    fn prepare(&mut self, attempt: u32) -> (Request<Body>, Option<Slot<DB>>) {
        let transaction = self.holding.as_mut().and_then(Holding::lend);
        let mut request = Request::from_parts(self.parts.clone(), Body::from(self.content.clone()));
        // One or the other: a request that goes through recovery points has no transaction.
        let slot = transaction.map(Slot::new);
        match &slot {
            Some(slot) => {
                request.extensions_mut().insert(slot.clone());
            }
            None => {
                let steps = Steps::new(Arc::clone(&self.shared), self.asked.key);
                request.extensions_mut().insert(steps);
            }
        }
        let headers = request.headers_mut();
        headers.insert(settle::HAPAX_ATTEMPT, HeaderValue::from(attempt));
        if !self.is_observing() {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        (request, slot)
    }

    /// Runs the handler in the transaction and takes that back (P37).
    async fn execute(&mut self, attempt: u32) -> Next {
        let (request, slot) = self.prepare(attempt);
        let policy = Arc::clone(&self.shared.policy);
        let began = Instant::now();
        self.shared.observer.observe(&Event::Forwarded {
            record: self.asked.key,
            attempt,
        });
        let running = execution::run(
            self.inner.clone(),
            request,
            policy.max_stored_response,
            policy.upstream_timeout,
        );
        let ended = running.await;
        self.note_end(&ended, began.elapsed());
        if let Some(slot) = &slot {
            let Some(transaction) = slot.close() else {
                return self.roll_back(kept_problem(), Outcome::UpstreamError).await;
            };
            if let Some(holding) = self.holding.as_mut() {
                holding.take_back(transaction);
            }
        }
        let Ended::Answered {
            mut parts,
            content,
            rest,
        } = ended
        else {
            return self
                .roll_back(failed_problem(&ended), Outcome::UpstreamError)
                .await;
        };
        match parts.extensions.get::<Failed>() {
            Some(Failed(FailureKind::Conflict)) => return self.conflicted().await,
            // The handler's word for it is not known to hold: a step may be committed.
            Some(_) if self.shared.options.recovery_points => {
                return self
                    .roll_back(stopped_problem(), Outcome::UpstreamError)
                    .await;
            }
            _ => {}
        }
        let said = settle::take_settlement(parts.status, &mut parts.headers).in_transaction();
        let is_rolled_back = slot.as_ref().is_some_and(Slot::is_rolled_back);
        let settlement = self.settlement(said, is_rolled_back).await;
        settle::strip_ours(&mut parts.headers);
        let answer = UpstreamAnswer {
            status: parts.status,
            settlement,
            headers: settle::stored_headers(&parts.headers),
            content: if self.is_observing() {
                Content::Withheld
            } else {
                kept(&parts, &content, rest.as_ref())
            },
        };
        let body = execution::body(content, rest);
        self.answer = Some(Response::from_parts(*parts, body));
        Some(Input::Answered(answer))
    }

    /// On a route that only observes, what enforcing would have stopped: it runs in a transaction
    /// without a record, as if it had no key.
    async fn execute_unrecorded(&mut self) -> Input {
        let (inner, mut parts) = (self.inner.clone(), self.parts.clone());
        let attempt = HeaderValue::from(1);
        parts.headers.insert(settle::HAPAX_ATTEMPT, attempt);
        let began = Instant::now();
        let content = Body::from(self.content.clone());
        let mut response = unkeyed::run(&self.shared, inner, parts, content).await;
        self.handler_took = Some(began.elapsed());
        settle::strip_ours(response.headers_mut());
        let status = response.status();
        self.answer = Some(response);
        Input::Answered(UpstreamAnswer {
            status,
            settlement: Settlement::Release,
            headers: HeaderMap::new(),
            content: Content::Withheld,
        })
    }

    fn is_observing(&self) -> bool {
        self.shared.policy.mode == Mode::Observe
    }

    fn note_end(&mut self, ended: &Ended, took: Duration) {
        self.handler_took = Some(took);
        let status = match ended {
            Ended::Answered { parts, .. } => Some(parts.status),
            Ended::Failed | Ended::TimedOut => None,
        };
        self.shared.observer.observe(&Event::UpstreamCalled {
            record: self.asked.key,
            route: &self.shared.route,
            status,
            took,
        });
    }

    /// What an answer means here, beyond what it means everywhere.
    async fn settlement(&mut self, said: Settlement, is_rolled_back: bool) -> Settlement {
        let is_forgotten = self.shared.options.rejections == Rejections::Forget;
        match said {
            _ if is_rolled_back => Settlement::Release,
            // A step that is committed stays, so that no other payload may have the key.
            Settlement::Reject if self.has_steps().await => Settlement::Complete,
            Settlement::Reject if is_forgotten => Settlement::Release,
            said => said,
        }
    }

    async fn has_steps(&mut self) -> bool {
        if !self.shared.options.recovery_points {
            return false;
        }
        // Not known: then it is treated as if there were one, which is the safe side.
        let found = Holding::has_steps(&self.shared, &self.asked.key).await;
        found.unwrap_or(true)
    }

    /// Stores the answer and commits: the one moment at which the operation has happened.
    async fn settle(&mut self, ticket: &Ticket, record: &hapax_core::record::Record) -> Next {
        let Some(holding) = self.holding.take() else {
            return self.roll_back(kept_problem(), Outcome::StoreError).await;
        };
        let settled = if self.shared.options.recovery_points {
            holding.settle_flow(&self.shared, &ticket.key, record).await
        } else {
            holding.settle(&self.shared, &ticket.key, record).await
        };
        self.settled(settled).await
    }

    /// Takes back what the handler wrote, and remembers that it refused.
    async fn settle_rejection(
        &mut self,
        ticket: &Ticket,
        record: &hapax_core::record::Record,
    ) -> Next {
        let Some(holding) = self.holding.take() else {
            return self.roll_back(kept_problem(), Outcome::StoreError).await;
        };
        let settled = if self.shared.options.recovery_points {
            holding.settle_flow(&self.shared, &ticket.key, record).await
        } else {
            holding.settle_anew(&self.shared, ticket, record).await
        };
        self.settled(settled).await
    }

    async fn settled(&mut self, settled: Settled) -> Next {
        match settled {
            Settled::Written(write) => Some(Input::Written(Ok(write))),
            Settled::Conflict => self.conflicted().await,
            Settled::RolledBack => {
                let detail = "The database did not commit. Nothing has happened.";
                let problem = Problem::new(ProblemKind::StoreUnavailable, detail);
                self.roll_back(problem, Outcome::StoreError).await
            }
            Settled::Lost => {
                let detail = "The database was lost during the commit. Send this request again \
                              with the same key: that finds out, and runs nothing twice.";
                let problem = Problem::new(ProblemKind::OutcomeUnknown, detail).retryable();
                self.roll_back(problem, Outcome::Unknown).await
            }
        }
    }

    fn may_run_again(&self) -> bool {
        self.runs < self.shared.options.max_runs
    }

    /// The database rolled back: once more from the start, or 503 with the key vacant.
    async fn conflicted(&mut self) -> Next {
        self.answer = None;
        if self.may_run_again() {
            return None;
        }
        let detail = "The operation conflicts with others under way. Nothing has happened.";
        let problem = Problem::new(ProblemKind::StoreUnavailable, detail);
        self.roll_back(problem, Outcome::StoreError).await
    }

    async fn roll_back(&mut self, problem: Problem, outcome: Outcome) -> Next {
        Some(self.rolled_back(problem, outcome).await)
    }

    async fn rolled_back(&mut self, problem: Problem, outcome: Outcome) -> Input {
        self.answer = None;
        self.give_back().await;
        if self.shared.options.recovery_points {
            // Steps that are committed stay, and so may what was called outside.
            let (problem, outcome) = (stopped_problem(), Outcome::Unknown);
            return Input::RolledBack { problem, outcome };
        }
        Input::RolledBack { problem, outcome }
    }

    /// Rolls back what is not committed and lets the key go.
    async fn give_back(&mut self) -> hapax_core::time::Timestamp {
        match self.holding.take() {
            Some(holding) => holding.roll_back(&self.shared).await,
            None => hapax_core::time::Timestamp::default(),
        }
    }

    fn reply(&mut self, mut reply: Reply) {
        let mut response = self.response_for(&mut reply);
        settle::annotate(
            response.headers_mut(),
            &self.asked.key_as_received,
            reply.status,
            reply.expires,
        );
        self.send(response, reply.outcome, reply.attempt, reply.age);
    }

    fn response_for(&mut self, reply: &mut Reply) -> Response<Body> {
        let made = match &reply.content {
            ReplyContent::Upstream => match self.answer.take() {
                Some(answer) => return answer,
                // Said only after an answer.
                None => kept_problem().response(),
            },
            ReplyContent::Stored(stored) => match settle::replay(stored, &self.parts.headers) {
                Ok(response) => response,
                Err(problem) => {
                    reply.status = None;
                    problem.response()
                }
            },
            ReplyContent::Problem(problem) => problem.response(),
            ReplyContent::Mismatch { first } => {
                let subject = Subject {
                    method: &self.parts.method,
                    target: target_of(&self.parts),
                    headers: &self.parts.headers,
                    content: &self.content,
                };
                let keys = &self.shared.records.keys;
                mismatch(first, keys, &self.shared.policy, Some(&subject)).response()
            }
        };
        made.map(Body::from)
    }

    fn send(
        &mut self,
        response: Response<Body>,
        outcome: Outcome,
        attempt: Option<u32>,
        age: Option<Duration>,
    ) {
        let trace_id = self.asked.trace.as_deref();
        self.shared.observer.observe(&Event::Answered(Answered {
            route: &self.shared.route,
            method: &self.parts.method,
            status: response.status(),
            outcome,
            record: Some(self.asked.key),
            attempt,
            age,
            upstream: self.handler_took,
            total: self.started.elapsed(),
            trace_id: trace_id.and_then(|trace| trace.split('-').nth(1)),
            spans: None,
        }));
        if let Some(to) = self.reply_to.take()
            && to.send(response).is_err()
        {
            let record = self.asked.key;
            self.shared.observer.observe(&Event::ClientGone { record });
        }
    }

    /// A ticket with fresh claim ids; `None` when the system has no random numbers.
    fn ticket(&self) -> Option<Ticket> {
        let mut both = [[0; 16]; 2];
        getrandom::fill(both.as_flattened_mut()).ok()?;
        let [claim, seal] = both;
        Some(Ticket {
            key: self.asked.key,
            scope: self.asked.scope,
            fingerprint: self.asked.fingerprint.clone(),
            policy: Arc::clone(&self.shared.policy),
            route: Arc::clone(&self.shared.route),
            claim: ClaimId::from_bytes(claim),
            seal: ClaimId::from_bytes(seal),
            trace: self.asked.trace.clone(),
            asked_by: None,
        })
    }
}
