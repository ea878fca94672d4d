//! What went wrong on the way to the upstream, told by what it means for the operation.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use thiserror::Error;

/// A request that got no whole answer.
#[derive(Debug, Error)]
pub(crate) enum UpstreamError {
    /// No byte of the request reached a socket: it certainly had no effect (P21).
    #[error("the upstream was not reached")]
    NotSent {
        /// Whether time ran out, rather than the upstream refusing.
        timed_out: bool,
        /// Why not.
        source: ConnectError,
    },
    /// The head of the answer did not come in time; the request may have been sent.
    #[error("no answer in time")]
    OutOfTime,
    /// At least one byte may have been sent: nobody here can know the effect (P22).
    #[error("the upstream's answer broke off")]
    AfterDispatch {
        /// What was wrong.
        source: BrokenAnswer,
    },
}

/// Why a request never left.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The host's name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The configured host.
        host: String,
        /// What the resolver said; none when it knew the name and no address.
        source: Option<io::Error>,
    },
    /// No address took the connection; the last one said so.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The upstream's certificate was not accepted, or it does not speak TLS.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// No connection within the time allowed.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// Every connection that may be open was busy for the time allowed.
    #[error("every connection was busy for {0:?}")]
    Busy(Duration),
    /// The connection was gone before anything was written to it.
    #[error("the connection closed before the request was written")]
    Closed(#[source] hyper::Error),
}

/// Why an answer is no answer.
#[derive(Debug, Error)]
pub(crate) enum BrokenAnswer {
    /// The connection broke, or the answer is no HTTP.
    #[error("the connection or its answer broke")]
    Http(#[source] hyper::Error),
    /// The answer has both Content-Length and Transfer-Encoding: two readers would end it in two places
    /// (RFC 9112 6.3).
    #[error("the answer has both Content-Length and Transfer-Encoding")]
    Framing,
}

impl UpstreamError {
    /// A connection that was not made.
    pub(crate) fn not_sent(source: ConnectError) -> Self {
        let timed_out = match &source {
            ConnectError::TimedOut(_) | ConnectError::Busy(_) => true,
            ConnectError::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            ConnectError::Resolve { .. } | ConnectError::Tls(_) | ConnectError::Closed(_) => false,
        };
        Self::NotSent { timed_out, source }
    }

    /// Whether it is certain that nothing was sent.
    #[cfg(test)]
    pub(crate) fn is_not_sent(&self) -> bool {
        matches!(self, Self::NotSent { .. })
    }

    /// The innermost cause, for a log line.
    pub(crate) fn root(&self) -> &(dyn Error + 'static) {
        let mut cause: &(dyn Error + 'static) = self;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause
    }
}
