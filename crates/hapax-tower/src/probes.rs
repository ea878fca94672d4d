//! Probes (P47): one at a time a key, bounded in all, and which first requests are known to be under way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, FORWARDED, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_service::Service;

use hapax_core::key::RecordKey;
use hapax_core::policy::Policy;
use hapax_core::probe::{Answer, Probed, Template, Values};
use hapax_core::record::Content;
use hapax_core::scope::ScopePart;
use hapax_core::settle;

use crate::body::{BoxError, RequestBody};
use crate::exchange::{Kept, exchange};

/// The longest that a probe may take; an upstream that is asked for less gets less.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Probes under way in all; a retry beyond that is answered that the outcome is unknown.
const MAX_PROBES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Probes {
    asked: Arc<Mutex<HashMap<RecordKey, Arc<Notify>>>>,
    under_way: Arc<Mutex<HashMap<RecordKey, usize>>>,
}

impl Probes {
    /// Asks `question` about the record of `key`, unless somebody else does so just now: then waits for that to end. What it
    /// returns beside the outcome is held until the record says what was found out, for those who wait.
    pub(crate) async fn ask<I, B, R>(
        &self,
        key: RecordKey,
        inner: I,
        question: Request<RequestBody<B>>,
        policy: &Policy,
    ) -> (Probed, Option<Asking>)
    where
        I: Service<Request<RequestBody<B>>, Response = Response<R>>,
        I::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Unpin,
        R::Error: Into<BoxError>,
    {
        let patience = PROBE_TIMEOUT.min(policy.upstream_timeout);
        let asking = match self.begin(key) {
            Begun::Ours(asking) => asking,
            Begun::Theirs(theirs) => {
                let ended = theirs.notified_owned();
                // It may have ended since; then there is nothing to wait for.
                if lock(&self.asked).contains_key(&key) {
                    let _ = timeout(patience, ended).await;
                }
                return (Probed::ByAnother, None);
            }
            Begun::TooMany => return (Probed::Failed, None),
        };
        // Looked at before the question is asked: what is under way then may act after the answer.
        let is_first_under_way = lock(&self.under_way).contains_key(&key);
        let is_head = *question.method() == Method::HEAD;
        let exchanging = exchange(inner, Box::new(question), policy.max_stored_response);
        let Ok(Ok(exchange)) = timeout(patience, exchanging).await else {
            return (Probed::Failed, Some(asking));
        };
        let content = match exchange.content {
            Kept::Whole(content) if !is_head => Content::Stored(content),
            Kept::Whole(_) | Kept::Part(..) => Content::Withheld,
        };
        let answer = Answer {
            status: exchange.parts.status,
            settlement: exchange.settlement,
            headers: settle::stored_headers(&exchange.parts.headers),
            content,
            is_first_under_way,
        };
        (Probed::Answered(answer), Some(asking))
    }

    /// Notes that the upstream may act on a request of `key` until the guard is dropped.
    pub(crate) fn under_way(&self, key: RecordKey) -> UnderWay {
        *lock(&self.under_way).entry(key).or_default() += 1;
        UnderWay {
            keys: Arc::clone(&self.under_way),
            key,
        }
    }

    fn begin(&self, key: RecordKey) -> Begun {
        let mut asked = lock(&self.asked);
        let count = asked.len();
        match asked.entry(key) {
            Entry::Occupied(theirs) => Begun::Theirs(Arc::clone(theirs.get())),
            Entry::Vacant(_) if count >= MAX_PROBES => Begun::TooMany,
            Entry::Vacant(place) => {
                place.insert(Arc::default());
                Begun::Ours(Asking {
                    asked: Arc::clone(&self.asked),
                    key,
                })
            }
        }
    }
}

enum Begun {
    Ours(Asking),
    Theirs(Arc<Notify>),
    TooMany,
}

/// A probe under way; whoever waits for it is woken when it is dropped.
pub(crate) struct Asking {
    asked: Arc<Mutex<HashMap<RecordKey, Arc<Notify>>>>,
    key: RecordKey,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.asked).remove(&self.key) {
            waiting.notify_waiters();
        }
    }
}

/// A request that the upstream may still act on.
pub(crate) struct UnderWay {
    keys: Arc<Mutex<HashMap<RecordKey, usize>>>,
    key: RecordKey,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut keys = lock(&self.keys);
        if let Some(count) = keys.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

/// Neither map can be torn by a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The question about one operation; `None` when it cannot be asked with these values.
pub(crate) fn question<B>(
    template: &Template,
    values: &Values,
    mut fields: HeaderMap,
) -> Option<Request<RequestBody<B>>> {
    let target = template.fill(values).ok()?;
    // A cache's answer would be about another moment.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(
        http::header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    let mut request = Request::new(RequestBody::full(Bytes::new()));
    *request.method_mut() = template.method().clone();
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = fields;
    Some(request)
}

/// What of a retry's fields goes with its question: who it is, where it goes, and what it is part of.
pub(crate) fn fields_of(retry: &HeaderMap, policy: &Policy) -> HeaderMap {
    const ALWAYS: [HeaderName; 5] = [HOST, AUTHORIZATION, ACCEPT, FORWARDED, VIA];
    const NAMED: [&str; 5] = [
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    let is_scope = |name: &HeaderName| {
        let mut parts = policy.scope.iter();
        parts.any(|ScopePart::Header(part)| part == name)
    };
    let mut fields = HeaderMap::new();
    for (name, value) in retry {
        if ALWAYS.contains(name) || NAMED.contains(&name.as_str()) || is_scope(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}
