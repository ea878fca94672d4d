//! A middleware for `reqwest` that holds on to the key.
//!
//! Put it **outside** of any other layer that retries, or better: have no other. `reqwest` follows redirects below it.

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap};
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use tracing::Instrument;

use crate::attempts::Attempts;
use crate::config::{Config, Settled};
use crate::error::{BoxError, NotReplayable, OutcomeUnknown, TimedOut};
use crate::policy::{Decision, Failure, Outcome, Why};

/// Sends keyed requests until it has ended.
///
/// An answer to a keyed request is whole when it is handed over, and has [`Settled`] in its extensions. Errors: an
/// [`OutcomeUnknown`] inside [`Error::Middleware`] (see [`unknown`]); [`NotReplayable`] for a body that is a stream, before
/// anything is sent; what reqwest said where nothing ran.
#[derive(Debug, Clone, Default)]
pub struct SafeRequests {
    config: Config,
}

impl SafeRequests {
    /// A middleware with these settings.
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

/// A `reqwest` client with [`SafeRequests`] as its only middleware: what an outbox sends with.
#[derive(Debug, Clone)]
pub struct SafeClient {
    client: ClientWithMiddleware,
    header: http::HeaderName,
}

impl SafeClient {
    /// A client that sends through `inner`.
    pub fn new(inner: reqwest::Client, config: Config) -> Self {
        let header = config.header.clone();
        let client = ClientBuilder::new(inner)
            .with(SafeRequests::new(config))
            .build();
        Self { client, header }
    }

    /// To make requests with.
    pub fn client(&self) -> &ClientWithMiddleware {
        &self.client
    }

    /// The field that carries the key.
    pub fn header(&self) -> &http::HeaderName {
        &self.header
    }
}

/// What is unknown, if that is what the error says; otherwise the error.
///
/// # Errors
/// It says something else.
pub fn unknown(error: Error) -> Result<OutcomeUnknown<Request>, Error> {
    match error {
        Error::Middleware(inner) => inner.downcast().map_err(Error::Middleware),
        other => Err(other),
    }
}

impl OutcomeUnknown<Request> {
    /// Sends the same bytes with the same key again.
    ///
    /// # Errors
    /// As of the client: unknown again, or what it said.
    pub async fn resume(self, client: &ClientWithMiddleware) -> Result<Response, Error> {
        client.execute(self.request).await
    }
}

/// One attempt's answer, and what is judged of it.
struct Came {
    status: http::StatusCode,
    fields: HeaderMap,
    body: Bytes,
    response: Response,
}

#[async_trait::async_trait]
impl Middleware for SafeRequests {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let method = request.method().clone();
        let key = self
            .config
            .key(&method, request.headers_mut())
            .map_err(Error::middleware)?;
        if key.is_none() && !method.is_idempotent() {
            return next.run(request, extensions).await;
        }
        let mut attempts = Attempts::new(&self.config, method, host(&request), key.is_some());
        loop {
            let copy = request
                .try_clone()
                .ok_or_else(|| Error::middleware(NotReplayable))?;
            let (time, span) = attempts.begin();
            let sent = once(
                copy,
                extensions,
                next.clone(),
                &attempts,
                self.config.limits.max_answer,
            );
            let came = match tokio::time::timeout(time, sent.instrument(span.clone())).await {
                Ok(came) => came,
                Err(_) => Err((Failure::Timeout, Error::middleware(TimedOut))),
            };
            let decision = match &came {
                // What cannot be built is not sent, and would not be better the second time.
                Err((_, error)) if error.is_builder() => Decision::GiveUp(Why::Answer),
                Err((failure, _)) => attempts.judge(&span, &Outcome::Failed(*failure)),
                Ok(came) => attempts.judge(
                    &span,
                    &Outcome::Answered {
                        status: came.status,
                        fields: &came.fields,
                        body: &came.body,
                    },
                ),
            };
            match decision {
                Decision::Retry { after, .. } => tokio::time::sleep(after).await,
                Decision::Final => return hand_over(came, true),
                Decision::GiveUp(_) => return hand_over(came, false),
                Decision::Unknown(why) => {
                    return Err(unknowable(why, attempts.made, request, came));
                }
            }
        }
    }
}

fn host(request: &Request) -> String {
    let url = request.url();
    let port = url.port_or_known_default().unwrap_or(0);
    format!("{}:{port}", url.host_str().unwrap_or(""))
}

fn hand_over(came: Result<Came, (Failure, Error)>, is_final: bool) -> Result<Response, Error> {
    match came {
        Ok(Came { mut response, .. }) => {
            response.extensions_mut().insert(Settled(is_final));
            Ok(response)
        }
        Err((_, error)) => Err(error),
    }
}

fn unknowable(
    why: Why,
    attempts: u32,
    request: Request,
    came: Result<Came, (Failure, Error)>,
) -> Error {
    let (answer, source) = match came {
        Ok(came) => {
            let mut answer = http::Response::new(came.body);
            *answer.status_mut() = came.status;
            *answer.headers_mut() = came.fields;
            (Some(answer), None)
        }
        Err((_, error)) => (None, Some(BoxError::from(error))),
    };
    Error::middleware(OutcomeUnknown {
        why,
        attempts,
        request,
        answer,
        source,
    })
}

/// One attempt, and its answer in full where it must be whole.
async fn once(
    request: Request,
    extensions: &mut Extensions,
    next: Next<'_>,
    attempts: &Attempts<'_>,
    max_answer: usize,
) -> Result<Came, (Failure, Error)> {
    let response = next.run(request, extensions).await.map_err(|error| {
        let failure = match () {
            () if error.is_connect() => Failure::Connect,
            () if error.is_timeout() => Failure::Timeout,
            () => Failure::Reset,
        };
        (failure, error)
    })?;
    let (status, fields) = (response.status(), response.headers().clone());
    if !attempts.reads(&fields) {
        return Ok(Came {
            status,
            fields,
            body: Bytes::new(),
            response,
        });
    }
    let (url, version) = (response.url().clone(), response.version());
    let body = read(response, max_answer).await?;
    let mut whole = http::Response::builder()
        .url(url)
        .body(body.clone())
        .map_err(|error| (Failure::Cut, Error::middleware(error)))?;
    *whole.status_mut() = status;
    *whole.version_mut() = version;
    *whole.headers_mut() = fields.clone();
    Ok(Came {
        status,
        fields,
        body,
        response: Response::from(whole),
    })
}

async fn read(mut response: Response, most: usize) -> Result<Bytes, (Failure, Error)> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) if body.len().saturating_add(part.len()) <= most => {
                body.extend_from_slice(&part)
            }
            Ok(Some(_)) => return Err((Failure::Cut, Error::middleware(TooLarge))),
            Ok(None) => return Ok(body.freeze()),
            Err(error) if error.is_timeout() => return Err((Failure::Timeout, error.into())),
            Err(error) => return Err((Failure::Cut, error.into())),
        }
    }
}

/// The answer is larger than `max_answer`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer is larger than this client reads")]
pub struct TooLarge;
