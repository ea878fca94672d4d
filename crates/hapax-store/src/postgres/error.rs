//! What a failure of PostgreSQL means for what was asked.

use std::error::Error;
use std::fmt::Write;

use deadpool::managed::PoolError;
use hapax_core::store::StoreError;
use tokio_postgres::error::{Severity, SqlState};

/// Why a store in PostgreSQL cannot be opened or migrated.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL makes no sense. The message has no part of it: it may hold a password.
    #[error("the URL cannot be used: {0}")]
    Url(String),
    /// The server cannot be reached, or does not let us in.
    #[error("the server cannot be used: {0}")]
    Unusable(String),
    /// The connection leads to a standby, which cannot write.
    #[error(
        "this server is a standby: connect to the primary (in a URL with several hosts, add target_session_attrs=read-write)"
    )]
    Standby,
    /// The server is set up to lose what it acknowledged.
    #[error(
        "the server runs with {setting} = {value}: an acknowledged record would not survive a crash"
    )]
    Unsafe {
        /// The server's setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// The tables are not there, or older than this program.
    #[error(
        "the schema has version {found}, this program needs {needed}: run `hapax store migrate`"
    )]
    Unmigrated {
        /// The version there is; 0 for none.
        found: i32,
        /// The version this program needs.
        needed: i32,
    },
    /// The tables belong to a newer program.
    #[error(
        "the schema has version {found}, this program knows {known}: update hapax on this machine"
    )]
    Newer {
        /// The version there is.
        found: i32,
        /// The version this program knows.
        known: i32,
    },
    /// The secret is not what this program wrote.
    #[error("the store's secret is damaged")]
    Secret,
    /// The operating system has no randomness to give.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Unusable(with_causes(&error))
    }
}

/// The error and what is below it: the client's own messages say little.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        // Writing to a string does not fail.
        let _ = write!(text, ": {cause}");
        below = cause.source();
    }
    text
}

/// Whether a statement changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// It does: when its end is not known, it may have happened.
    Write,
    /// It does not.
    Read,
}

/// What the failure of a statement means.
///
/// Every statement is a transaction of its own. One that the server reports as failed was rolled
/// back whole. A report that ends the session as well (FATAL) may come after the commit, while
/// the server waits for a standby; and where the connection breaks, nobody knows.
pub(super) fn of_statement(intent: Intent, error: tokio_postgres::Error) -> StoreError {
    let reported = error.as_db_error();
    let is_rolled_back = reported.is_some_and(|reported| {
        reported.parsed_severity() == Some(Severity::Error)
            && *reported.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
    });
    if reported.is_some_and(|reported| *reported.code() == SqlState::DISK_FULL) && is_rolled_back {
        return StoreError::Full {
            what: "the disk of PostgreSQL is full",
        };
    }
    let source = Some(Box::new(error) as Box<dyn Error + Send + Sync>);
    match intent {
        Intent::Write if !is_rolled_back => StoreError::Uncertain {
            reason: "the connection to PostgreSQL was lost during a write",
            source,
        },
        _ if is_rolled_back => StoreError::Refused {
            reason: "PostgreSQL refused a statement",
            source,
        },
        _ => StoreError::Refused {
            reason: "the connection to PostgreSQL was lost",
            source,
        },
    }
}

/// What it means that there is no connection: nothing was sent.
pub(super) fn of_pool(error: PoolError<PostgresError>) -> StoreError {
    StoreError::Refused {
        reason: "no connection to PostgreSQL",
        source: Some(Box::new(error)),
    }
}

pub(super) fn refused(reason: &'static str) -> StoreError {
    StoreError::Refused {
        reason,
        source: None,
    }
}
