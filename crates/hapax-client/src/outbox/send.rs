//! What an outbox sends with.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};

use crate::error::{BoxError, OutcomeUnknown};

/// How a send ended.
#[derive(Debug)]
pub enum Sent {
    /// A final answer: it settles the intent.
    Final(Response<Bytes>),
    /// An answer that says that nothing ran.
    Refused(Response<Bytes>),
    /// No answer, and nothing ran.
    NothingRan(BoxError),
    /// It may have run.
    Unknown(Box<OutcomeUnknown<Request<Bytes>>>),
}

/// Sends a request until it has ended: attempts, waits, budget and all.
///
/// Implemented for `hapax_client::reqwest::SafeClient`.
pub trait Sender: Sync {
    /// Sends the request, which carries its key. Whatever may have run must come back as [`Sent::Unknown`].
    fn send(&self, request: Request<Bytes>) -> impl Future<Output = Sent> + Send;
}

#[cfg(feature = "reqwest")]
mod with_reqwest {
    use bytes::Bytes;
    use http::{Request, Response};

    use super::{Sender, Sent};
    use crate::config::Settled;
    use crate::error::{BoxError, OutcomeUnknown};
    use crate::outbox::entry::KEY;
    use crate::policy::Why;
    use crate::reqwest::{SafeClient, unknown};

    impl Sender for SafeClient {
        async fn send(&self, request: Request<Bytes>) -> Sent {
            let mut sent = request.clone();
            if *self.header() != KEY
                && let Some(key) = sent.headers_mut().remove(KEY)
            {
                sent.headers_mut().insert(self.header().clone(), key);
            }
            let built = match reqwest::Request::try_from(sent) {
                Ok(built) => built,
                Err(error) => return Sent::NothingRan(error.into()),
            };
            match self.client().execute(built).await {
                Ok(answer) => answered(request, answer).await,
                Err(error) => match unknown(error) {
                    Ok(what) => Sent::Unknown(Box::new(OutcomeUnknown {
                        why: what.why,
                        attempts: what.attempts,
                        request,
                        answer: what.answer,
                        source: what.source,
                    })),
                    // The middleware hands an error over only where nothing ran.
                    Err(error) => Sent::NothingRan(error.into()),
                },
            }
        }
    }

    async fn answered(request: Request<Bytes>, answer: reqwest::Response) -> Sent {
        let settled = answer.extensions().get::<Settled>().copied();
        let mut whole = Response::new(Bytes::new());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = answer.headers().clone();
        let body = match settled {
            Some(_) => answer.bytes().await.map_err(BoxError::from),
            None => {
                Err("the client has no SafeRequests: it cannot tell what its answers mean".into())
            }
        };
        match (body, settled) {
            (Ok(body), Some(Settled(is_final))) => {
                let whole = whole.map(|_| body);
                if is_final {
                    Sent::Final(whole)
                } else {
                    Sent::Refused(whole)
                }
            }
            (body, _) => Sent::Unknown(Box::new(OutcomeUnknown {
                why: Why::Answer,
                attempts: 1,
                request,
                answer: Some(whole),
                source: body.err(),
            })),
        }
    }
}
