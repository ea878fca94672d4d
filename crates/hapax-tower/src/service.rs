//! A request's way in: which are keyed, what is refused before the store is touched, and the
//! start of the attempt's own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use hapax_core::attempt::{Attempt, Ticket};
use hapax_core::event::{Answered, Event, Observer, Outcome};
use hapax_core::fingerprint::{Fingerprint, Subject};
use hapax_core::identify::{Carried, find_key, needs_body};
use hapax_core::key::{KeyError, RecordKey, derived_upstream_key};
use hapax_core::policy::{KeySource, Mode, UpstreamKey};
use hapax_core::probe::Values;
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::record::ClaimId;
use hapax_core::refusal::{Refusal, judge_head, without_key};
use hapax_core::scope::{Scope, ScopeId};
use hapax_core::settle;
use hapax_core::store::Store;
use hapax_core::trace::{ID_BYTES, Spans, Work};

use crate::body::{BoxError, Read, RequestBody, ResponseBody, read_bounded};
use crate::digest;
use crate::drive::{Asked, Drive, trace_id};
use crate::exchange::problem_of;
use crate::layer::{RandomNumbers, Routed, Shared};
use crate::places::Place;
use crate::quotas::Charge;

/// The service made by [`HapaxLayer`](crate::HapaxLayer).
pub struct HapaxService<S, I> {
    shared: Arc<Shared<S>>,
    inner: I,
}

impl<S, I> HapaxService<S, I> {
    pub(crate) fn new(shared: Arc<Shared<S>>, inner: I) -> Self {
        Self { shared, inner }
    }
}

impl<S, I: Clone> Clone for HapaxService<S, I> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<S, I: std::fmt::Debug> std::fmt::Debug for HapaxService<S, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HapaxService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, I, B, R> Service<Request<B>> for HapaxService<S, I>
where
    S: Store,
    I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    I::Error: Into<BoxError> + Send,
    I::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone takes the place of the instance that is ready, as tower asks.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let shared = Arc::clone(&self.shared);
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let spans = spans_of(&mut parts.headers, &*shared.observer);
        let routed = shared.routing.route(&parts.method, parts.uri.path());
        let arrival = Arrival {
            shared,
            routed,
            inner,
            started,
            spans,
        };
        // Each way has a box of its own size: what is passed through does not need the room that an attempt takes.
        let policy = &arrival.routed.policy;
        if !policy.covers(&parts.method) {
            let request = Request::from_parts(parts, RequestBody::Streaming { inner: body });
            return Box::pin(arrival.pass_through(request, Outcome::Unkeyed));
        }
        let carried = find_key(policy, &arrival.routed.params, &parts, None);
        if !matches!(carried, Ok(None)) || needs_body(policy) {
            return Box::pin(arrival.admit(Box::new(parts), body, carried));
        }
        let refused = without_key(policy);
        let request = Request::from_parts(parts, RequestBody::Streaming { inner: body });
        match refused {
            Some(refused) => Box::pin(arrival.refuse(refused, request)),
            None => Box::pin(arrival.pass_through(request, Outcome::Unkeyed)),
        }
    }
}

/// Where an attempt's answer comes.
type Answer<R> = oneshot::Receiver<Response<ResponseBody<R>>>;
/// What is answered when no attempt can start.
type Refused<R> = Box<Response<ResponseBody<R>>>;

/// A request that has arrived, until it is passed through, refused or made an attempt.
struct Arrival<S, I> {
    shared: Arc<Shared<S>>,
    routed: Routed,
    inner: I,
    started: Instant,
    spans: Option<Box<Spans>>,
}

