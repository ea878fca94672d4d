//! A tower layer that holds on to the key, for hyper's client and every other service of requests.
//!
//! Put it **outside** of any other layer that retries, and of any that bounds the time of a single attempt.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use crate::attempts::Attempts;
use crate::config::{Config, Settled};
use crate::error::{BoxError, OutcomeUnknown, TimedOut};
use crate::policy::{Decision, Failure, Outcome, Why};

/// Makes a [`SafeService`] of a service.
#[derive(Debug, Clone, Default)]
pub struct SafeLayer {
    config: Arc<Config>,
}

impl SafeLayer {
    /// A layer with these settings.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
        }
    }
}

impl<S> Layer<S> for SafeLayer {
    type Service = SafeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SafeService {
            inner,
            config: Arc::clone(&self.config),
        }
    }
}

/// Sends keyed requests until it has ended. Bodies are read before the first attempt, up to `max_request`.
///
/// An answer to a keyed request is whole when it is handed over, and has [`Settled`] in its extensions.
#[derive(Debug, Clone)]
pub struct SafeService<S> {
    inner: S,
    config: Arc<Config>,
}

/// How a send ends without an answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It may have run. The request in it carries the key: call the service with it again.
    #[error(transparent)]
    Unknown(Box<OutcomeUnknown<Request<Bytes>>>),
    /// Nothing ran, or the request has no effect to be in doubt about: what the inner service said, or [`TimedOut`].
    #[error("nothing ran: {0}")]
    NothingRan(#[source] BoxError),
    /// The request's own body failed or is larger than `max_request`. Nothing was sent.
    #[error("the request's body cannot be kept: {0}")]
    Body(#[source] BoxError),
}

/// An answer: whole, or the inner service's own where it must not be read.
pub type Answer<B> = Response<Either<Full<Bytes>, B>>;

impl<S, B, RB> Service<Request<B>> for SafeService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError> + Send,
{
    type Response = Answer<RB>;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<RB>, SendError>> + Send>>;

    /// Each attempt waits for the inner service by itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, config) = (self.inner.clone(), Arc::clone(&self.config));
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let body = Limited::new(body, config.limits.max_request)
                .collect()
                .await
                .map_err(SendError::Body)?
                .to_bytes();
            let key = config
                .key(&head.method, &mut head.headers)
                .map_err(|error| SendError::Body(error.into()))?;
            send(
                inner,
                &config,
                Request::from_parts(head, body),
                key.is_some(),
            )
            .await
        })
    }
}

/// One attempt's answer, and what is judged of it.
struct Came<RB> {
    status: http::StatusCode,
    fields: HeaderMap,
    body: Bytes,
    response: Answer<RB>,
}

async fn send<S, RB>(
    mut inner: S,
    config: &Config,
    request: Request<Bytes>,
    is_keyed: bool,
) -> Result<Answer<RB>, SendError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    let host = request
        .uri()
        .authority()
        .map_or("", |authority| authority.as_str())
        .to_owned();
    let mut attempts = Attempts::new(config, request.method().clone(), host, is_keyed);
    loop {
        let (time, span) = attempts.begin();
        let copy = request.clone().map(Full::new);
        let sent =
            once(&mut inner, copy, &attempts, config.limits.max_answer).instrument(span.clone());
        let came = match tokio::time::timeout(time, sent).await {
            Ok(came) => came,
            Err(_) => Err((Failure::Timeout, BoxError::from(TimedOut))),
        };
        let outcome = match &came {
            Ok(came) => Outcome::Answered {
                status: came.status,
                fields: &came.fields,
                body: &came.body,
            },
            Err((failure, _)) => Outcome::Failed(*failure),
        };
        match attempts.judge(&span, &outcome) {
            Decision::Retry { after, .. } => tokio::time::sleep(after).await,
            Decision::Final => return hand_over(came, true),
            Decision::GiveUp(_) => return hand_over(came, false),
            Decision::Unknown(why) => return Err(unknowable(why, attempts.made, request, came)),
        }
    }
}

fn hand_over<RB>(
    came: Result<Came<RB>, (Failure, BoxError)>,
    is_final: bool,
) -> Result<Answer<RB>, SendError> {
    match came {
        Ok(Came { mut response, .. }) => {
            response.extensions_mut().insert(Settled(is_final));
            Ok(response)
        }
        Err((_, error)) => Err(SendError::NothingRan(error)),
    }
}

fn unknowable<RB>(
    why: Why,
    attempts: u32,
    request: Request<Bytes>,
    came: Result<Came<RB>, (Failure, BoxError)>,
) -> SendError {
    let (answer, source) = match came {
        Ok(came) => (Some(came.response.map(|_| came.body)), None),
        Err((_, error)) => (None, Some(error)),
    };
    SendError::Unknown(Box::new(OutcomeUnknown {
        why,
        attempts,
        request,
        answer,
        source,
    }))
}

/// One attempt, and its answer in full where it must be whole.
async fn once<S, RB>(
    inner: &mut S,
    request: Request<Full<Bytes>>,
    attempts: &Attempts<'_>,
    max_answer: usize,
) -> Result<Came<RB>, (Failure, BoxError)>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    // A service that is not ready has been given nothing.
    std::future::poll_fn(|context| inner.poll_ready(context))
        .await
        .map_err(|error| (Failure::Connect, error.into()))?;
    let response = inner.call(request).await.map_err(|error| {
        let error = error.into();
        (failure_of(&*error), error)
    })?;
    let (status, fields) = (response.status(), response.headers().clone());
    if !attempts.reads(&fields) {
        let response = response.map(Either::Right);
        return Ok(Came {
            status,
            fields,
            body: Bytes::new(),
            response,
        });
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max_answer)
        .collect()
        .await
        .map_err(|error| (Failure::Cut, error))?
        .to_bytes();
    let response = Response::from_parts(head, Either::Left(Full::new(body.clone())));
    Ok(Came {
        status,
        fields,
        body,
        response,
    })
}

/// Only a refused or unreachable address is known to have received nothing: every other error may have followed the request.
fn failure_of(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable,
            ) => {
                return Failure::Connect;
            }
            Some(io::ErrorKind::TimedOut) => return Failure::Timeout,
            _ => cause = error.source(),
        }
    }
    Failure::Reset
}

impl SendError {
    /// Whether the request's body was larger than `max_request`.
    pub fn is_body_too_large(&self) -> bool {
        matches!(self, Self::Body(error) if error.is::<LengthLimitError>())
    }
}
