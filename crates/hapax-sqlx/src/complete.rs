//! The completer: goes on with requests whose process ended between two recovery points.

use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use sqlx::error::ErrorKind;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service;

use hapax_core::fingerprint::{Fingerprint, Subject};
use hapax_core::key::RecordKey;
use hapax_core::policy::{KeySource, Policy};
use hapax_core::scope::ScopeId;

use crate::Dialect;
use crate::drive::{Asked, Drive};
use crate::execution::BoxError;
use crate::layer::TransactionLayer;
use crate::records::begin;
use crate::service::target_of;

/// Fields that are credentials, and are not kept. Neither is the key.
const NOT_KEPT: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// Scope, request line, fields and content of a request, as an HTTP message writes them.
pub(crate) fn encode(parts: &Parts, content: &Bytes, scope: ScopeId, policy: &Policy) -> Vec<u8> {
    let mut out = scope.as_bytes().to_vec();
    let line = format!("{} {}\r\n", parts.method, target_of(parts));
    out.extend_from_slice(line.as_bytes());
    let is_key = |name: &HeaderName| {
        let of = |source: &KeySource| matches!(source, KeySource::Header(key) if key == name);
        policy.key_from.iter().any(of)
    };
    for (name, value) in &parts.headers {
        if !NOT_KEPT.contains(name) && !is_key(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
    out
}

/// The request that was encoded; `None` when the bytes are none.
fn decode(bytes: &[u8]) -> Option<(ScopeId, Parts, Bytes)> {
    let (scope, mut rest) = bytes.split_first_chunk::<16>()?;
    let mut line = || {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.get(2..)?;
        Some(line)
    };
    let first = std::str::from_utf8(line()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut request = Request::new(());
    *request.method_mut() = method.parse::<Method>().ok()?;
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    loop {
        let field = line()?;
        if field.is_empty() {
            break;
        }
        let colon = field.windows(2).position(|pair| pair == b": ")?;
        let name = HeaderName::from_bytes(field.get(..colon)?).ok()?;
        let value = HeaderValue::from_bytes(field.get(colon + 2..)?).ok()?;
        request.headers_mut().append(name, value);
    }
    let content = Bytes::copy_from_slice(rest);
    Some((ScopeId::from_bytes(*scope), request.into_parts().0, content))
}

impl<DB: Dialect> TransactionLayer<DB> {
    /// Goes on with requests that were left between two recovery points: of which a step is done,
    /// and that nobody has touched for `abandoned_for`, up to `limit` of them. Each runs through
    /// `handler`, the service *behind* this layer, as its client's repeat would; its answer is
    /// stored and waits for that. Returns how many have got a final answer. Requests of which no step
    /// is done are forgotten after the same time: their keys are vacant again.
    ///
    /// To be called every minute or so, by as many processes as there are. The handler gets the
    /// request without its credentials and its key, which are not stored: whom it may act for has
    /// been judged before the first step. `abandoned_for` should be longer than a request may take.
    ///
    /// # Errors
    /// The database's.
    pub async fn complete<I>(
        &self,
        handler: I,
        abandoned_for: Duration,
        limit: u32,
    ) -> sqlx::Result<usize>
    where
        I: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        I::Error: Into<BoxError>,
        I::Future: Send,
    {
        let shared = &self.shared;
        let older_than_ms = i64::try_from(abandoned_for.as_millis()).unwrap_or(i64::MAX);
        self.forget(older_than_ms, i64::from(limit)).await?;
        let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
        let flows = DB::abandoned(&mut transaction, older_than_ms, i64::from(limit)).await?;
        transaction.commit().await?;
        let mut completed = 0;
        for (key, digest, request) in flows {
            let (Ok(key), Ok(digest), Some((scope, parts, content))) =
                (key.try_into(), digest.try_into(), decode(&request))
            else {
                continue;
            };
            let subject = Subject {
                method: &parts.method,
                target: target_of(&parts),
                headers: &parts.headers,
                content: &content,
            };
            let mut fingerprint = Fingerprint::of(&shared.records.keys, &shared.policy, &subject);
            if fingerprint.digest != digest {
                // A credential counts in it, and is not here.
                fingerprint = Fingerprint {
                    digest,
                    outline: [].into(),
                };
            }
            let asked = Asked {
                key: RecordKey::from_bytes(key),
                scope,
                fingerprint,
                key_as_received: HeaderValue::from_static(""),
                trace: None,
            };
            let key = asked.key;
            let Ok(place) = Arc::clone(&shared.places).acquire_owned().await else {
                break;
            };
            let now = Instant::now();
            let drive = Drive::new(
                Arc::clone(shared),
                handler.clone(),
                parts,
                content,
                asked,
                now,
            );
            let (reply_to, answer) = oneshot::channel();
            tokio::spawn(drive.run(reply_to, place));
            let _ = answer.await;
            completed += usize::from(self.is_settled(key).await?);
        }
        Ok(completed)
    }

    /// Lets go of keys whose process ended before the first step: nothing was done under them.
    async fn forget(&self, older_than_ms: i64, limit: i64) -> sqlx::Result<()> {
        let mut transaction = begin(&self.shared.records.pool, DB::BEGIN).await?;
        match DB::forget_flows(&mut transaction, older_than_ms, limit).await {
            Ok(()) => transaction.commit().await,
            // A step was committed meanwhile: that request is not forgotten, and the others wait
            // for the next time.
            Err(error) if is_foreign_key(&error) => transaction.rollback().await,
            Err(error) => Err(error),
        }
    }

    async fn is_settled(&self, key: RecordKey) -> sqlx::Result<bool> {
        let mut connection = self.shared.records.pool.acquire().await?;
        let (row, _) = DB::read(&mut connection, key.as_bytes()).await?;
        Ok(row.is_some())
    }
}

fn is_foreign_key(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| matches!(error.kind(), ErrorKind::ForeignKeyViolation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_without_its_credentials_and_its_key() {
        let request = Request::put("/orders?a=b")
            .header("content-type", "text/plain")
            .header("authorization", "secret")
            .header("cookie", "secret")
            .header("idempotency-key", "secret")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(())
            .expect("a request");
        let (parts, ()) = request.into_parts();
        let content = Bytes::from_static(b"line\r\n\r\nline");
        let scope = ScopeId::from_bytes([7; 16]);
        let bytes = encode(&parts, &content, scope, &Policy::default());
        let found = bytes.windows(6).any(|window| window == b"secret");
        assert!(!found);
        let (read_scope, read, read_content) = decode(&bytes).expect("a request");
        assert_eq!((read_scope, read_content), (scope, content));
        assert_eq!(
            (read.method, target_of(&parts)),
            (Method::PUT, "/orders?a=b")
        );
        let twice: Vec<_> = read.headers.get_all("x-twice").iter().collect();
        assert_eq!(twice, ["1", "2"]);
        assert_eq!(read.headers.len(), 3);
        for len in 0..40 {
            assert!(decode(&bytes[..len]).is_none());
        }
    }
}
