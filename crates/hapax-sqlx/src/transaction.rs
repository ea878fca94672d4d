//! The transaction that a handler is given, and its way back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use sqlx::Transaction;

use hapax_core::problem::{Problem, ProblemKind};

use crate::Dialect;
use crate::statements::FailureKind;

/// The transaction of a request, as an extractor: whatever is written through it is committed
/// together with the request's key and answer, or not at all (P37).
///
/// It derefs to the connection, so that a query takes `&mut **tx`. It belongs to the layer: it can
/// be neither committed nor kept. A handler that wants nothing of it to stay answers 5xx, or calls
/// [`Tx::roll_back`]. What it writes through *another* connection is not part of it.
pub struct Tx<DB: Dialect> {
    transaction: Option<Transaction<'static, DB>>,
    slot: Slot<DB>,
}

impl<DB: Dialect> Tx<DB> {
    /// Nothing that this request has written will stay, and its key is given back, whatever the
    /// answer's status.
    pub fn roll_back(&mut self) {
        self.slot.0.is_rolled_back.store(true, Ordering::Release);
    }
}

impl<DB: Dialect> Deref for Tx<DB> {
    type Target = Transaction<'static, DB>;

    #[allow(clippy::expect_used, reason = "taken out by drop alone")]
    fn deref(&self) -> &Self::Target {
        self.transaction
            .as_ref()
            .expect("there until it is dropped")
    }
}

impl<DB: Dialect> DerefMut for Tx<DB> {
    #[allow(clippy::expect_used, reason = "taken out by drop alone")]
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transaction
            .as_mut()
            .expect("there until it is dropped")
    }
}

impl<DB: Dialect> Drop for Tx<DB> {
    fn drop(&mut self) {
        self.slot.put_back(self.transaction.take());
    }
}

impl<DB: Dialect> fmt::Debug for Tx<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx(..)")
    }
}

/// Why a handler gets no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TxRejection {
    /// The request did not come through the layer, or its method is safe (P1).
    #[error("there is no transaction: the route is not behind the layer, or its method is safe")]
    NoLayer,
    /// Two extractors of one handler ask for it.
    #[error("the transaction of this request has been handed out already")]
    Taken,
}

impl IntoResponse for TxRejection {
    fn into_response(self) -> Response {
        let problem = Problem::new(ProblemKind::RolledBack, self.to_string());
        problem.response().map(axum_core::body::Body::from)
    }
}

impl<S: Sync, DB: Dialect> FromRequestParts<S> for Tx<DB> {
    type Rejection = TxRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, TxRejection> {
        let slot = parts.extensions.get::<Slot<DB>>();
        let slot = slot.ok_or(TxRejection::NoLayer)?.clone();
        let transaction = slot.take().ok_or(TxRejection::Taken)?;
        Ok(Self {
            transaction: Some(transaction),
            slot,
        })
    }
}

/// Where the transaction is while no handler has it.
pub(crate) struct Slot<DB: Dialect>(Arc<Inner<DB>>);

struct Inner<DB: Dialect> {
    transaction: Mutex<Place<DB>>,
    is_rolled_back: AtomicBool,
}

enum Place<DB: Dialect> {
    Here(Transaction<'static, DB>),
    Away,
    /// The request is over: what comes back late is rolled back.
    Closed,
}

impl<DB: Dialect> Clone for Slot<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: Dialect> Slot<DB> {
    pub(crate) fn new(transaction: Transaction<'static, DB>) -> Self {
        Self(Arc::new(Inner {
            transaction: Mutex::new(Place::Here(transaction)),
            is_rolled_back: AtomicBool::new(false),
        }))
    }

    /// Takes the transaction back for good; `None` when a handler has kept it.
    pub(crate) fn close(&self) -> Option<Transaction<'static, DB>> {
        match self.replace(Place::Closed) {
            Place::Here(transaction) => Some(transaction),
            Place::Away | Place::Closed => None,
        }
    }

    pub(crate) fn is_rolled_back(&self) -> bool {
        self.0.is_rolled_back.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Transaction<'static, DB>> {
        let mut place = self.lock();
        match std::mem::replace(&mut *place, Place::Away) {
            Place::Here(transaction) => Some(transaction),
            other => {
                *place = other;
                None
            }
        }
    }

    fn put_back(&self, transaction: Option<Transaction<'static, DB>>) {
        let mut place = self.lock();
        if let (Place::Away, Some(transaction)) = (&*place, transaction) {
            *place = Place::Here(transaction);
        }
    }

    fn replace(&self, place: Place<DB>) -> Place<DB> {
        std::mem::replace(&mut *self.lock(), place)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Place<DB>> {
        self.0
            .transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failure of the database inside a handler, as its error type: `?` on a query turns into the
/// right answer. The transaction is rolled back; when the database itself chose to do that
/// (serialization, deadlock), the layer runs the handler again, within bounds.
#[derive(Debug)]
pub struct DatabaseError {
    source: sqlx::Error,
    kind: FailureKind,
}

impl DatabaseError {
    /// A failure of a query on `DB`.
    pub fn of<DB: Dialect>(source: sqlx::Error) -> Self {
        let kind = DB::kind_of(&source);
        Self::with(source, kind)
    }

    pub(crate) fn with(source: sqlx::Error, kind: FailureKind) -> Self {
        Self { source, kind }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database failed: {}", self.source)
    }
}

impl std::error::Error for DatabaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(source: sqlx::Error) -> Self {
        let kind = crate::kind_of(&source);
        Self { source, kind }
    }
}

/// On an answer: it is a failure of the database. `Conflict`: it rolled the transaction back, and
/// running it again may succeed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed(pub(crate) FailureKind);

impl IntoResponse for DatabaseError {
    fn into_response(self) -> Response {
        let detail = "The database failed. Nothing has happened.";
        let problem = Problem::new(ProblemKind::RolledBack, detail);
        let mut response = problem.response().map(axum_core::body::Body::from);
        response.extensions_mut().insert(Failed(self.kind));
        response
    }
}