impl<S, I> Arrival<S, I>
where
    S: Store,
{
    /// The fixed order (section C): limits, key, scope, content, fingerprint, record.
    async fn admit<B, R>(
        self,
        parts: Box<Parts>,
        body: B,
        carried: Result<Option<Carried>, KeyError>,
    ) -> Result<Response<ResponseBody<R>>, BoxError>
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        I::Error: Into<BoxError> + Send,
        I::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + Unpin + 'static,
        R::Error: Into<BoxError>,
    {
        let may_be_in_body = needs_body(&self.routed.policy);
        let judged = self.judge_head(&parts, carried);
        let (carried, scope, place) = match judged {
            Ok(judged) => judged,
            Err(refused) => {
                let body = RequestBody::Streaming { inner: body };
                let request = Request::from_parts(*parts, body);
                return Box::pin(self.refuse(refused, request)).await;
            }
        };
        let limit = self.routed.policy.max_body;
        let content = match read(body, limit, self.shared.options.body_timeout).await {
            Ok(Read::Whole(content)) => content,
            Ok(Read::Over(read, rest)) => {
                let request = RequestBody::Buffered {
                    read: Some(read),
                    rest: Some(rest),
                };
                let refused = Refusal::too_large(limit);
                let request = Request::from_parts(*parts, request);
                return Box::pin(self.refuse(refused, request)).await;
            }
            Err(refused) => return Ok(self.answer(&refused, &parts.method)),
        };
        let carried = match carried {
            Some(carried) if !may_be_in_body => Ok(Some(carried)),
            _ => find_key(
                &self.routed.policy,
                &self.routed.params,
                &parts,
                Some(&content),
            ),
        };
        let request =
            |parts: Box<Parts>| Request::from_parts(*parts, RequestBody::full(content.clone()));
        let carried = match carried.map_err(Refusal::invalid_key) {
            Err(refused) => return Box::pin(self.refuse(refused, request(parts))).await,
            Ok(Some(carried)) => carried,
            Ok(None) => {
                return match without_key(&self.routed.policy) {
                    Some(refused) => Box::pin(self.refuse(refused, request(parts))).await,
                    None => Box::pin(self.pass_through(request(parts), Outcome::Unkeyed)).await,
                };
            }
        };
        if !digest::content_matches(&parts.headers, &content) {
            return Box::pin(self.refuse(Refusal::other_digest(), request(parts))).await;
        }
        let method = parts.method.clone();
        let attempt = self.attempt(parts, content, carried, scope, place);
        let (arrival, answer) = match attempt {
            Ok(started) => started,
            Err(refused) => return Ok(*refused),
        };
        Ok(answer
            .await
            .unwrap_or_else(|_| arrival.answer(&without_answer(), &method)))
    }

    /// What can be judged before the content is there.
    fn judge_head(
        &self,
        parts: &Parts,
        carried: Result<Option<Carried>, KeyError>,
    ) -> Result<(Option<Carried>, Scope, Place), Refusal> {
        let policy = &self.routed.policy;
        let (carried, scope) = judge_head(&self.shared.keys, policy, parts, carried)?;
        let place = self.shared.places.take(scope.id);
        let place = place.ok_or_else(Refusal::overloaded)?;
        Ok((carried, scope, place))
    }

    /// Answers a refusal; on a route that only observes, says so and passes the request through.
    async fn refuse<B, R>(
        self,
        refused: Refusal,
        request: Request<RequestBody<B>>,
    ) -> Result<Response<ResponseBody<R>>, BoxError>
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>>,
        I::Error: Into<BoxError>,
    {
        if self.routed.policy.mode == Mode::Observe {
            let (route, outcome) = (&*self.routed.name, refused.outcome);
            self.shared
                .observer
                .observe(&Event::WouldHave { route, outcome });
            return self.pass_through(request, Outcome::Observed).await;
        }
        Ok(self.answer(&refused, request.method()))
    }

    fn answer<R>(&self, refused: &Refusal, method: &Method) -> Response<ResponseBody<R>> {
        let response = refused.problem.response().map(ResponseBody::full);
        self.tell_answered(method, response.status(), refused.outcome, None);
        response
    }

    /// Sends a request on without protection (P1, P3).
    async fn pass_through<B, R>(
        mut self,
        mut request: Request<RequestBody<B>>,
        outcome: Outcome,
    ) -> Result<Response<ResponseBody<R>>, BoxError>
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>>,
        I::Error: Into<BoxError>,
    {
        let method = request.method().clone();
        // Only hapax says these; a client that sends them would speak for it.
        request.headers_mut().remove(settle::HAPAX_ATTEMPT);
        request.headers_mut().remove(settle::HAPAX_OUTCOME);
        let asked_for = self.key_fields_of_preflight(&request);
        if let Some(spans) = &self.spans {
            spans.hand_on(request.headers_mut());
        }
        let sent_at = self.started.elapsed();
        let trace = trace_of(request.headers());
        let trace = trace.as_deref().and_then(trace_id);
        let answered = self.inner.call(request).await;
        if let Some(spans) = self.spans.as_mut() {
            spans.tell(Work::Upstream, sent_at, self.started.elapsed());
        }
        match answered {
            Ok(mut response) => {
                // A word to hapax, not to the client.
                response.headers_mut().remove(settle::HAPAX_OUTCOME);
                for name in asked_for {
                    allow_field(response.headers_mut(), name);
                }
                self.tell_answered(&method, response.status(), outcome, trace);
                Ok(response.map(|inner| ResponseBody::Streaming { inner }))
            }
            Err(error) => {
                let error = error.into();
                let status = problem_of(&error, &method).kind.status();
                self.tell_answered(&method, status, Outcome::UpstreamError, trace);
                Err(error)
            }
        }
    }

    /// For a CORS preflight: the fields it asks for in which the route of the request to come looks for its key (P29).
    fn key_fields_of_preflight<B>(&self, request: &Request<B>) -> Vec<HeaderName> {
        let headers = request.headers();
        let announced = headers
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .filter(|_| *request.method() == Method::OPTIONS)
            .and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let Some(method) = announced else {
            return Vec::new();
        };
        let policy = self
            .shared
            .routing
            .route(&method, request.uri().path())
            .policy;
        let sources = policy.key_from.iter().filter(|_| policy.covers(&method));
        let named = sources.filter_map(|source| match source {
            KeySource::Header(name) => Some(name),
            KeySource::Path(_) | KeySource::Json(_) | KeySource::Query(_) => None,
        });
        named
            .filter(|name| is_named(headers, ACCESS_CONTROL_REQUEST_HEADERS, name))
            .cloned()
            .collect()
    }

    /// Starts the attempt in a task of its own (P18); where its answer comes, or why it did not start.
    fn attempt<B, R>(
        mut self,
        parts: Box<Parts>,
        content: Bytes,
        carried: Carried,
        scope: Scope,
        place: Place,
    ) -> Result<(Self, Answer<R>), Refused<R>>
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        I::Error: Into<BoxError> + Send,
        I::Future: Send,
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + Unpin + 'static,
        R::Error: Into<BoxError>,
    {
        let method = parts.method.clone();
        let Some((claim, seal)) = claim_ids(self.shared.options.random) else {
            let refused = self.answer(&Refusal::no_random_numbers(), &method);
            return Err(Box::new(refused));
        };
        let ticket = self.ticket(&parts, &content, &carried, scope.id, (claim, seal));
        let asked = self.asked(&parts, &content, carried, scope.id);
        let ticket = Ticket {
            asked_by: self.asked_by(&asked, &scope).map(Arc::new),
            ..ticket
        };
        let request = Request::from_parts(*parts, RequestBody::full(content));
        let (reply_to, answer) = oneshot::channel();
        let drive = Drive {
            shared: Arc::clone(&self.shared),
            routed: self.routed.clone(),
            inner: Some(self.inner.clone()),
            request: Ok(Box::new(request)),
            asked,
            key: ticket.key,
            started: self.started,
            spans: self.spans.take(),
            reply_to: Some(reply_to),
            call: None,
            answer: None,
            heartbeat: None,
            next_heartbeat: None,
            times_out_at: None,
            has_timed_out: false,
            under_way: None,
            asking: None,
            dispatched_at: None,
            upstream_took: None,
            looks: 0,
            charge: Charge::default(),
            _place: place,
        };
        tokio::spawn(Box::new(drive).run(Box::new(Attempt::new(ticket))));
        Ok((self, answer))
    }

    fn ticket(
        &self,
        parts: &Parts,
        content: &Bytes,
        carried: &Carried,
        scope: ScopeId,
        (claim, seal): (ClaimId, ClaimId),
    ) -> Ticket {
        let policy = Arc::clone(&self.routed.policy);
        let keys = &self.shared.keys;
        let subject = Subject {
            method: &parts.method,
            target: target_of(&parts.uri),
            headers: &parts.headers,
            content,
        };
        Ticket {
            key: RecordKey::new(keys, &self.realm(), scope, &carried.key),
            scope,
            fingerprint: Fingerprint::of(keys, &policy, &subject),
            policy,
            route: Arc::clone(&self.routed.name),
            claim,
            seal,
            trace: trace_of(&parts.headers).map(Into::into),
            asked_by: None,
        }
    }

    fn asked(&self, parts: &Parts, content: &Bytes, carried: Carried, scope: ScopeId) -> Asked {
        let policy = &self.routed.policy;
        let derived = (policy.upstream_key == UpstreamKey::Derive).then(|| {
            let keys = &self.shared.keys;
            derived_upstream_key(keys, &self.realm(), scope, &carried.key)
        });
        let values = policy.probe().map(|_| Values {
            key: derived
                .clone()
                .unwrap_or_else(|| carried.key.as_str().to_owned()),
            params: self
                .routed
                .params
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
        });
        let quoted = |derived: String| HeaderValue::from_str(&format!("\"{derived}\"")).ok();
        Asked {
            method: parts.method.clone(),
            content: content.clone(),
            key_as_received: carried.as_received,
            derived_key: derived.and_then(quoted),
            values,
        }
    }

    /// What the background may ask with. Credentials are never stored, so it has none: where callers are told apart by them
    /// and the upstream by the caller's key alone, it could be told of somebody else's operation, and must not ask.
    fn asked_by(&self, asked: &Asked, scope: &Scope) -> Option<Values> {
        let policy = &self.routed.policy;
        let is_public = scope.is_anonymous || policy.scope.is_empty();
        let may_ask = is_public || policy.upstream_key == UpstreamKey::Derive;
        asked.values.clone().filter(|_| may_ask)
    }

    /// Observed records are kept apart: what was only watched must not answer for a route that
    /// is switched to enforcing later.
    fn realm(&self) -> std::borrow::Cow<'_, str> {
        let realm = &self.shared.options.realm;
        match self.routed.policy.mode {
            Mode::Observe => format!("observed {realm}").into(),
            Mode::Off | Mode::Enforce => realm.into(),
        }
    }

    fn tell_answered(
        &self,
        method: &Method,
        status: StatusCode,
        outcome: Outcome,
        trace_id: Option<&str>,
    ) {
        self.shared.observer.observe(&Event::Answered(Answered {
            route: &self.routed.name,
            method,
            status,
            outcome,
            record: None,
            attempt: None,
            age: None,
            upstream: None,
            total: self.started.elapsed(),
            trace_id,
            spans: self.spans.as_deref(),
        }));
    }
}

