//! Fills a vacant store in PostgreSQL with the records of another, in one transaction.

use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::{HashKeys, Secret};
use tokio_postgres::Client;

use super::connection::{Connector, Session};
use super::error::PostgresError;
use super::options::{GATEWAY, PostgresOptions};
use super::schema::migrate;
use crate::shared;
use crate::transfer::TransferError;

/// How connections of this kind are called, so that they are not taken for a gateway's.
const NAME: &str = "hapax store";

const INSERT: &str = "INSERT INTO hapax_store_records
        (key, claim, state, claimed_at, written_at, expires_at, value)
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int2[], $4::int8[], $5::int8[], $6::int8[], $7::bytea[])";

/// A store that is being filled. Nobody sees a record before all of them are there.
pub struct PostgresRestore {
    session: Session,
    keys: HashKeys,
}

impl PostgresRestore {
    /// Begins to fill the store in the database at `url`. Makes its tables where they are not
    /// there.
    ///
    /// # Errors
    /// [`TransferError::NotVacant`] when it has records, [`TransferError::InUse`] when gateways are
    /// connected: they would go on with the secret that it had; and [`TransferError::Postgres`].
    pub async fn create(
        url: &str,
        options: &PostgresOptions,
        secret: &Secret,
    ) -> Result<Self, TransferError> {
        migrate(url, options).await?;
        let options = PostgresOptions {
            application_name: NAME,
            ..options.clone()
        };
        let session = Connector::new(url, options)?.open().await?;
        let client = &session.client;
        // All of it is one transaction, which takes as long as it takes.
        let begin = "SET statement_timeout = 0; BEGIN; LOCK TABLE hapax_store_records IN ACCESS EXCLUSIVE MODE";
        client
            .batch_execute(begin)
            .await
            .map_err(PostgresError::from)?;
        let connected = connected_gateways(client).await?;
        if connected > 0 {
            return Err(TransferError::InUse(connected));
        }
        let select = "SELECT EXISTS (SELECT 1 FROM hapax_store_records)";
        let row = client
            .query_one(select, &[])
            .await
            .map_err(PostgresError::from)?;
        if row.try_get(0).map_err(PostgresError::from)? {
            return Err(TransferError::NotVacant(
                "the target has records".to_owned(),
            ));
        }
        let update = "UPDATE hapax_store SET secret = $1 WHERE id = 1";
        client
            .execute(update, &[&secret.as_bytes().as_slice()])
            .await
            .map_err(PostgresError::from)?;
        Ok(Self {
            session,
            keys: HashKeys::derive(secret),
        })
    }

    pub(crate) async fn put(&mut self, records: &[(RecordKey, Held)]) -> Result<(), TransferError> {
        let mut columns = Columns::default();
        for (key, held) in records {
            columns.push(&self.keys, key, held)?;
        }
        let Columns {
            keys,
            claims,
            states,
            claimed_at,
            written_at,
            expires_at,
            values,
        } = columns;
        let written = self
            .session
            .client
            .execute(
                INSERT,
                &[
                    &keys,
                    &claims,
                    &states,
                    &claimed_at,
                    &written_at,
                    &expires_at,
                    &values,
                ],
            )
            .await;
        written.map_err(PostgresError::from)?;
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<(), TransferError> {
        let committed = self.session.client.batch_execute("COMMIT").await;
        Ok(committed.map_err(PostgresError::from)?)
    }
}

/// How many connections gateways have to this database, as far as they go by their usual name.
pub(super) async fn connected_gateways(client: &Client) -> Result<i64, PostgresError> {
    let select = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()";
    Ok(client.query_one(select, &[&GATEWAY]).await?.try_get(0)?)
}

#[derive(Default)]
struct Columns {
    keys: Vec<Vec<u8>>,
    claims: Vec<Vec<u8>>,
    states: Vec<i16>,
    claimed_at: Vec<i64>,
    written_at: Vec<i64>,
    expires_at: Vec<Option<i64>>,
    values: Vec<Vec<u8>>,
}

impl Columns {
    fn push(&mut self, keys: &HashKeys, key: &RecordKey, held: &Held) -> Result<(), TransferError> {
        let record = &held.record;
        let value = shared::encode(keys, key, record).map_err(TransferError::Record)?;
        let millis = |instant: hapax_core::time::Timestamp| {
            i64::try_from(instant.as_millis()).unwrap_or(i64::MAX)
        };
        let written_at = millis(held.written_at);
        let lifetime = shared::lifetime_ms(record);
        self.keys.push(key.as_bytes().to_vec());
        self.claims.push(record.claim.as_bytes().to_vec());
        self.states.push(shared::state(record));
        self.claimed_at.push(millis(held.claimed_at));
        self.written_at.push(written_at);
        self.expires_at
            .push(lifetime.map(|lifetime| written_at.saturating_add(lifetime)));
        self.values.push(value.to_vec());
        Ok(())
    }
}

impl std::fmt::Debug for PostgresRestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresRestore(..)")
    }
}
