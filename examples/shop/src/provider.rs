//! A payment provider: somebody else's service, over HTTP, which honours a key.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderName, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::order::{CURRENCY, Order};

/// How long a charge may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer of the provider, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where charges are made.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    authority: Authority,
}

/// There is no answer, or one that is no charge: it may have been made or not.
#[derive(Debug, thiserror::Error)]
#[error("the payment provider did not confirm the charge")]
pub(crate) struct NoCharge;

#[derive(Serialize)]
struct NewCharge<'a> {
    order: &'a str,
    amount: i64,
    currency: &'a str,
}

#[derive(Deserialize)]
struct Charge {
    id: String,
}

impl Provider {
    /// The provider at `http://host:port`; `None` when that is no such address.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let parts = url.parse::<Uri>().ok()?.into_parts();
        let is_plain = parts.scheme.is_some_and(|scheme| scheme.as_str() == "http");
        let authority = parts
            .authority
            .filter(|authority| is_plain && authority.port().is_some())?;
        Some(Self { authority })
    }

    /// Charges for an order; the charge's id. The same `key` at every attempt makes it one charge.
    pub(crate) async fn charge(&self, order: &Order, key: &str) -> Result<String, NoCharge> {
        let charging = timeout(PATIENCE, self.ask(order, key)).await;
        charging.ok().flatten().ok_or(NoCharge)
    }

    async fn ask(&self, order: &Order, key: &str) -> Option<String> {
        let charge = NewCharge {
            order: &order.id,
            amount: order.total,
            currency: CURRENCY,
        };
        let content = serde_json::to_vec(&charge).ok()?;
        let request = Request::post("/charges")
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, key)
            .body(Full::new(Bytes::from(content)))
            .ok()?;
        let stream = TcpStream::connect(self.authority.as_str()).await.ok()?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let answer = answer.ok().filter(|answer| answer.status().is_success());
        let charge = match answer {
            Some(answer) => {
                let content = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
                serde_json::from_slice::<Charge>(&content.ok()?.to_bytes()).ok()
            }
            None => None,
        };
        connection.abort();
        charge.map(|charge| charge.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_a_plain_address_with_a_port() {
        assert!(Provider::parse("http://127.0.0.1:4000").is_some());
        for url in ["127.0.0.1:4000", "https://a:1", "http://a", "ftp://a:1", ""] {
            assert!(Provider::parse(url).is_none(), "{url}");
        }
    }
}
