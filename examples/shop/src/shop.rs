//! What the service does: an order and its charge are written in one transaction.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Pool, SqlitePool};

use crate::order::{Ledger, Order, OrderId, Purchase};
use crate::orders::Orders;
use crate::protect::{Mode, Protection};

/// How many connections a shop holds at most.
const MAX_DATABASE_CONNECTIONS: u32 = 5;

/// How long a request waits for a connection, and SQLite for its write lock.
const DATABASE_PATIENCE: Duration = Duration::from_secs(10);

/// A shop on its database. Cheap to clone; all clones are one shop.
#[derive(Debug, Clone)]
pub struct Shop {
    database: Databases,
    protection: Protection,
    work: Duration,
}

/// The database that a shop was opened on.
#[derive(Debug, Clone)]
pub(crate) enum Databases {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Why a shop does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened, or its tables cannot be made.
    #[error("cannot open the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The records of idempotency keys cannot be opened.
    #[error("cannot open the records of keys: {0}")]
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// The payment provider's address is none.
    #[error("the payment provider's address has to be http://host:port")]
    Provider,
}

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Before the commit: nothing has happened, and trying again is safe.
    #[error("nothing was done: {0}")]
    RolledBack(#[from] sqlx::Error),
    /// In the commit: nobody can know whether it happened.
    #[error("nobody knows whether it was committed: {0}")]
    Commit(sqlx::Error),
}

/// What became of `PUT /order/{order-id}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// The order was made by this request.
    Created(Order),
    /// The order was there, and is the one that was asked for.
    Repeated(Order),
    /// The id is taken by an order of something else.
    Taken,
    /// The order was there and has been cancelled.
    Cancelled,
}

/// Does the same on whichever database there is.
macro_rules! on_database {
    ($shop:expr, $pool:ident => $body:expr) => {
        match &$shop.database {
            Databases::Sqlite($pool) => $body.await,
            Databases::Postgres($pool) => $body.await,
        }
    };
}

impl Shop {
    /// A shop whose database is an SQLite file, which is made if it is not there. What it answers
    /// has been written to disk.
    ///
    /// # Errors
    /// The file cannot be opened, or is no database.
    pub async fn open(database: impl AsRef<Path>) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An answered order survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(DATABASE_PATIENCE);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_DATABASE_CONNECTIONS)
            .acquire_timeout(DATABASE_PATIENCE)
            .connect_with(options)
            .await?;
        Self::with(Databases::Sqlite(pool)).await
    }

    /// A shop whose database ends with the process.
    ///
    /// # Errors
    /// As [`Shop::open`]; does not happen on a healthy machine.
    pub async fn in_memory() -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .in_memory(true)
            .foreign_keys(true);
        // One connection that is never closed: it is the database.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(DATABASE_PATIENCE)
            .connect_with(options)
            .await?;
        Self::with(Databases::Sqlite(pool)).await
    }

    /// A shop whose database is a PostgreSQL server's, by its URL (`postgres://…`).
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn connect(url: &str) -> Result<Self, OpenError> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(MAX_DATABASE_CONNECTIONS)
            .acquire_timeout(DATABASE_PATIENCE)
            .connect(url)
            .await?;
        Self::with(Databases::Postgres(pool)).await
    }

    async fn with(database: Databases) -> Result<Self, OpenError> {
        let shop = Self {
            database,
            protection: Protection::Naive,
            work: Duration::ZERO,
        };
        on_database!(shop, pool => make_tables(pool))?;
        Ok(shop)
    }

    /// Chooses which ways of creating an order there are.
    ///
    /// # Errors
    /// The mode keeps records of keys, and these cannot be opened.
    pub async fn mode(self, mode: Mode) -> Result<Self, OpenError> {
        let protection = Protection::open(mode, &self.database).await?;
        Ok(Self { protection, ..self })
    }

    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Makes the creation of an order take this long: the order is committed half way, and
    /// answered at the end. So that there is a moment at which to lose the answer, or the process.
    #[must_use]
    pub fn work(self, work: Duration) -> Self {
        Self { work, ..self }
    }

    /// Makes a new order, whatever was asked before: nothing tells a repeat from a second order.
    pub(crate) async fn create(
        &self,
        id: &OrderId,
        purchase: &Purchase,
        request: Option<&str>,
    ) -> Result<Order, Failure> {
        match self.place(id, purchase, request).await? {
            Placed::Created(order) => Ok(order),
            // Of 128 random bits. The constraint holds all the same.
            _ => Err(sqlx::Error::RowNotFound.into()),
        }
    }

    /// Makes the order `id`, or finds it.
    pub(crate) async fn place(
        &self,
        id: &OrderId,
        purchase: &Purchase,
        request: Option<&str>,
    ) -> Result<Placed, Failure> {
        self.half_of_the_work().await;
        let placed = on_database!(self, pool => place(pool, id, purchase, request))?;
        self.half_of_the_work().await;
        Ok(placed)
    }

    pub(crate) async fn half_of_the_work(&self) {
        tokio::time::sleep(self.work / 2).await;
    }

    /// The order `id`, a cancelled one too.
    pub(crate) async fn find(&self, id: &OrderId) -> Result<Option<Order>, Failure> {
        on_database!(self, pool => find(pool, id))
    }

    /// The newest orders: all of them, or those of one request.
    pub(crate) async fn list(&self, request: Option<&str>) -> Result<Vec<Order>, Failure> {
        on_database!(self, pool => list(pool, request))
    }

    /// Cancels the order `id` and gives the money back, once; says whether there is such an order.
    pub(crate) async fn cancel(&self, id: &OrderId) -> Result<bool, Failure> {
        on_database!(self, pool => cancel(pool, id))
    }

    /// Asks the database whether it is there.
    pub(crate) async fn ping(&self) -> Result<(), Failure> {
        on_database!(self, pool => ping(pool))
    }

    /// Every movement of money.
    pub(crate) async fn ledger(&self) -> Result<Ledger, Failure> {
        on_database!(self, pool => ledger(pool))
    }
}

