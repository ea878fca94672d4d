//! How a command ended, and why it did not do what it was asked for.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hapax_core::store::StoreError;
use hapax_store::transfer::TransferError;
use hapax_store::{OpenError, PostgresError, RedisStoreError};

use crate::check::CheckFailure;
use crate::config::ConfigError;
use crate::demo::{ChildError, DemoError};
use crate::remote::RemoteError;
use crate::serve::ServeError;
use crate::stores::StoreFailure;

/// How a command ended. The numbers are a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(
    dead_code,
    reason = "the contract is complete; not every command meets every case"
)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// It works, and something was found.
    Finding = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// Something cannot be reached, or is not allowed.
    Unreachable = 4,
    /// Nobody can tell.
    Inconclusive = 5,
    /// The store is damaged.
    StoreDamaged = 6,
    /// A fault of hapax itself.
    Bug = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no configuration to run with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file is there already.
    #[error("error: {} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("error: cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("error: cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The gateway did not start.
    #[error("error: {0}")]
    Serve(#[from] ServeError),
    /// The store cannot be prepared.
    #[error("error: {0}")]
    Prepare(#[from] StoreFailure),
    /// The gateway does not answer, or refuses.
    #[error("error: {0}")]
    Remote(#[from] RemoteError),
    /// The demo did not run.
    #[error("error: {0}")]
    Demo(#[from] DemoError),
    /// There is nothing to check.
    #[error("error: {0}")]
    Check(#[from] CheckFailure),
    /// A shop of the demo did not run.
    #[error("error: {0}")]
    DemoChild(#[from] ChildError),
    /// A file cannot be read.
    #[error("error: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store's files cannot be read.
    #[error("error: {0}")]
    Store(#[source] StoreError),
    /// Records cannot be taken from one place to another.
    #[error("error: {0}")]
    Transfer(#[from] TransferError),
    /// A stream of events broke off.
    #[error("error: the events broke off: {0}")]
    Stream(#[source] io::Error),
    /// What was asked for makes no sense.
    #[error("error: {0}")]
    Usage(String),
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Configuration,
            Self::Check(failure) if failure.is_usage() => Exit::Usage,
            Self::Check(_) => Exit::Unreachable,
            Self::Exists(_)
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::Output(_)
            | Self::Stream(_) => Exit::Unreachable,
            Self::Store(StoreError::Damaged { .. }) => Exit::StoreDamaged,
            Self::Store(_) => Exit::Unreachable,
            Self::Usage(_) => Exit::Usage,
            Self::Transfer(failure) => of_transfer(failure),
            Self::Remote(error) => error.exit(),
            Self::Serve(ServeError::Store(failure)) | Self::Prepare(failure) => of_store(failure),
            Self::Serve(
                ServeError::Tls(_)
                | ServeError::Tokens(_)
                | ServeError::Upstream(_)
                | ServeError::UpstreamUrl(_)
                | ServeError::NoAuditFile(_),
            ) => Exit::Configuration,
            Self::Serve(_) | Self::Demo(_) | Self::DemoChild(_) => Exit::Unreachable,
        }
    }
}

/// How a command ends that could not use the store.
fn of_store(failure: &StoreFailure) -> Exit {
    match failure {
        StoreFailure::Embedded {
            source: OpenError::Damaged { .. } | OpenError::Version { .. },
            ..
        }
        | StoreFailure::Redis(
            RedisStoreError::Newer(_)
            | RedisStoreError::Damaged
            | RedisStoreError::Mixed
            | RedisStoreError::Unfinished,
        ) => Exit::StoreDamaged,
        StoreFailure::InMemory => Exit::Usage,
        StoreFailure::UrlFile { .. }
        | StoreFailure::Url { .. }
        | StoreFailure::NothingToMigrate(_)
        | StoreFailure::Redis(RedisStoreError::Url) => Exit::Configuration,
        StoreFailure::Postgres(error) => of_postgres(error),
        _ => Exit::Unreachable,
    }
}

/// How a command ends that could not take records elsewhere.
fn of_transfer(failure: &TransferError) -> Exit {
    match failure {
        TransferError::DamagedSource(_)
        | TransferError::DamagedBackup { .. }
        | TransferError::Record(_)
        | TransferError::Source(StoreError::Damaged { .. })
        | TransferError::Embedded(OpenError::Damaged { .. } | OpenError::Version { .. }) => {
            Exit::StoreDamaged
        }
        TransferError::NotVacant(_)
        | TransferError::NotABackup(_)
        | TransferError::Redis(RedisStoreError::Unfinished) => Exit::Usage,
        TransferError::Redis(RedisStoreError::Url) => Exit::Configuration,
        TransferError::Redis(RedisStoreError::Newer(_)) => Exit::StoreDamaged,
        TransferError::Postgres(error) => of_postgres(error),
        _ => Exit::Unreachable,
    }
}

fn of_postgres(error: &PostgresError) -> Exit {
    match error {
        PostgresError::Newer { .. } | PostgresError::Secret => Exit::StoreDamaged,
        PostgresError::Url(_) | PostgresError::Certificates(_) => Exit::Configuration,
        _ => Exit::Unreachable,
    }
}
