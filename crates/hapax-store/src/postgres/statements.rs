//! Every statement. Each is one transaction and one round trip.
//!
//! `clock` is the one instant of a statement. Instants never go back within a record, whatever
//! the server's clock does: what is written later is stamped at least as late.

use tokio_postgres::{Client, Statement};

/// Values up to this many bytes come with the answer to a batch; larger ones are read one by
/// one, so that a batch stays small in memory.
const WHOLE_BYTES: usize = 64 * 1024;

/// Claims the keys that are vacant, and says who holds the others. An occupied key is only
/// read: no lock, no sync. Keys are taken in their order, in which everybody takes them, so
/// that nobody waits in a circle.
///
/// No row for a key: another transaction took it after this statement's snapshot. Whoever asks
/// again sees it. No value in a row: it is large, and whoever needs it reads it.
const CLAIM: &str = "
WITH clock AS (SELECT {clock} AS ms),
asked AS (
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::smallint[], $4::bigint[], $5::bytea[])
        AS asked (key, claim, state, lifetime, value)
),
held AS (
    SELECT r.key, r.claim, r.claimed_at, r.written_at, r.expires_at,
        CASE WHEN octet_length(r.value) <= {whole} THEN r.value END AS value
    FROM asked JOIN hapax_store_records r ON r.key = asked.key, clock
    WHERE r.expires_at IS NULL OR r.expires_at > clock.ms
),
taken AS (
    INSERT INTO hapax_store_records AS r (key, claim, state, claimed_at, written_at, expires_at, value)
    SELECT asked.key, asked.claim, asked.state, ms, ms, ms + asked.lifetime, asked.value
    FROM asked, clock
    WHERE NOT EXISTS (SELECT 1 FROM held WHERE held.key = asked.key)
    ORDER BY asked.key
    ON CONFLICT (key) DO UPDATE SET
        claim = EXCLUDED.claim, state = EXCLUDED.state, claimed_at = EXCLUDED.claimed_at,
        written_at = EXCLUDED.written_at, expires_at = EXCLUDED.expires_at, value = EXCLUDED.value
    WHERE r.expires_at <= EXCLUDED.written_at
    RETURNING r.key, r.written_at
)
SELECT taken.key, taken.written_at AS now, NULL::bytea AS claim, NULL::bigint AS claimed_at,
    NULL::bigint AS written_at, NULL::bigint AS expires_at, NULL::bytea AS value
FROM taken
UNION ALL
SELECT held.key, GREATEST(clock.ms, held.written_at), held.claim, held.claimed_at, held.written_at,
    held.expires_at, held.value
FROM held, clock";

/// Replaces the records that are still held by the claim that is expected; a row for each.
const REPLACE: &str = "
WITH clock AS (SELECT {clock} AS ms)
UPDATE hapax_store_records AS r SET
    claim = asked.claim, state = asked.state,
    claimed_at = CASE WHEN r.claim = asked.claim
        THEN r.claimed_at ELSE GREATEST(clock.ms, r.written_at) END,
    written_at = GREATEST(clock.ms, r.written_at),
    expires_at = GREATEST(clock.ms, r.written_at) + asked.lifetime,
    value = asked.value
FROM clock, (
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bigint[], $6::bytea[])
        AS asked (key, expected, claim, state, lifetime, value)
    ORDER BY key
) AS asked
WHERE r.key = asked.key AND r.claim = asked.expected
    AND (r.expires_at IS NULL OR r.expires_at > clock.ms)
RETURNING r.key, r.written_at";

const REMOVE: &str = "
WITH clock AS (SELECT {clock} AS ms)
DELETE FROM hapax_store_records AS r USING clock
WHERE r.key = $1 AND r.claim = $2 AND (r.expires_at IS NULL OR r.expires_at > clock.ms)
RETURNING GREATEST(clock.ms, r.written_at)";

/// What is held under each key; no value in a row as in [`CLAIM`].
const LOOK: &str = "
WITH clock AS (SELECT {clock} AS ms)
SELECT asked.key, GREATEST(clock.ms, r.written_at) AS now, r.claim, r.claimed_at, r.written_at,
    r.expires_at, CASE WHEN octet_length(r.value) <= {whole} THEN r.value END AS value
FROM clock CROSS JOIN unnest($1::bytea[]) AS asked (key)
    LEFT JOIN hapax_store_records r
    ON r.key = asked.key AND (r.expires_at IS NULL OR r.expires_at > clock.ms)";

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
    pub(super) claim: Statement,
    pub(super) replace: Statement,
    pub(super) remove: Statement,
    pub(super) look: Statement,
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
        let whole = WHOLE_BYTES.to_string();
        let sql = |text: &str, only: &str| {
            text.replace("{clock}", clock)
                .replace("{only}", only)
                .replace("{whole}", &whole)
        };
        let prepare = async |text: &str, only: &str| client.prepare(&sql(text, only)).await;
        // One after the other costs a round trip each, once in a connection's life.
        Ok(Self {
            claim: prepare(CLAIM, "").await?,
            replace: prepare(REPLACE, "").await?,
            remove: prepare(REMOVE, "").await?,
            look: prepare(LOOK, "").await?,
            read: prepare(READ, "").await?,
            sweep: prepare(SWEEP, "").await?,
            list: prepare(LIST, "").await?,
            list_outstanding: prepare(LIST, "AND r.state = 0").await?,
            list_unknown: prepare(LIST, "AND r.state = 3").await?,
            stats: prepare(STATS, "").await?,
            barrier: prepare(BARRIER, "").await?,
        })
    }
}
