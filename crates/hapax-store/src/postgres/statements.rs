//! Every statement. Each is one transaction and one round trip.
//!
//! `clock` is the one instant of a statement. Instants never go back within a record, whatever
//! the server's clock does: what is written later is stamped at least as late.

use tokio_postgres::{Client, Statement};

/// Claims a vacant key, or says who holds it. An occupied key is only read: no lock, no sync.
///
/// No row at all: another transaction took the key after this statement's snapshot. Whoever
/// asks again sees it.
const INSERT: &str = "
WITH clock AS (SELECT {clock} AS ms),
held AS (
    SELECT r.claim, r.claimed_at, r.written_at, r.expires_at, r.value
    FROM hapax_store_records r, clock
    WHERE r.key = $1 AND (r.expires_at IS NULL OR r.expires_at > clock.ms)
),
taken AS (
    INSERT INTO hapax_store_records AS r (key, claim, state, claimed_at, written_at, expires_at, value)
    SELECT $1, $2, $3, ms, ms, ms + $4::bigint, $5 FROM clock
    WHERE NOT EXISTS (SELECT 1 FROM held)
    ON CONFLICT (key) DO UPDATE SET
        claim = EXCLUDED.claim, state = EXCLUDED.state, claimed_at = EXCLUDED.claimed_at,
        written_at = EXCLUDED.written_at, expires_at = EXCLUDED.expires_at, value = EXCLUDED.value
    WHERE r.expires_at <= EXCLUDED.written_at
    RETURNING r.written_at
)
SELECT taken.written_at AS now, NULL::bytea AS claim, NULL::bigint AS claimed_at,
    NULL::bigint AS written_at, NULL::bigint AS expires_at, NULL::bytea AS value
FROM taken
UNION ALL
SELECT GREATEST(clock.ms, held.written_at), held.claim, held.claimed_at, held.written_at,
    held.expires_at, held.value
FROM held, clock";

const REPLACE: &str = "
WITH clock AS (SELECT {clock} AS ms)
UPDATE hapax_store_records AS r SET
    claim = $3, state = $4,
    claimed_at = CASE WHEN r.claim = $3 THEN r.claimed_at ELSE GREATEST(clock.ms, r.written_at) END,
    written_at = GREATEST(clock.ms, r.written_at),
    expires_at = GREATEST(clock.ms, r.written_at) + $5::bigint,
    value = $6
FROM clock
WHERE r.key = $1 AND r.claim = $2 AND (r.expires_at IS NULL OR r.expires_at > clock.ms)
RETURNING r.written_at";

const REMOVE: &str = "
WITH clock AS (SELECT {clock} AS ms)
DELETE FROM hapax_store_records AS r USING clock
WHERE r.key = $1 AND r.claim = $2 AND (r.expires_at IS NULL OR r.expires_at > clock.ms)
RETURNING GREATEST(clock.ms, r.written_at)";

const READ: &str = "
WITH clock AS (SELECT {clock} AS ms)
SELECT GREATEST(clock.ms, r.written_at) AS now, r.claim, r.claimed_at, r.written_at, r.expires_at, r.value
FROM clock LEFT JOIN hapax_store_records r
    ON r.key = $1 AND (r.expires_at IS NULL OR r.expires_at > clock.ms)";

/// A row that somebody else is sweeping or claiming is left to them.
const SWEEP: &str = "
WITH clock AS (SELECT {clock} AS ms),
due AS (
    SELECT r.key FROM hapax_store_records r
    WHERE r.expires_at <= (SELECT ms FROM clock)
    ORDER BY r.expires_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
DELETE FROM hapax_store_records AS r USING due
WHERE r.key = due.key AND r.expires_at <= (SELECT ms FROM clock)
RETURNING 1";

/// A page of rows behind a key; `{only}` narrows it.
const LIST: &str = "
WITH clock AS (SELECT {clock} AS ms)
SELECT clock.ms AS now, r.claim, r.claimed_at, r.written_at, r.expires_at, r.value, r.key
FROM hapax_store_records r, clock
WHERE r.key > $1 {only}
ORDER BY r.key LIMIT $2";

/// Rows are counted while they are few, and estimated from then on.
const STATS: &str = "
WITH clock AS (SELECT {clock} AS ms),
estimate AS (
    SELECT reltuples::bigint AS records FROM pg_class
    WHERE oid = 'hapax_store_records'::regclass
),
unknown AS (
    SELECT count(*) AS records, min(r.written_at) AS oldest
    FROM hapax_store_records r WHERE r.state = 3 AND r.expires_at > (SELECT ms FROM clock)
)
SELECT clock.ms AS now,
    CASE WHEN estimate.records < 10000
        THEN (SELECT count(*) FROM (SELECT 1 FROM hapax_store_records LIMIT 10000) AS few)
        ELSE estimate.records END AS records,
    pg_total_relation_size('hapax_store_records'::regclass) AS bytes,
    (SELECT count(*) FROM hapax_store_records r WHERE r.state = 0) AS outstanding,
    unknown.records AS unknown, unknown.oldest AS oldest_unknown
FROM clock, estimate, unknown";

/// Waits until everything committed so far is where synchronous commits go.
const BARRIER: &str = "UPDATE hapax_store SET version = version WHERE id = 1";

/// The statements of one connection, prepared.
pub(super) struct Statements {
    pub(super) insert: Statement,
    pub(super) replace: Statement,
    pub(super) remove: Statement,
    pub(super) read: Statement,
    pub(super) sweep: Statement,
    pub(super) list: Statement,
    pub(super) list_outstanding: Statement,
    pub(super) list_unknown: Statement,
    pub(super) stats: Statement,
    pub(super) barrier: Statement,
}

impl Statements {
    /// Prepares all of them; `clock` is the expression of a statement's instant.
    pub(super) async fn prepare(
        client: &Client,
        clock: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let sql = |text: &str, only: &str| text.replace("{clock}", clock).replace("{only}", only);
        let texts = [
            sql(INSERT, ""),
            sql(REPLACE, ""),
            sql(REMOVE, ""),
            sql(READ, ""),
            sql(SWEEP, ""),
            sql(LIST, ""),
            sql(LIST, "AND r.state = 0"),
            sql(LIST, "AND r.state = 3"),
            sql(STATS, ""),
        ];
        let [
            insert,
            replace,
            remove,
            read,
            sweep,
            list,
            outstanding,
            unknown,
            stats,
        ] = &texts;
        // One after the other costs a round trip each, once in a connection's life.
        Ok(Self {
            insert: client.prepare(insert).await?,
            replace: client.prepare(replace).await?,
            remove: client.prepare(remove).await?,
            read: client.prepare(read).await?,
            sweep: client.prepare(sweep).await?,
            list: client.prepare(list).await?,
            list_outstanding: client.prepare(outstanding).await?,
            list_unknown: client.prepare(unknown).await?,
            stats: client.prepare(stats).await?,
            barrier: client.prepare(BARRIER).await?,
        })
    }
}
