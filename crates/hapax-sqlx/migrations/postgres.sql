-- hapax records, version 1, for PostgreSQL. Every statement can be run again.

-- Two processes that start at once take turns.
SELECT pg_advisory_xact_lock(7521952183462159);

-- One row: which version this is, and the secret that keys every digest in the records.
CREATE TABLE IF NOT EXISTS hapax_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    secret BYTEA NOT NULL CHECK (length(secret) = 32)
);

-- One row a key. Instants are milliseconds since 1970 by this server's clock.
CREATE TABLE IF NOT EXISTS hapax_records (
    key BYTEA PRIMARY KEY CHECK (length(key) = 16),
    claim BYTEA NOT NULL CHECK (length(claim) = 16),
    claimed_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    expires_at BIGINT,
    record BYTEA NOT NULL
);

CREATE INDEX IF NOT EXISTS hapax_records_by_expiry ON hapax_records (expires_at);

-- Requests that go through recovery points: what they ask for, until they are answered.
CREATE TABLE IF NOT EXISTS hapax_flows (
    key BYTEA PRIMARY KEY CHECK (length(key) = 16),
    fingerprint BYTEA NOT NULL,
    request BYTEA NOT NULL,
    touched_at BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS hapax_flows_by_touch ON hapax_flows (touched_at);

-- The steps of those requests that are done, with their results.
CREATE TABLE IF NOT EXISTS hapax_steps (
    key BYTEA NOT NULL REFERENCES hapax_flows (key),
    name TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (key, name)
);

-- Events that are to be sent, because the transaction that wrote them was committed.
CREATE TABLE IF NOT EXISTS hapax_outbox (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BYTEA NOT NULL,
    not_before BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX IF NOT EXISTS hapax_outbox_by_turn ON hapax_outbox (not_before, number);
