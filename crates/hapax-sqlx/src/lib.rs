//! Idempotency keys for axum on sqlx: the key and the effect in one transaction.
//!
//! [`TransactionLayer`] begins a transaction, inserts the record of the request's key, hands the
//! transaction to the handler ([`Tx`]), stores the answer in the record, commits, and then answers.
//! So there is exactly one commit for a key, and no moment at which a crash leaves an effect
//! without its record, or a record without its effect: nothing is ever *unknown* (P37, P38).
//!
//! Contract, in the order in which it holds for a request:
//!
//! 1. Safe methods and CONNECT pass through untouched, without a transaction (P1). A request
//!    without a key runs in a transaction all the same, unless the policy refuses it (P3).
//! 2. Key, scope, content and fingerprint are judged before the database is asked (section C).
//! 3. The record's key is locked without waiting. A duplicate of a running request waits without a
//!    connection, or gets 409 (P37, P40). What is committed is replayed, byte for byte.
//! 4. The handler runs in a task of its own: a client that leaves changes nothing (P18).
//! 5. A handler that panics, exceeds `upstream_timeout`, answers 5xx or calls [`Tx::roll_back`]
//!    leaves neither effect nor record, and the key is vacant.
//! 6. A refusal for good (400, 404, 422, …) takes its effects back and is remembered, or is not
//!    remembered either ([`Options::rejections`]).
//! 7. A transaction that the database rolls back (serialization, deadlock, busy) runs again, up to
//!    [`Options::max_runs`] times; then 503, with the key vacant.
//!
//! The rules are `hapax-core`'s, as everywhere.
//!
//! What is outside the transaction is not protected by it: a mail that the handler sends, a call
//! to a payment provider, a write through another connection. For these there are the [`Outbox`]
//! (commit, then send, at least once) and recovery points ([`Steps`]: each step is committed with its
//! result, and has a key for the call that it makes).

mod complete;
mod digest;
mod drive;
mod execution;
mod flights;
mod holding;
mod layer;
mod outbox;
mod path;
#[cfg(feature = "postgres")]
mod postgres;
mod records;
mod service;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod steps;
mod transaction;
mod unkeyed;

pub use layer::{Isolation, Options, Rejections, SetupError, TransactionLayer};
pub use outbox::{Delivered, Outbox, OutboxEvent};
pub use records::{Records, RecordsError};
pub use service::TransactionService;
pub use steps::{Due, Step, StepTx, Steps};
pub use transaction::{DatabaseError, Tx, TxRejection};

/// A database that can keep records beside an application's own tables.
///
/// Implemented for `sqlx::Postgres` and `sqlx::Sqlite`, behind the features `postgres` and
/// `sqlite`.
pub trait Dialect: statements::Statements {}

#[cfg(feature = "postgres")]
impl Dialect for sqlx::Postgres {}

#[cfg(feature = "sqlite")]
impl Dialect for sqlx::Sqlite {}

/// Why a query failed, whichever of the databases it went to: each knows its own errors.
fn kind_of(error: &sqlx::Error) -> statements::FailureKind {
    #[cfg(feature = "postgres")]
    if <sqlx::Postgres as statements::Statements>::kind_of(error)
        == statements::FailureKind::Conflict
    {
        return statements::FailureKind::Conflict;
    }
    #[cfg(feature = "sqlite")]
    if <sqlx::Sqlite as statements::Statements>::kind_of(error) == statements::FailureKind::Conflict
    {
        return statements::FailureKind::Conflict;
    }
    let _ = error;
    statements::FailureKind::Other
}
