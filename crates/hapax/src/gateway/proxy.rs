//! The gateway's two services: [`Gateway`] faces the client, [`Forward`] the upstream; the
//! hapax layer stands between them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tower_service::Service;

use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::settle::HAPAX_ATTEMPT;
use hapax_core::store::Store;
use hapax_store::AnyStore;
use hapax_tower::{
    AnswerTimeout, BoxError, HapaxService, NotSent, RequestBody, ResponseBody, Routed, Routing,
    problem_of,
};

use super::connection::{PeerAddr, Scheme, Tunnel};
use super::cors::Cors;
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
    pub(crate) base: Arc<UpstreamBase>,
    pub(crate) live: SharedLive,
}

impl<S, D: Dial> Clone for Gateway<S, D> {
    fn clone(&self) -> Self {
        Self {
            keyed: self.keyed.clone(),
            base: Arc::clone(&self.base),
            live: Arc::clone(&self.live),
        }
    }
}

impl<S: Store, D: Dial> hyper::service::Service<Request<Incoming>> for Gateway<S, D> {
    type Response = Answer<D>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<D>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let mut keyed = self.keyed.clone();
        let grant = self.live.load().cors.grant(request.headers());
        if let Err(problem) = self.prepare(&mut request) {
            let mut answer = problem.response().map(full);
            grant.say(&mut answer);
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let method = request.method().clone();
        // Ready at once: the pool is asked when the request is sent.
        let answer = keyed.call(request);
        Box::pin(async move {
            let mut answer = answer.await.unwrap_or_else(|error| {
                tracing::warn!(error = %root_of(&error), "the upstream failed an unprotected request");
                problem_of(&error, &method).response().map(full)
            });
            grant.say(&mut answer);
            Ok(answer)
        })
    }
}

impl<S, D: Dial> Gateway<S, D> {
    /// Makes a request fit to be forwarded, or says what is wrong with it.
    fn prepare(&self, request: &mut Request<Incoming>) -> Result<(), Problem> {
        if let Some(refusal) = refusal_of(request) {
            return Err(problem_for(refusal));
        }
        if *request.method() == Method::CONNECT {
            return Err(problem_for(Refusal::AuthorityForm));
        }
        let peer = request.extensions().get::<PeerAddr>().copied();
        let scheme = request
            .extensions()
            .get::<Scheme>()
            .copied()
            .unwrap_or(Scheme::Http);
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
        forward::fit_for_http1(headers, &uri, &self.base);
        if let Some(PeerAddr(peer)) = peer {
            append_forwarded(headers, &self.live.load().trusted, peer.ip(), scheme);
        }
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

/// Faces the upstream: sends a request to it and hands back its answer.
#[derive(Clone)]
pub(crate) struct Forward<D: Dial = Tcp> {
    pub(crate) upstream: Upstream<Body, D>,
    pub(crate) base: Arc<UpstreamBase>,
    pub(crate) live: SharedLive,
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
            .then(|| self.live.load().settings.server.upstream_timeout);
        let (upstream, base) = (self.upstream.clone(), Arc::clone(&self.base));
        Box::pin(forward(upstream, base, request, patience))
    }
}

async fn forward<D: Dial>(
    upstream: Upstream<Body, D>,
    base: Arc<UpstreamBase>,
    mut request: Request<Body>,
    patience: Option<Duration>,
) -> Result<Response<PooledBody<Body, D>>, BoxError> {
    let target = base
        .target(request.uri())
        .map_err(|error| not_sent(false, error))?;
    *request.uri_mut() = target;
    // A question of hapax itself has no client who named the host.
    if !request.headers().contains_key(HOST) {
        let uri = request.uri().clone();
        forward::fit_for_http1(request.headers_mut(), &uri, &base);
    }
    let (mut parts, content) = request.into_parts();
    forward::frame(&mut parts.headers, &content);
    let mut request = Request::from_parts(parts, content);
    if let Some(client) = request.extensions_mut().remove::<Informer>() {
        hyper::ext::on_informational(&mut request, move |interim| {
            client.tell(interim.status(), interim.headers());
        });
    }
    let tunnel = request.extensions_mut().remove::<Tunnel>();
    let client = tunnel.map(|tunnel| (tunnel, hyper::upgrade::on(&mut request)));
    let sending = upstream.send(request);
    let sent = match patience {
        Some(patience) => timeout(patience, sending)
            .await
            .map_err(|_| AnswerTimeout)?,
        None => sending.await,
    };
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
