//! What a failure of Redis means for what was asked.

use hapax_core::store::StoreError;
use redis::RedisError;

/// Why a store in Redis cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisStoreError {
    /// The URL makes no sense. The message has no part of it: it may hold a password.
    #[error(
        "the URL cannot be used: it has the form redis://[USER][:PASSWORD@]HOST[:PORT][/DB], with rediss:// for TLS"
    )]
    Url,
    /// The server cannot be reached, or does not let us in.
    #[error("the server cannot be used: {0}")]
    Unusable(#[from] RedisError),
    /// It did not answer in time.
    #[error("the server did not answer in time")]
    Silent,
    /// Somebody else has just tried, in vain.
    #[error("the server could not be reached a moment ago")]
    JustTried,
    /// The connection leads to a replica, which cannot write.
    #[error("this server is a replica: connect to the primary, by a name that follows it")]
    Replica,
    /// The server may throw records away to make room.
    #[error(
        "the server runs with maxmemory-policy = {0}: it would throw away records to make room, and their operations would run again; set noeviction"
    )]
    Evicting(String),
    /// The server lacks what the scripts need.
    #[error("the server has version {0}: Redis 7.0 or any Valkey is needed")]
    TooOld(String),
    /// The server keeps less than when this process started.
    #[error("the server has become less durable than it was when this process started: {0}")]
    Weakened(String),
    /// A cluster without the slots that are needed.
    #[error("the cluster has no server for slot {0}")]
    Uncovered(u16),
    /// What the store says of itself is not what this program wrote.
    #[error("the store's own entry is damaged")]
    Damaged,
    /// The store is being filled, or that was cut off.
    #[error(
        "a copy into this store is under way or was cut off: its records are not complete (when no copy is under way, remove all keys that begin with hapax:{{ and copy again)"
    )]
    Unfinished,
    /// The data belong to a newer program.
    #[error("the store has version {0}, this program knows 1: update hapax on this machine")]
    Newer(String),
    /// A partition has another store's mark.
    #[error(
        "the servers hold parts of two stores: one was emptied, exchanged or restored by itself"
    )]
    Mixed,
    /// The operating system has no randomness to give.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

/// Whether a command changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// It does: when its end is not known, it may have happened.
    Write,
    /// It does not.
    Read,
}

/// How a command failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There was no connection: nothing was sent.
    Unconnected(RedisStoreError),
    /// It was sent, or may have been, and there is no answer.
    Lost(RedisError),
    /// The server answered with an error.
    Server(RedisError),
    /// The answer belongs to another call, or is none that was asked for.
    Strange,
    /// Written, but fewer replicas than asked for have said that they have it.
    TooFewReplicas,
}

/// Errors that a server gives before it does anything.
const BEFORE_ANYTHING: [&str; 15] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "EXECABORT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOREPLICAS",
    "NOSCRIPT",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "WRONGPASS",
];

impl Failure {
    /// The server's own word for its error.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.code(),
            _ => None,
        }
    }

    /// What it means for what was asked.
    pub(super) fn into_store_error(self, intent: Intent) -> StoreError {
        let boxed = |error| Some(Box::new(error) as Box<dyn std::error::Error + Send + Sync>);
        let lost = |source| match intent {
            Intent::Write => StoreError::Uncertain {
                reason: "Redis did not say whether it wrote",
                source,
            },
            Intent::Read => StoreError::Refused {
                reason: "Redis did not answer",
                source,
            },
        };
        match self {
            Self::Unconnected(error) => StoreError::Refused {
                reason: "no connection to Redis",
                source: Some(Box::new(error)),
            },
            Self::Server(error) => match error.code() {
                Some("OOM") => StoreError::Full {
                    what: "the memory of Redis is used up",
                },
                Some("WRONGTYPE") => StoreError::Damaged {
                    what: "something else stands where a record or an index should",
                },
                Some(code) if BEFORE_ANYTHING.contains(&code) => StoreError::Refused {
                    reason: "Redis refused",
                    source: boxed(error),
                },
                // A script that failed half-way may have written.
                _ => lost(boxed(error)),
            },
            Self::Lost(error) => lost(boxed(error)),
            Self::Strange => lost(None),
            Self::TooFewReplicas => StoreError::Uncertain {
                reason: "fewer replicas than redis_wait asks for have what was written",
                source: None,
            },
        }
    }
}

pub(super) fn refused(reason: &'static str) -> StoreError {
    StoreError::Refused {
        reason,
        source: None,
    }
}