/// What is known when an attempt's task ended without an answer, which it does only by a defect or at the runtime's
/// shutdown: nothing.
fn without_answer() -> Refusal {
    let detail = "The outcome of the operation is not known.";
    Refusal {
        problem: Problem::new(ProblemKind::OutcomeUnknown, detail),
        outcome: Outcome::Unknown,
    }
}

/// P20: a content that does not arrive in full never reaches the upstream nor uses the key.
async fn read<B>(body: B, limit: usize, patience: Duration) -> Result<Read<B>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let reading = read_bounded(body, limit);
    match timeout(patience, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(_)) => Err(Refusal::cut_short()),
        Err(_) => Err(Refusal::too_slow()),
    }
}

/// A request's target as received, with its query.
pub(crate) fn target_of(uri: &Uri) -> &str {
    uri.path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

fn trace_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(TRACEPARENT)?.to_str().ok()?;
    (value.len() <= 64).then(|| value.to_owned())
}

/// The request's spans, when somebody wants them and there are ids for them.
fn spans_of(headers: &mut HeaderMap, observer: &dyn Observer) -> Option<Box<Spans>> {
    if !observer.wants_spans() {
        return None;
    }
    let mut random = [0; ID_BYTES];
    getrandom::fill(&mut random).ok()?;
    Some(Spans::begin(headers, random))
}

pub(crate) fn claim_ids(random: RandomNumbers) -> Option<(ClaimId, ClaimId)> {
    // Both by one system call.
    let mut both = [[0; 16]; 2];
    random(both.as_flattened_mut())?;
    let [claim, seal] = both;
    Some((ClaimId::from_bytes(claim), ClaimId::from_bytes(seal)))
}

/// Allows a field where the upstream allows the origin.
fn allow_field(headers: &mut HeaderMap, name: HeaderName) {
    let is_allowed = is_named(headers, ACCESS_CONTROL_ALLOW_HEADERS, &name);
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) && !is_allowed {
        headers.append(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from(name));
    }
}

/// Whether one of the `list` fields names `name`.
fn is_named(headers: &HeaderMap, list: HeaderName, name: &HeaderName) -> bool {
    headers
        .get_all(list)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(name.as_str()))
}
