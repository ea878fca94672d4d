//! The SQL: tables, and what is asked of them. The same text for SQLite and PostgreSQL.

use std::future::Future;

use sqlx::{Database, Postgres, Row, Sqlite};

use crate::order::{CURRENCY, Entry, Ledger, Order};

/// The most orders of a list, and entries of a ledger, in one answer.
pub(crate) const PAGE: i64 = 1_000;

/// A database that can hold orders. Every method works on a connection, so that a caller can put
/// several of them into one transaction.
pub(crate) trait Orders: Database {
    /// Begins a transaction that will write. SQLite takes its write lock at once, rather than at
    /// the first write, where it could no longer wait for it.
    const BEGIN: &'static str;

    /// Makes the tables if they are not there.
    ///
    /// `UNIQUE` on the order's id is the last line of defence: whatever goes wrong above it, one
    /// id is one order.
    fn make_tables(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Writes an order unless its id is taken; says whether it did.
    fn insert(
        connection: &mut Self::Connection,
        order: &Order,
        request: Option<&str>,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Writes a charge or, with a negative amount, a refund.
    fn enter(
        connection: &mut Self::Connection,
        order: &str,
        amount: i64,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The order with this id, a cancelled one too.
    fn find(
        connection: &mut Self::Connection,
        id: &str,
    ) -> impl Future<Output = sqlx::Result<Option<Order>>> + Send;

    /// The newest orders that are not cancelled: all of them, or those of one request.
    fn list(
        connection: &mut Self::Connection,
        request: Option<&str>,
    ) -> impl Future<Output = sqlx::Result<Vec<Order>>> + Send;

    /// Marks an order cancelled; says what is to be refunded, `None` when there is nothing to
    /// cancel (any more).
    fn cancel(
        connection: &mut Self::Connection,
        id: &str,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send;

    /// Every movement of money.
    fn ledger(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<Ledger>> + Send;
}

/// Implements [`Orders`] for a database: `begin` begins a transaction that will write, `number` is
/// the type of a column that counts the rows.
macro_rules! orders_on {
    ($database:ty, begin: $begin:literal, number: $number:literal) => {
        impl Orders for $database {
            const BEGIN: &'static str = $begin;

            async fn make_tables(connection: &mut Self::Connection) -> sqlx::Result<()> {
                for statement in [
                    concat!(
                        "CREATE TABLE IF NOT EXISTS orders (number ",
                        $number,
                        ", id TEXT NOT NULL UNIQUE,
                         item TEXT NOT NULL,
                         quantity BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 100),
                         total BIGINT NOT NULL CHECK (total > 0),
                         request TEXT,
                         is_cancelled BIGINT NOT NULL DEFAULT 0)"
                    ),
                    "CREATE INDEX IF NOT EXISTS orders_by_request ON orders (request)",
                    concat!(
                        "CREATE TABLE IF NOT EXISTS ledger (number ",
                        $number,
                        ", order_id TEXT NOT NULL REFERENCES orders (id),
                         kind TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
                         amount BIGINT NOT NULL,
                         UNIQUE (order_id, kind))"
                    ),
                ] {
                    sqlx::query(statement).execute(&mut *connection).await?;
                }
                Ok(())
            }

            async fn insert(
                connection: &mut Self::Connection,
                order: &Order,
                request: Option<&str>,
            ) -> sqlx::Result<bool> {
                sqlx::query(
                    "INSERT INTO orders (id, item, quantity, total, request)
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
                )
                .bind(&order.id)
                .bind(&order.item)
                .bind(order.quantity)
                .bind(order.total)
                .bind(request)
                .execute(connection)
                .await
                .map(|done| done.rows_affected() == 1)
            }

            async fn enter(
                connection: &mut Self::Connection,
                order: &str,
                amount: i64,
            ) -> sqlx::Result<()> {
                sqlx::query("INSERT INTO ledger (order_id, kind, amount) VALUES ($1, $2, $3)")
                    .bind(order)
                    .bind(if amount < 0 { "refund" } else { "charge" })
                    .bind(amount)
                    .execute(connection)
                    .await
                    .map(|_| ())
            }

            async fn find(
                connection: &mut Self::Connection,
                id: &str,
            ) -> sqlx::Result<Option<Order>> {
                sqlx::query(
                    "SELECT id, item, quantity, total, is_cancelled FROM orders WHERE id = $1",
                )
                .bind(id)
                .try_map(|row| order_of(&row))
                .fetch_optional(connection)
                .await
            }

            async fn list(
                connection: &mut Self::Connection,
                request: Option<&str>,
            ) -> sqlx::Result<Vec<Order>> {
                sqlx::query(
                    "SELECT id, item, quantity, total, is_cancelled FROM orders
                     WHERE is_cancelled = 0 AND (CAST($1 AS TEXT) IS NULL OR request = $1)
                     ORDER BY number DESC LIMIT $2",
                )
                .bind(request)
                .bind(PAGE)
                .try_map(|row| order_of(&row))
                .fetch_all(connection)
                .await
            }

            async fn cancel(
                connection: &mut Self::Connection,
                id: &str,
            ) -> sqlx::Result<Option<i64>> {
                sqlx::query(
                    "UPDATE orders SET is_cancelled = 1 WHERE id = $1 AND is_cancelled = 0
                     RETURNING total",
                )
                .bind(id)
                .try_map(|row| sqlx::Row::try_get(&row, 0))
                .fetch_optional(connection)
                .await
            }

            async fn ledger(connection: &mut Self::Connection) -> sqlx::Result<Ledger> {
                // One statement, so that sums and entries are of one moment on every database.
                let rows = sqlx::query(
                    "SELECT sums.charges, sums.refunds, sums.total,
                            latest.order_id, latest.kind, latest.amount
                     FROM (SELECT COUNT(CASE WHEN kind = 'charge' THEN 1 END) AS charges,
                                  COUNT(CASE WHEN kind = 'refund' THEN 1 END) AS refunds,
                                  COALESCE(CAST(SUM(amount) AS BIGINT), 0) AS total
                           FROM ledger) AS sums
                     LEFT JOIN (SELECT number, order_id, kind, amount
                                FROM ledger ORDER BY number DESC LIMIT $1) AS latest ON TRUE
                     ORDER BY latest.number",
                )
                .bind(PAGE)
                .fetch_all(connection)
                .await?;
                let sums = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                let entries = rows
                    .iter()
                    .filter_map(|row| entry_of(row).transpose())
                    .collect::<sqlx::Result<_>>()?;
                Ok(Ledger {
                    charges: sums.try_get(0)?,
                    refunds: sums.try_get(1)?,
                    total: sums.try_get(2)?,
                    currency: CURRENCY,
                    entries,
                })
            }
        }
    };
}

orders_on!(
    Sqlite,
    begin: "BEGIN IMMEDIATE",
    number: "INTEGER PRIMARY KEY"
);
orders_on!(
    Postgres,
    begin: "BEGIN",
    number: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
);

fn order_of<R: Row>(row: &R) -> sqlx::Result<Order>
where
    usize: sqlx::ColumnIndex<R>,
    String: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    Ok(Order {
        id: row.try_get(0)?,
        item: row.try_get(1)?,
        quantity: row.try_get(2)?,
        total: row.try_get(3)?,
        currency: CURRENCY,
        is_cancelled: row.try_get::<i64, _>(4)? != 0,
    })
}

/// The entry in a row of sums and entries; `None` where there are only sums.
fn entry_of<R: Row>(row: &R) -> sqlx::Result<Option<Entry>>
where
    usize: sqlx::ColumnIndex<R>,
    String: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let Some(order) = row.try_get(3)? else {
        return Ok(None);
    };
    Ok(Some(Entry {
        order,
        kind: row.try_get(4)?,
        amount: row.try_get(5)?,
    }))
}
