//! A request's way in: which are keyed, what is refused before the database is asked, and the
//! start of the attempt's own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tower_service::Service;

use hapax_core::event::{Answered, Event, Outcome};
use hapax_core::fingerprint::{Fingerprint, Subject};
use hapax_core::identify::{Carried, Params, find_key, needs_body};
use hapax_core::key::RecordKey;
use hapax_core::policy::{Mode, Policy};
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::refusal::{Refusal, judge_head, without_key};
use hapax_core::scope::ScopeId;
use hapax_core::settle;

use crate::Dialect;
use crate::digest;
use crate::drive::{Asked, Drive};
use crate::execution::{self, BoxError, read};
use crate::layer::Shared;
use crate::path;
use crate::unkeyed;

/// The service made by [`TransactionLayer`](crate::TransactionLayer).
pub struct TransactionService<DB: Dialect, I> {
    shared: Arc<Shared<DB>>,
    inner: I,
}

impl<DB: Dialect, I> TransactionService<DB, I> {
    pub(crate) fn new(shared: Arc<Shared<DB>>, inner: I) -> Self {
        Self { shared, inner }
    }
}

impl<DB: Dialect, I: Clone> Clone for TransactionService<DB, I> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<DB: Dialect, I> std::fmt::Debug for TransactionService<DB, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransactionService(..)")
    }
}

impl<DB, I> Service<Request<Body>> for TransactionService<DB, I>
where
    DB: Dialect,
    I: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
{
    type Response = Response<Body>;
    type Error = I::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, I::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Only hapax says these; a client that sends them would speak for it.
        request.headers_mut().remove(settle::HAPAX_ATTEMPT);
        request.headers_mut().remove(settle::HAPAX_OUTCOME);
        // The clone takes the place of the instance that is ready, as tower asks.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if !self.shared.policy.covers(request.method()) {
            return Box::pin(inner.call(request));
        }
        let arrival = Arrival {
            shared: Arc::clone(&self.shared),
            inner,
            started: Instant::now(),
        };
        let (parts, body) = request.into_parts();
        Box::pin(async move { Ok(arrival.admit(parts, body).await) })
    }
}

/// A request that has arrived, until it is refused or made an attempt.
struct Arrival<DB: Dialect, I> {
    shared: Arc<Shared<DB>>,
    inner: I,
    started: Instant,
}

