//! What is kept of an intent, and its bytes on the disk: a line with the BLAKE3 hash of the rest, then JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use serde::{Deserialize, Serialize};

use super::OutboxError;

const VERSION: u32 = 1;

/// Credentials are the client's to give, again; framing is made anew; the key is kept by itself.
const NOT_KEPT: [HeaderName; 7] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    KEY,
];

/// The field that carries the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An intent as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) version: u32,
    /// Its place among the entries; given by the folder.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    /// Base64.
    pub(super) body: String,
    pub(super) born_ms: u64,
    /// False once it is known that no attempt ran.
    pub(super) may_have_run: bool,
}

impl Entry {
    pub(super) fn new(
        name: &str,
        request: &Request<Bytes>,
        born_ms: u64,
    ) -> Result<Self, OutboxError> {
        let mut fields = Vec::new();
        for (field, value) in request.headers() {
            if NOT_KEPT.contains(field) {
                continue;
            }
            let text = value
                .to_str()
                .map_err(|_| OutboxError::NotStorable(field.clone()))?;
            fields.push((field.as_str().to_owned(), text.to_owned()));
        }
        Ok(Self {
            version: VERSION,
            number: 0,
            name: name.to_owned(),
            key: String::new(),
            method: request.method().as_str().to_owned(),
            target: request.uri().to_string(),
            fields,
            body: STANDARD.encode(request.body()),
            born_ms,
            may_have_run: false,
        })
    }

    /// Whether both are the same request: method, target, content type and content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let kind = |entry: &Self| {
            let found = entry
                .fields
                .iter()
                .find(|(name, _)| name == CONTENT_TYPE.as_str());
            found.map(|(_, value)| value.clone())
        };
        self.method == other.method
            && self.target == other.target
            && self.body == other.body
            && kind(self) == kind(other)
    }

    /// The request as it is sent, with its key.
    pub(super) fn request(&self) -> Result<Request<Bytes>, OutboxError> {
        let damaged = || OutboxError::Damaged(self.name.clone());
        let body = STANDARD.decode(&self.body).map_err(|_| damaged())?;
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() =
            Method::from_bytes(self.method.as_bytes()).map_err(|_| damaged())?;
        *request.uri_mut() = self.target.parse::<Uri>().map_err(|_| damaged())?;
        for (field, value) in &self.fields {
            let field = field.parse::<HeaderName>().map_err(|_| damaged())?;
            let value = HeaderValue::from_str(value).map_err(|_| damaged())?;
            request.headers_mut().append(field, value);
        }
        let key = HeaderValue::from_str(&self.key).map_err(|_| damaged())?;
        request.headers_mut().insert(KEY, key);
        Ok(request)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, OutboxError> {
        let json = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        let mut bytes = blake3::hash(&json).to_hex().as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        Ok(bytes)
    }

    /// None for bytes that were not written so.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().position(|byte| *byte == b'\n')?;
        let (hash, json) = (bytes.get(..at)?, bytes.get(at.saturating_add(1)..)?);
        if blake3::hash(json).to_hex().as_bytes() != hash {
            return None;
        }
        let entry: Self = serde_json::from_slice(json).ok()?;
        (entry.version == VERSION).then_some(entry)
    }
}
