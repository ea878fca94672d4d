//! Every status and problem (RFC 9457) that the service answers with.

use std::io::Write;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::order::{MAX_ID_LEN, Order, PurchaseError};
use crate::shop::Failure;

/// Marks the answer to a repeat.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// 201, the order, and where it is: for the first request.
pub(crate) fn created(order: Order) -> Response {
    let location = HeaderValue::from_str(&format!("/order/{}", order.id));
    let mut response = (StatusCode::CREATED, Json(order)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The very answer that the first request got or would have got, marked.
pub(crate) fn repeated(order: Order) -> Response {
    let mut response = created(order);
    response
        .headers_mut()
        .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// 204: what was asked for is so.
pub(crate) fn nothing_left() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The form of a problem.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem it is.
    #[serde(rename = "type")]
    #[schema(example = "urn:hapax-shop:problems#order-invalid")]
    kind: String,
    /// The kind in a few words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What is wrong with this request.
    detail: String,
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The order's id in the path is not one.
    OrderId,
    /// The query has parameters that nobody knows, or a bad one.
    Query(String),
    /// The content is not JSON.
    NotJson(String),
    /// The content is not called JSON.
    MediaType,
    /// The content is JSON and not an order: a member is missing, unknown or of another type.
    NotAnOrder(String),
    /// The order cannot be bought.
    Purchase(PurchaseError),
    /// The content is larger than this many bytes.
    TooLarge(usize),
    /// The content did not arrive in time.
    TooSlow,
    /// The content did not arrive in full.
    CutShort,
    /// The id belongs to an order of something else.
    Taken,
    /// The order was cancelled.
    Cancelled,
    /// There is no such order.
    NoOrder,
    /// There is no such resource.
    NoResource,
    /// The resource does not take this method.
    NoMethod,
    /// The database failed before it was told to commit: nothing was done.
    Unavailable,
    /// The payment provider did not confirm the charge; the next attempt asks again.
    NoProvider,
    /// Something failed later: nobody knows.
    Broken,
}

impl Refusal {
    /// Name, status, title and detail: one row a refusal.
    #[allow(clippy::too_many_lines, reason = "a table, one row a refusal")]
    fn row(&self) -> (&'static str, StatusCode, &'static str, String) {
        use StatusCode as S;
        let invalid = "The order is not valid";
        match self {
            Self::OrderId => {
                let detail = format!("1 to {MAX_ID_LEN} letters, digits, - and _.");
                (
                    "order-id-invalid",
                    S::BAD_REQUEST,
                    "Not an order id",
                    detail,
                )
            }
            Self::Query(why) => ("query-invalid", S::BAD_REQUEST, "Bad query", why.clone()),
            Self::NotJson(why) => ("not-json", S::BAD_REQUEST, "Not JSON", why.clone()),
            Self::CutShort => {
                let detail = "The content ended before its end.".to_owned();
                (
                    "cut-short",
                    S::BAD_REQUEST,
                    "The content is cut short",
                    detail,
                )
            }
            Self::MediaType => {
                let detail = "Send application/json.".to_owned();
                ("media-type", S::UNSUPPORTED_MEDIA_TYPE, "Not JSON", detail)
            }
            Self::NotAnOrder(why) => (
                "order-invalid",
                S::UNPROCESSABLE_ENTITY,
                invalid,
                why.clone(),
            ),
            Self::Purchase(why) => (
                "order-invalid",
                S::UNPROCESSABLE_ENTITY,
                invalid,
                why.to_string(),
            ),
            Self::TooLarge(limit) => {
                let detail = format!("An order has at most {limit} bytes.");
                (
                    "too-large",
                    S::PAYLOAD_TOO_LARGE,
                    "The content is too large",
                    detail,
                )
            }
            Self::TooSlow => {
                let detail = "The content did not arrive in time.".to_owned();
                ("too-slow", S::REQUEST_TIMEOUT, "Too slow", detail)
            }
            // Not 409, which clients take as a reason to try again: no repeat of this request
            // can ever succeed.
            Self::Taken => {
                let detail = "Another order has this id. Nothing was ordered.".to_owned();
                (
                    "order-id-reused",
                    S::UNPROCESSABLE_ENTITY,
                    "The id is taken",
                    detail,
                )
            }
            Self::Cancelled => {
                let detail = "This order was cancelled.".to_owned();
                (
                    "order-cancelled",
                    S::GONE,
                    "The order was cancelled",
                    detail,
                )
            }
            Self::NoOrder => {
                let detail = "There is no such order.".to_owned();
                ("no-such-order", S::NOT_FOUND, "No such order", detail)
            }
            Self::NoResource => {
                let detail = "GET /openapi.json says what there is.".to_owned();
                ("no-such-resource", S::NOT_FOUND, "No such resource", detail)
            }
            Self::NoMethod => {
                let detail = "Allow says which methods this resource takes.".to_owned();
                (
                    "no-such-method",
                    S::METHOD_NOT_ALLOWED,
                    "No such method",
                    detail,
                )
            }
            Self::Unavailable => {
                let detail = "Nothing was done. Try again.".to_owned();
                ("unavailable", S::SERVICE_UNAVAILABLE, "Unavailable", detail)
            }
            Self::NoProvider => {
                let detail = "The payment provider did not confirm the charge. Send this request \
                              again with the same key: it goes on where it stopped."
                    .to_owned();
                (
                    "provider-unavailable",
                    S::SERVICE_UNAVAILABLE,
                    "The payment provider is unavailable",
                    detail,
                )
            }
            Self::Broken => {
                let detail = "It is not known what became of the request.".to_owned();
                ("broken", S::INTERNAL_SERVER_ERROR, "Broken", detail)
            }
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let _ = writeln!(std::io::stderr(), "{failure}");
        match failure {
            Failure::RolledBack(_) => Self::Unavailable,
            Failure::Commit(_) => Self::Broken,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (name, status, title, detail) = self.row();
        let problem = Problem {
            kind: format!("urn:hapax-shop:problems#{name}"),
            title,
            status: status.as_u16(),
            detail,
        };
        let fields = [
            (CONTENT_TYPE, "application/problem+json"),
            (CACHE_CONTROL, "no-store"),
        ];
        (status, fields, Json(problem)).into_response()
    }
}
