//! The gateway's two services: [`Gateway`] faces the client, [`Forward`] the upstream; the
//! hapax layer stands between them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tower_service::Service;

use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::settle::HAPAX_ATTEMPT;
use hapax_core::store::Store;
use hapax_store::AnyStore;
use hapax_tower::{
    AnswerTimeout, BoxError, HapaxService, NotSent, RequestBody, ResponseBody, Routed, Routing,
    problem_of,
};

use super::connection::{self, Origin, Tunnel};
use super::cors::{Cors, Grant};
use super::forward::{self, UpstreamBase};
use super::forwarded::{TrustedProxies, append_forwarded};
use super::interim::Informer;
use super::refusal::{Refusal, refusal_of};
use crate::config::{RouteTable, Settings};
use crate::upstream::{Dial, PooledBody, Tcp, Upstream, UpstreamError};

/// What a reload changes: everything else needs a restart.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) settings: Settings,
    trusted: TrustedProxies,
    cors: Cors,
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Self {
        let trusted = TrustedProxies::from(settings.server.trusted_proxies.clone());
        let cors = Cors::new(&settings.cors);
        Self {
            settings,
            trusted,
            cors,
        }
    }

    pub(crate) fn routes(&self) -> &RouteTable {
        &self.settings.routes
    }
}

/// The live settings, shared.
pub(crate) type SharedLive = Arc<ArcSwap<Live>>;

/// Finds a request's route in the live settings.
#[derive(Debug, Clone)]
pub(crate) struct LiveRouting(pub(crate) SharedLive);

impl Routing for LiveRouting {
    fn route(&self, method: &Method, path: &str) -> Routed {
        let matched = self.0.load().routes().find(method, path);
        Routed {
            name: Arc::clone(&matched.route.name),
            policy: Arc::clone(&matched.route.policy),
            params: matched.params,
        }
    }
}

/// What is sent to the upstream: a client's content, as the layer hands it on.
pub(crate) type Body = RequestBody<Incoming>;
type Answer<D> = Response<ResponseBody<PooledBody<Body, D>>>;

/// Faces the client: refuses what is malformed, prepares what is forwarded, and answers in the
/// upstream's place where that failed.
pub(crate) struct Gateway<S = AnyStore, D: Dial = Tcp> {
    pub(crate) keyed: HapaxService<S, Forward<D>>,
    /// The same as the layer's inner service.
    pub(crate) forward: Forward<D>,
}

impl<S, D: Dial> Clone for Gateway<S, D> {
    fn clone(&self) -> Self {
        Self {
            keyed: self.keyed.clone(),
            forward: self.forward.clone(),
        }
    }
}

impl<S: Store, D: Dial> connection::Answer for Gateway<S, D> {
    type Body = ResponseBody<PooledBody<Body, D>>;
    type Future = Answering<D>;

    fn answer(&self, mut request: Request<Incoming>, origin: &Origin) -> Answering<D> {
        let live = self.forward.0.live.load();
        let grant = live.cors.grant(request.headers());
        drop(live);
        let answer = match self.prepare(&mut request, origin) {
            Err(problem) => Progress::Refused(Some(problem)),
            Ok(()) => Progress::Asked {
                method: request.method().clone(),
                // Ready at once: the pool is asked when the request is sent.
                answer: self.keyed.clone().call(request),
            },
        };
        Answering { grant, answer }
    }
}

type Asked<D> = Pin<Box<dyn Future<Output = Result<Answer<D>, BoxError>> + Send>>;

/// An answer under way.
pub(crate) struct Answering<D: Dial> {
    /// What pages of other origins may read of it.
    grant: Grant,
    answer: Progress<D>,
}

enum Progress<D: Dial> {
    Refused(Option<Problem>),
    Asked { method: Method, answer: Asked<D> },
}

impl<D: Dial> Future for Answering<D> {
    type Output = Result<Answer<D>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { grant, answer } = self.get_mut();
        let mut response = match answer {
            Progress::Refused(problem) => match problem.take() {
                Some(problem) => problem.response().map(full),
                // It was ready: nobody polls it again.
                None => return Poll::Pending,
            },
            Progress::Asked { method, answer } => match ready!(answer.as_mut().poll(cx)) {
                Ok(response) => response,
                Err(error) => {
                    tracing::warn!(error = %root_of(&error), "the upstream failed an unprotected request");
                    problem_of(&error, method).response().map(full)
                }
            },
        };
        grant.say(&mut response);
        Poll::Ready(Ok(response))
    }
}

