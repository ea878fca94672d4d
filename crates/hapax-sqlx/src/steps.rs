//! Recovery points: named steps of a request, each committed with its result and skipped when the
//! request is tried again.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use sqlx::Transaction;
use tokio::sync::OwnedSemaphorePermit;

use hapax_core::key::{Key, RecordKey, derived_upstream_key};
use hapax_core::scope::ScopeId;

use crate::holding::writer;
use crate::layer::Shared;
use crate::records::begin;
use crate::transaction::{DatabaseError, TxRejection};
use crate::{Dialect, statements};

/// The steps of a request, as an extractor, behind a layer with
/// [`Options::recovery_points`](crate::Options::recovery_points).
///
/// For a handler that calls somebody else's API in between, where one transaction cannot be enough.
/// The handler runs from its start at every attempt, and asks at each step whether that is done:
///
/// ```text
/// let charge = match steps.step("charge").await? {
///     Step::Done(charge) => charge,
///     Step::Due(due) => {
///         let charge = provider.charge(order, due.key()).await?;   // the same key at every attempt
///         due.done(charge).await?
///     }
/// };
/// ```
///
/// What this gives: what a step writes in its own transaction ([`Due::begin`]) is committed once
/// for a key. What it calls outside is called **at least once**, each time with the same derived
/// key, so that it happens once if the other side honours that key. What it cannot give: a call to
/// somebody who knows no keys may happen twice, when the process ends between the call and the
/// commit of its result.
pub struct Steps<DB: Dialect> {
    shared: Arc<Shared<DB>>,
    key: RecordKey,
}

/// A step that is done, or that is due.
#[derive(Debug)]
pub enum Step<DB: Dialect> {
    /// An earlier attempt has done it, with this result.
    Done(String),
    /// It is to be done now.
    Due(Due<DB>),
}

/// A step that is to be done.
pub struct Due<DB: Dialect> {
    shared: Arc<Shared<DB>>,
    key: RecordKey,
    name: String,
    derived: String,
}

/// The transaction of a step. Dropped without [`StepTx::commit`] it is rolled back.
pub struct StepTx<DB: Dialect> {
    transaction: Transaction<'static, DB>,
    key: RecordKey,
    name: String,
    _writer: Option<OwnedSemaphorePermit>,
}

impl<DB: Dialect> Clone for Steps<DB> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            key: self.key,
        }
    }
}

impl<DB: Dialect> fmt::Debug for Steps<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps(..)")
    }
}

impl<DB: Dialect> fmt::Debug for Due<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Due({})", self.name)
    }
}

impl<DB: Dialect> fmt::Debug for StepTx<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepTx({})", self.name)
    }
}

impl<S: Sync, DB: Dialect> FromRequestParts<S> for Steps<DB> {
    type Rejection = TxRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, TxRejection> {
        let steps = parts.extensions.get::<Self>();
        steps.cloned().ok_or(TxRejection::NoLayer)
    }
}

impl<DB: Dialect> Steps<DB> {
    pub(crate) fn new(shared: Arc<Shared<DB>>, key: RecordKey) -> Self {
        Self { shared, key }
    }

    /// Whether the step `name` is done, and with which result. Names are visible ASCII, and mean
    /// the same in every version of the handler that may meet an unfinished request.
    ///
    /// # Errors
    /// The database's; or the name is none.
    pub async fn step(&self, name: &str) -> Result<Step<DB>, DatabaseError> {
        let records = &self.shared.records;
        let derived_from = Key::from_text(&format!("{}/{name}", self.key))
            .map_err(|error| sqlx::Error::Encode(error.into()))?;
        let mut connection = records.pool.acquire().await?;
        if let Some(result) = DB::step(&mut connection, self.key.as_bytes(), name).await? {
            return Ok(Step::Done(result));
        }
        let scope = ScopeId::from_bytes([0; 16]);
        Ok(Step::Due(Due {
            shared: Arc::clone(&self.shared),
            key: self.key,
            name: name.to_owned(),
            derived: derived_upstream_key(&records.keys, "step", scope, &derived_from),
        }))
    }
}

impl<DB: Dialect> Due<DB> {
    /// A key for the call that this step makes: 32 hexadecimal digits, the same at every attempt
    /// at this step of this request, and another for every other.
    pub fn key(&self) -> &str {
        &self.derived
    }

    /// Notes that the step is done, with this result; returns it.
    ///
    /// # Errors
    /// As [`Due::begin`] and [`StepTx::commit`].
    pub async fn done(self, result: impl Into<String>) -> Result<String, DatabaseError> {
        self.begin().await?.commit(result).await
    }

    /// Begins the transaction of the step, for what it writes. One that runs in another process at
    /// the same time is waited for.
    ///
    /// # Errors
    /// The database's. A conflict, after which the layer tries the request again, when another
    /// attempt has done this step or answered the request meanwhile.
    pub async fn begin(self) -> Result<StepTx<DB>, DatabaseError> {
        let shared = &self.shared;
        let writer = writer(shared).await;
        let mut transaction = begin(&shared.records.pool, DB::BEGIN).await?;
        let key = self.key.as_bytes();
        if !DB::lock_flow(&mut transaction, key).await?
            || DB::step(&mut transaction, key, &self.name).await?.is_some()
        {
            return Err(DatabaseError::conflict(sqlx::Error::RowNotFound));
        }
        Ok(StepTx {
            transaction,
            key: self.key,
            name: self.name,
            _writer: writer,
        })
    }
}

impl<DB: Dialect> StepTx<DB> {
    /// Commits what was written together with the step's result; returns that.
    ///
    /// # Errors
    /// The database's.
    pub async fn commit(mut self, result: impl Into<String>) -> Result<String, DatabaseError> {
        let result = result.into();
        DB::end_step(
            &mut self.transaction,
            self.key.as_bytes(),
            &self.name,
            &result,
        )
        .await?;
        self.transaction.commit().await?;
        Ok(result)
    }
}

impl<DB: Dialect> Deref for StepTx<DB> {
    type Target = Transaction<'static, DB>;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl<DB: Dialect> DerefMut for StepTx<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

impl DatabaseError {
    pub(crate) fn conflict(source: sqlx::Error) -> Self {
        Self::with(source, statements::FailureKind::Conflict)
    }
}
