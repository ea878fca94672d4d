//! What a check is asked to do, and why it cannot.

use std::net::IpAddr;

use crate::fault::Fault;
use crate::rules::{Grade, Profile};

/// What to check, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The target: `http://host[:port]/path`, with placeholders.
    pub url: String,
    /// The text of a request file.
    pub request: Option<String>,
    /// What that file is called, for the command that does it again.
    pub request_name: Option<String>,
    /// A description that the request is made from, in place of a request file.
    pub openapi: Option<OpenApi>,
    /// The credentials of the caller, in place of the request file's.
    pub authorization: Option<String>,
    /// Certificate authorities in PEM that are trusted besides the system's.
    pub ca: Option<String>,
    /// The method, in place of POST or the file's.
    pub method: Option<String>,
    /// The field that carries the key.
    pub key_field: String,
    /// What the API is held to.
    pub profile: Profile,
    /// The faults to inject; none: all of them.
    pub faults: Vec<Fault>,
    /// Where effects are counted, with a JSON pointer as fragment.
    pub count_with: Option<String>,
    /// Where everything that varies comes from.
    pub seed: u64,
    /// The least grade that makes a broken rule a finding.
    pub fail_on: Grade,
    /// Whether targets off loopback are allowed.
    pub allow_remote: bool,
    /// Whether the operation says that it requires a key.
    pub requires_key: bool,
    /// A shell command that restarts the target and ends.
    pub restart: Option<String>,
    /// A shell command that is the target, for as long as it runs: the checker starts it, kills it and starts it again.
    pub start: Option<String>,
    /// The credentials of another caller.
    pub other_authorization: Option<String>,
}

/// An operation of an OpenAPI document.
#[derive(Debug, Clone)]
pub struct OpenApi {
    /// Where the document is: a file's name, or a URL of http or https.
    pub location: String,
    /// The document, where it was read from a file; otherwise it is fetched from the location.
    pub text: Option<String>,
    /// The `operationId`, or method and path as in `POST /orders`.
    pub operation: String,
}

impl Options {
    /// A check with defaults: `Idempotency-Key`, profile ietf, every fault, findings from SHOULD on.
    pub fn new(url: impl Into<String>, seed: u64) -> Self {
        Self {
            url: url.into(),
            request: None,
            request_name: None,
            openapi: None,
            authorization: None,
            ca: None,
            method: None,
            key_field: "Idempotency-Key".into(),
            profile: Profile::Ietf,
            faults: Vec::new(),
            count_with: None,
            seed,
            fail_on: Grade::Should,
            allow_remote: false,
            requires_key: false,
            restart: None,
            start: None,
            other_authorization: None,
        }
    }
}

/// Why nothing was checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The URL is not one that can be checked.
    #[error("{0}: {1}")]
    Url(String, String),
    /// The OpenAPI document does not describe a request that can be made.
    #[error("{0}: {1}")]
    OpenApi(String, String),
    /// The certificate authorities cannot be used.
    #[error("the certificate authorities: {0}")]
    Certificates(String),
    /// The request file makes no sense.
    #[error("the request: {0}")]
    Request(String),
    /// The target is not on this machine.
    #[error("{0} is {1}, which is not on loopback; --allow-remote if you may send it faults")]
    Remote(String, IpAddr),
    /// The target could not be started.
    #[error("cannot start {0:?}: {1}")]
    Start(String, String),
    /// Nobody listens.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
}

impl CheckError {
    /// Whether the command line or the request file is wrong, rather than the world.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Url(..) | Self::Request(_) | Self::OpenApi(..) | Self::Certificates(_)
        )
    }
}
