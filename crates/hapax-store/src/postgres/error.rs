//! What a failure of PostgreSQL means for what was asked.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

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
    #[error("this server is a standby: name the primary, or all hosts (postgres://one,two/…)")]
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
    /// The certificates to verify the server with cannot be used.
    #[error("the certificates to verify the server with: {0}")]
    Certificates(String),
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

/// Why a statement brought no rows. Cloned for each whose statement it was.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is no connection: nothing was sent.
    Unconnected(Arc<PoolError<PostgresError>>),
    /// The server refused it, or the connection broke.
    Failed(Arc<tokio_postgres::Error>),
    /// It was sent, and the server said nothing for too long.
    Silent,
    /// It was committed without the standby's word.
    Unreplicated,
    /// Whoever ran it for several has ended.
    Abandoned,
}

impl Failure {
    pub(super) fn unconnected(error: PoolError<PostgresError>) -> Self {
        Self::Unconnected(Arc::new(error))
    }

    pub(super) fn failed(error: tokio_postgres::Error) -> Self {
        Self::Failed(Arc::new(error))
    }

    /// Whether nothing was written, for certain.
    ///
    /// Every statement is a transaction of its own. One that the server reports as failed was
    /// rolled back whole. A report that ends the session as well (FATAL) may come after the
    /// commit, while the server waits for a standby; and where the connection breaks, nobody
    /// knows.
    pub(super) fn is_rolled_back(&self) -> bool {
        match self {
            Self::Unconnected(_) => true,
            Self::Failed(error) => error.as_db_error().is_some_and(|reported| {
                reported.parsed_severity() == Some(Severity::Error)
                    && *reported.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            }),
            Self::Silent | Self::Unreplicated | Self::Abandoned => false,
        }
    }

    /// Whether a statement for several may have failed because of one of them, so that the
    /// others do better without it: wrong or unreadable data, a constraint, a deadlock.
    pub(super) fn may_be_of_one(&self) -> bool {
        let Self::Failed(error) = self else {
            return false;
        };
        let class = error.code().and_then(|code| code.code().get(..2));
        self.is_rolled_back() && matches!(class, Some("21" | "22" | "23" | "40" | "54" | "XX"))
    }

    /// What it means for what was asked.
    pub(super) fn means(self, intent: Intent) -> StoreError {
        let is_rolled_back = self.is_rolled_back();
        let (lost, source) = match self {
            Self::Unconnected(error) => {
                return StoreError::Refused {
                    reason: "no connection to PostgreSQL",
                    source: Some(Box::new(error)),
                };
            }
            Self::Failed(error) if is_rolled_back => {
                if error.code() == Some(&SqlState::DISK_FULL) {
                    return StoreError::Full {
                        what: "the disk of PostgreSQL is full",
                    };
                }
                return StoreError::Refused {
                    reason: "PostgreSQL refused a statement",
                    source: Some(Box::new(error)),
                };
            }
            Self::Failed(error) => {
                let source = Box::new(error) as Box<dyn Error + Send + Sync>;
                ("the connection to PostgreSQL was lost", Some(source))
            }
            Self::Silent => ("PostgreSQL did not answer in time", None),
            Self::Unreplicated => ("PostgreSQL committed without waiting for its standby", None),
            Self::Abandoned => ("this process is ending", None),
        };
        match intent {
            Intent::Write => StoreError::Uncertain {
                reason: lost,
                source,
            },
            Intent::Read => StoreError::Refused {
                reason: lost,
                source,
            },
        }
    }
}

/// What it means at the start that there is no connection.
pub(super) fn of_pool(error: PoolError<PostgresError>) -> PostgresError {
    match error {
        PoolError::Backend(error) => error,
        error => PostgresError::Unusable(with_causes(&error)),
    }
}

pub(super) fn refused(reason: &'static str) -> StoreError {
    StoreError::Refused {
        reason,
        source: None,
    }
}
