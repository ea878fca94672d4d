//! Which pages of other origins may read the answers that hapax makes itself (P29).
//!
//! The upstream's answers are not touched here: what they allow is the upstream's word, and holds for their replays. An
//! origin is never taken from a request into an answer unless it is one of those configured, byte for byte.

use hapax_core::problem::ProblemKind;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response};

use crate::config::{AllowedOrigin, CorsSettings};

/// What a script may read of a problem besides what every page may (the safelist of the Fetch standard).
const EXPOSED: &str = "Idempotency-Key, Idempotency-Status, Idempotency-Expires, Idempotent-Replayed, Link, \
                       Proxy-Status, Retry-After";

/// The configured origins.
#[derive(Debug)]
pub(crate) enum Cors {
    /// None: problems say nothing about origins.
    Off,
    /// Every one, without credentials.
    Any,
    /// These.
    Listed {
        origins: Vec<HeaderValue>,
        with_credentials: bool,
    },
}

/// What a problem will say to the origin of one request.
#[derive(Debug)]
pub(crate) enum Grant {
    /// Nothing.
    Silent,
    /// That everybody may read it.
    Any,
    /// That it says something else to another origin.
    NotThisOrigin,
    /// That this origin may read it.
    Origin {
        origin: HeaderValue,
        with_credentials: bool,
    },
}

impl Cors {
    pub(crate) fn new(settings: &CorsSettings) -> Self {
        let mut origins = Vec::with_capacity(settings.allow_origins.len());
        for origin in &settings.allow_origins {
            match origin {
                AllowedOrigin::Any => return Self::Any,
                // Checked when it was read: an origin is visible ASCII.
                AllowedOrigin::One(origin) => origins.extend(HeaderValue::from_str(origin)),
            }
        }
        if origins.is_empty() {
            return Self::Off;
        }
        Self::Listed {
            origins,
            with_credentials: settings.allow_credentials,
        }
    }

    /// What a problem that answers a request with these fields may say.
    pub(crate) fn grant(&self, request: &HeaderMap) -> Grant {
        let (origins, with_credentials) = match self {
            Self::Off => return Grant::Silent,
            Self::Any => return Grant::Any,
            Self::Listed {
                origins,
                with_credentials,
            } => (origins, *with_credentials),
        };
        let mut sent = request.get_all(ORIGIN).iter();
        match (sent.next(), sent.next()) {
            (Some(origin), None) if origins.contains(origin) => Grant::Origin {
                origin: origin.clone(),
                with_credentials,
            },
            _ => Grant::NotThisOrigin,
        }
    }
}

impl Grant {
    /// Says it, if the answer is a problem of hapax.
    pub(crate) fn say<B>(&self, answer: &mut Response<B>) {
        if answer.extensions().get::<ProblemKind>().is_none() {
            return;
        }
        let headers = answer.headers_mut();
        if matches!(self, Self::NotThisOrigin | Self::Origin { .. }) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let origin = match self {
            Self::Silent | Self::NotThisOrigin => return,
            Self::Any => HeaderValue::from_static("*"),
            Self::Origin {
                origin,
                with_credentials,
            } => {
                if *with_credentials {
                    headers.insert(
                        ACCESS_CONTROL_ALLOW_CREDENTIALS,
                        HeaderValue::from_static("true"),
                    );
                }
                origin.clone()
            }
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED),
        );
    }
}