impl<S, D: Dial> Gateway<S, D> {
    /// Makes a request fit to be forwarded, or says what is wrong with it.
    fn prepare(&self, request: &mut Request<Incoming>, origin: &Origin) -> Result<(), Problem> {
        let Sending { base, live, .. } = &*self.forward.0;
        if let Some(refusal) = refusal_of(request) {
            return Err(problem_for(refusal));
        }
        if *request.method() == Method::CONNECT {
            return Err(problem_for(Refusal::AuthorityForm));
        }
        let (version, uri) = (request.version(), request.uri().clone());
        let headers = request.headers_mut();
        let upgrade = headers.get(UPGRADE).cloned();
        forward::check_host(headers, &uri)
            .and_then(|()| forward::strip_request(headers))
            .map_err(|error| Problem::new(ProblemKind::RequestMalformed, error.to_string()))?;
        if let Some(upgrade) = upgrade {
            headers.insert(UPGRADE, upgrade);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        // hyper has answered 100 already where it was asked to.
        headers.remove(EXPECT);
        forward::fit_for_http1(headers, &uri, base);
        append_forwarded(headers, &live.load().trusted, origin);
        forward::append_via(headers, version);
        Ok(())
    }
}

fn problem_for(refusal: Refusal) -> Problem {
    let kind = match refusal {
        Refusal::HeadTimeout => ProblemKind::RequestTimeout,
        Refusal::HeadTooLarge | Refusal::TooManyFields => ProblemKind::HeadTooLarge,
        _ => ProblemKind::RequestMalformed,
    };
    Problem::new(kind, refusal.to_string())
}

fn full<B>(content: Bytes) -> ResponseBody<B> {
    ResponseBody::Full {
        content: Some(content),
    }
}

fn root_of(error: &BoxError) -> &(dyn std::error::Error + 'static) {
    let mut cause: &(dyn std::error::Error + 'static) = error.as_ref();
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Faces the upstream: sends a request to it and hands back its answer. Every request has a clone or two: all that they
/// share is behind one count.
pub(crate) struct Forward<D: Dial = Tcp>(Arc<Sending<D>>);

impl<D: Dial> Clone for Forward<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Sending<D: Dial> {
    upstream: Upstream<Body, D>,
    base: UpstreamBase,
    live: SharedLive,
}

impl<D: Dial> Forward<D> {
    /// Sends to `upstream`, below the path of `base`, by the settings in force.
    pub(crate) fn new(upstream: Upstream<Body, D>, base: UpstreamBase, live: SharedLive) -> Self {
        Self(Arc::new(Sending {
            upstream,
            base,
            live,
        }))
    }
}

impl<D: Dial> Service<Request<Body>> for Forward<D> {
    type Response = Response<PooledBody<Body, D>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // An attempt watches its own time and goes on after it; nobody else does.
        let patience = (!request.headers().contains_key(HAPAX_ATTEMPT))
            .then(|| self.0.live.load().settings.server.upstream_timeout);
        let until = patience.map(|patience| Instant::now() + patience);
        let sending = Arc::clone(&self.0);
        let ready = make_ready(&sending.base, Box::new(request));
        // What is done before the first wait needs no room in what waits.
        Box::pin(async move {
            let (request, client) = ready?;
            let sent = sending.upstream.send(request, until).await;
            answered(sent, client)
        })
    }
}

/// A client that asked for another protocol, and the end of its connection that it would be spoken on.
type Client = (Tunnel, hyper::upgrade::OnUpgrade);

/// Gives a request its target and its frame.
fn make_ready(
    base: &UpstreamBase,
    mut request: Box<Request<Body>>,
) -> Result<(Box<Request<Body>>, Option<Client>), BoxError> {
    let target = base
        .target(request.uri())
        .map_err(|error| not_sent(false, error))?;
    *request.uri_mut() = target;
    // A question of hapax itself has no client who named the host.
    if !request.headers().contains_key(HOST) {
        let uri = request.uri().clone();
        forward::fit_for_http1(request.headers_mut(), &uri, base);
    }
    let size = request.body().size_hint();
    forward::frame(request.headers_mut(), &size);
    if let Some(client) = request.extensions_mut().remove::<Informer>() {
        hyper::ext::on_informational(&mut request, move |interim| {
            client.tell(interim.status(), interim.headers());
        });
    }
    let tunnel = request.extensions_mut().remove::<Tunnel>();
    let client = tunnel.map(|tunnel| (tunnel, hyper::upgrade::on(&mut *request)));
    Ok((request, client))
}

fn answered<D: Dial>(
    sent: Result<Response<PooledBody<Body, D>>, UpstreamError>,
    client: Option<Client>,
) -> Result<Response<PooledBody<Body, D>>, BoxError> {
    let mut response = sent.map_err(error_of)?;
    // The version is a property of a connection; ours with the client is its own.
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some((tunnel, client)) = client {
            let upstream = hyper::upgrade::on(&mut response);
            tunnel.open();
            tokio::spawn(join(client, upstream));
        }
    } else {
        forward::strip_response(response.headers_mut());
    }
    Ok(response)
}

/// Carries bytes both ways once both sides have changed protocol.
async fn join(client: hyper::upgrade::OnUpgrade, upstream: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
        return;
    };
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    // Either side may go away at any time; there is nobody to tell.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
}

fn error_of(error: UpstreamError) -> BoxError {
    match error {
        UpstreamError::NotSent { timed_out, source } => {
            tracing::warn!(error = %source, "the upstream was not reached");
            not_sent(timed_out, source)
        }
        UpstreamError::OutOfTime => Box::new(AnswerTimeout),
        error @ UpstreamError::AfterDispatch { .. } => {
            tracing::warn!(error = %error.root(), "the upstream's answer broke off");
            Box::new(error)
        }
    }
}

fn not_sent(timed_out: bool, source: impl Into<BoxError>) -> BoxError {
    Box::new(NotSent {
        timed_out,
        source: source.into(),
    })
}
