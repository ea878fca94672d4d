//! A transactional outbox: commit, then send an event.

use std::future::Future;
use std::time::Duration;

use crate::records::begin;
use crate::{Dialect, Records};

/// How long an event that was taken to be sent is left to whoever took it.
const LEASE: Duration = Duration::from_secs(60);

/// An event that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// 32 hexadecimal digits, the same at every attempt: the receiver's means to drop a repeat.
    pub id: String,
    /// What it is about.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// How often it has been sent, this time included.
    pub attempt: u32,
}

/// What [`Outbox::deliver`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Events that were sent, and are gone.
    pub sent: usize,
    /// Events that could not be sent, and are due again in a minute.
    pub failed: usize,
}

/// Events that are written in the transaction of their cause and sent after its commit, **at least
/// once**: a crash between sending and noting that it was sent sends again. The event's id tells a
/// receiver. Events that fail are passed by, so that the order is that of writing only as long as
/// all goes well.
pub struct Outbox<DB: Dialect> {
    records: Records<DB>,
}

impl<DB: Dialect> std::fmt::Debug for Outbox<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox(..)")
    }
}

impl<DB: Dialect> Outbox<DB> {
    /// The outbox beside `records`.
    pub fn new(records: Records<DB>) -> Self {
        Self { records }
    }

    /// Writes an event in the transaction of its cause (`&mut **tx`); returns its id. Rolled back
    /// with that, it was never written.
    ///
    /// # Errors
    /// The database's; and when the system has no random numbers.
    pub async fn put(
        connection: &mut DB::Connection,
        topic: &str,
        payload: &[u8],
    ) -> sqlx::Result<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let id = format!("{:032x}", u128::from_be_bytes(bytes));
        DB::put_event(connection, &id, topic, payload).await?;
        Ok(id)
    }

    /// Takes up to `limit` events that are due and hands them to `send`, one after another. To be
    /// called again and again, by as many processes as there are: none is handed to two at once.
    /// Neither a transaction nor a connection is held while `send` runs.
    ///
    /// # Errors
    /// The database's; events that were taken are due again in a minute.
    pub async fn deliver<F, E>(
        &self,
        limit: u32,
        mut send: impl FnMut(OutboxEvent) -> F,
    ) -> sqlx::Result<Delivered>
    where
        F: Future<Output = Result<(), E>>,
    {
        let lease_ms = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let pool = &self.records.pool;
        let mut transaction = begin(pool, DB::BEGIN).await?;
        let events = DB::take_events(&mut transaction, i64::from(limit), lease_ms).await?;
        transaction.commit().await?;
        let mut delivered = Delivered::default();
        for (number, id, topic, payload, attempts) in events {
            let event = OutboxEvent {
                id,
                topic,
                payload,
                attempt: u32::try_from(attempts).unwrap_or(u32::MAX),
            };
            if send(event).await.is_err() {
                delivered.failed += 1;
                continue;
            }
            let mut transaction = begin(pool, DB::BEGIN).await?;
            DB::end_event(&mut transaction, number).await?;
            transaction.commit().await?;
            delivered.sent += 1;
        }
        Ok(delivered)
    }
}
