//! The listening side: from bytes on a socket to requests a service may trust.
//!
//! hyper repairs or hides shapes that two parsers can read differently (it drops `Content-Length` beside
//! `Transfer-Encoding`, takes a bare LF for a line end). In front of payments that is the wrong favour, so every
//! cleartext HTTP/1 byte passes [`framing`] before hyper sees it, and what is ambiguous is refused, never repaired.

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod forward;
pub(crate) mod forwarded;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod interim;
pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod refusal;
pub(crate) mod tls;
pub(crate) mod wire;