async fn make_tables<D: Orders>(pool: &Pool<D>) -> sqlx::Result<()> {
    let mut transaction = pool.begin_with(D::BEGIN).await?;
    D::make_tables(&mut transaction).await?;
    transaction.commit().await
}

/// The order and its charge, or neither. Dropping a transaction rolls it back, so that every `?`
/// on the way leaves nothing behind.
async fn place<D: Orders>(
    pool: &Pool<D>,
    id: &OrderId,
    purchase: &Purchase,
    request: Option<&str>,
) -> Result<Placed, Failure> {
    let order = Order::new(id, purchase);
    let mut transaction = pool.begin_with(D::BEGIN).await?;
    if D::insert(&mut transaction, &order, request).await? {
        D::enter(&mut transaction, &order.id, order.total).await?;
        transaction.commit().await.map_err(Failure::Commit)?;
        return Ok(Placed::Created(order));
    }
    let first = D::find(&mut transaction, id.as_str()).await?;
    transaction.rollback().await?;
    Ok(match first.ok_or(sqlx::Error::RowNotFound)? {
        first if !first.is_of(purchase) => Placed::Taken,
        first if first.is_cancelled => Placed::Cancelled,
        first => Placed::Repeated(first),
    })
}

/// A connection that comes out of the pool has just answered.
async fn ping<D: Orders>(pool: &Pool<D>) -> Result<(), Failure> {
    pool.acquire().await?;
    Ok(())
}

async fn ledger<D: Orders>(pool: &Pool<D>) -> Result<Ledger, Failure> {
    Ok(D::ledger(&mut *pool.acquire().await?).await?)
}

async fn find<D: Orders>(pool: &Pool<D>, id: &OrderId) -> Result<Option<Order>, Failure> {
    Ok(D::find(&mut *pool.acquire().await?, id.as_str()).await?)
}

async fn list<D: Orders>(pool: &Pool<D>, request: Option<&str>) -> Result<Vec<Order>, Failure> {
    Ok(D::list(&mut *pool.acquire().await?, request).await?)
}

async fn cancel<D: Orders>(pool: &Pool<D>, id: &OrderId) -> Result<bool, Failure> {
    let mut transaction = pool.begin_with(D::BEGIN).await?;
    if let Some(total) = D::cancel(&mut transaction, id.as_str()).await? {
        D::enter(&mut transaction, id.as_str(), -total).await?;
        transaction.commit().await.map_err(Failure::Commit)?;
        return Ok(true);
    }
    let is_known = D::find(&mut transaction, id.as_str()).await?.is_some();
    transaction.rollback().await?;
    Ok(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the API, as a second service or a person with a console would.
    #[tokio::test]
    async fn the_unique_constraint_refuses_a_second_order_under_an_id() {
        let shop = Shop::in_memory().await.expect("a shop");
        let Databases::Sqlite(pool) = &shop.database else {
            panic!("in memory is SQLite")
        };
        let insert = || {
            sqlx::query(
                "INSERT INTO orders (id, item, quantity, total) VALUES ('a', 'a lamp', 1, 4900)",
            )
            .execute(pool)
        };
        insert().await.expect("the first");
        let error = insert().await.expect_err("the second");
        let error = error.as_database_error().expect("the database's word");
        assert!(error.is_unique_violation(), "{error}");
    }

    #[tokio::test]
    async fn an_order_whose_charge_fails_is_not_there() {
        let shop = Shop::in_memory().await.expect("a shop");
        let Databases::Sqlite(pool) = &shop.database else {
            panic!("in memory is SQLite")
        };
        sqlx::query(
            "CREATE TRIGGER broken BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .execute(pool)
        .await
        .expect("a trigger");
        let id = OrderId::parse("a").expect("an id");
        let purchase = Purchase {
            item: "a lamp",
            quantity: 1,
            total: 4_900,
        };
        shop.place(&id, &purchase, None)
            .await
            .expect_err("the charge fails");
        assert_eq!(shop.find(&id).await.expect("a look"), None);
    }
}