impl<DB, I> Arrival<DB, I>
where
    DB: Dialect,
    I: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
{
    async fn admit(self, mut parts: Parts, body: Body) -> Response<Body> {
        let method = parts.method.clone();
        match self.judge(&mut parts, body).await {
            Ok((Some((carried, scope)), content, place)) => {
                self.attempt(parts, content, &carried, scope, place).await
            }
            Ok((None, content, place)) => {
                let body = Body::from(content);
                self.run_unkeyed(parts, body, Some(place), Outcome::Unkeyed)
                    .await
            }
            Err(refused) => match *refused {
                // A route that only observes says so and goes on; only what did not arrive in full is
                // refused all the same.
                (refused, Some(body)) if self.shared.policy.mode == Mode::Observe => {
                    let (route, outcome) = (&*self.shared.route, refused.outcome);
                    let observer = &self.shared.observer;
                    observer.observe(&Event::WouldHave { route, outcome });
                    self.run_unkeyed(parts, body, None, Outcome::Observed).await
                }
                (refused, _) => self.refuse(&refused, &method),
            },
        }
    }

    /// The fixed order (section C): limits, key, scope, content.
    async fn judge(&self, parts: &mut Parts, body: Body) -> Result<Judged, Box<Refused>> {
        let shared = &self.shared;
        let policy = &shared.policy;
        let head = self.judge_head(parts).await;
        let (params, carried, scope, place) = match head {
            Ok(head) => head,
            Err(refused) => return Err(Box::new((refused, Some(body)))),
        };
        let reading = read(body, policy.max_body);
        let content = match timeout(shared.options.body_timeout, reading).await {
            Ok(Some((content, None))) => content,
            Ok(Some((content, rest))) => {
                let body = execution::body(content, rest);
                return Err(Box::new((Refusal::too_large(policy.max_body), Some(body))));
            }
            Ok(None) => return Err(Box::new((Refusal::cut_short(), None))),
            Err(_) => return Err(Box::new((Refusal::too_slow(), None))),
        };
        match judge_content(policy, &params, parts, &content, carried) {
            Ok(carried) => Ok((carried.map(|carried| (carried, scope)), content, place)),
            Err(refused) => Err(Box::new((refused, Some(Body::from(content))))),
        }
    }

    async fn judge_head(&self, parts: &mut Parts) -> Result<Head, Refusal> {
        let shared = &self.shared;
        let policy = &shared.policy;
        let params = path::params(policy, parts).await?;
        let carried = find_key(policy, &params, parts, None);
        if matches!(carried, Ok(None)) && !needs_body(policy) {
            no_key(policy, &params)?;
        }
        let (carried, scope) = judge_head(&shared.records.keys, policy, parts, carried)?;
        let place = Arc::clone(&shared.places).try_acquire_owned();
        let place = place.map_err(|_| Refusal::overloaded())?;
        Ok((params, carried, scope.id, place))
    }

    fn refuse(&self, refused: &Refusal, method: &Method) -> Response<Body> {
        let response = refused.problem.response().map(Body::from);
        self.tell_answered(method, response.status(), refused.outcome);
        response
    }

    /// Starts the attempt in a task of its own and waits for its answer (P18).
    async fn attempt(
        self,
        parts: Parts,
        content: Bytes,
        carried: &Carried,
        scope: ScopeId,
        place: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let shared = Arc::clone(&self.shared);
        let (keys, policy) = (&shared.records.keys, &shared.policy);
        let subject = Subject {
            method: &parts.method,
            target: target_of(&parts),
            headers: &parts.headers,
            content: &content,
        };
        let asked = Asked {
            key: RecordKey::new(keys, &shared.realm(), scope, &carried.key),
            scope,
            fingerprint: Fingerprint::of(keys, policy, &subject),
            key_as_received: carried.as_received.clone(),
            trace: trace_of(&parts),
        };
        let method = parts.method.clone();
        let (reply_to, answer) = oneshot::channel();
        let inner = self.inner.clone();
        let started = self.started;
        let drive = Drive::new(Arc::clone(&shared), inner, parts, content, asked, started);
        tokio::spawn(drive.run(reply_to, place));
        answer.await.unwrap_or_else(|_| self.lost(&method))
    }

    /// A request that is not keyed: in a transaction, and detached, all the same.
    async fn run_unkeyed(
        self,
        parts: Parts,
        body: Body,
        place: Option<OwnedSemaphorePermit>,
        outcome: Outcome,
    ) -> Response<Body> {
        let method = parts.method.clone();
        let (shared, inner) = (Arc::clone(&self.shared), self.inner.clone());
        let running = tokio::spawn(async move {
            let response = unkeyed::run(&shared, inner, parts, body).await;
            drop(place);
            response
        });
        match running.await {
            Ok(response) => {
                self.tell_answered(&method, response.status(), outcome);
                response
            }
            Err(_) => self.lost(&method),
        }
    }

    /// The task ended without an answer, which it does only by a defect or at the runtime's
    /// shutdown. A repeat finds out.
    fn lost(&self, method: &Method) -> Response<Body> {
        let detail = "The outcome of the operation is not known.";
        let refused = Refusal {
            problem: Problem::new(ProblemKind::OutcomeUnknown, detail),
            outcome: Outcome::Unknown,
        };
        self.refuse(&refused, method)
    }

    fn tell_answered(&self, method: &Method, status: StatusCode, outcome: Outcome) {
        self.shared.observer.observe(&Event::Answered(Answered {
            route: &self.shared.route,
            method,
            status,
            outcome,
            record: None,
            attempt: None,
            age: None,
            upstream: None,
            total: self.started.elapsed(),
            trace_id: None,
            spans: None,
        }));
    }
}

/// Key and scope, where there is a key; the content; a place among the requests under way.
type Judged = (Option<(Carried, ScopeId)>, Bytes, OwnedSemaphorePermit);

/// What the head says: parameters of the path, key, scope, and a place among the requests under way.
type Head = (
    Vec<(Arc<str>, String)>,
    Option<Carried>,
    ScopeId,
    OwnedSemaphorePermit,
);

/// A refusal, and the content as far as it can still be had.
type Refused = (Refusal, Option<Body>);

/// The key, once the content is there; an error where there has to be one, or the content is not
/// what it says.
fn judge_content(
    policy: &Policy,
    params: &Params,
    parts: &Parts,
    content: &Bytes,
    carried: Option<Carried>,
) -> Result<Option<Carried>, Refusal> {
    let carried = match carried {
        Some(carried) if !needs_body(policy) => Some(carried),
        _ => find_key(policy, params, parts, Some(content)).map_err(Refusal::invalid_key)?,
    };
    if carried.is_none() {
        no_key(policy, params)?;
    } else if !digest::content_matches(&parts.headers, content) {
        return Err(Refusal::other_digest());
    }
    Ok(carried)
}

/// Whether a request may do without a key.
fn no_key(policy: &Policy, params: &Params) -> Result<(), Refusal> {
    let refused = path::not_routed(policy, params).or_else(|| without_key(policy));
    refused.map_or(Ok(()), Err)
}

/// A request's target as received, with its query.
pub(crate) fn target_of(parts: &Parts) -> &str {
    parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
}

fn trace_of(parts: &Parts) -> Option<Arc<str>> {
    let value = parts.headers.get("traceparent")?.to_str().ok()?;
    (value.len() <= 64).then(|| value.into())
}
