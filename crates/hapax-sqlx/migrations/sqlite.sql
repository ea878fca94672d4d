-- hapax records, version 1, for SQLite. Every statement can be run again.

-- One row: which version this is, and the secret that keys every digest in the records.
CREATE TABLE IF NOT EXISTS hapax_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    secret BLOB NOT NULL CHECK (length(secret) = 32)
);

-- One row a key. Instants are milliseconds since 1970 by this machine's clock.
CREATE TABLE IF NOT EXISTS hapax_records (
    key BLOB PRIMARY KEY CHECK (length(key) = 16),
    claim BLOB NOT NULL CHECK (length(claim) = 16),
    claimed_at INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    expires_at INTEGER,
    record BLOB NOT NULL
);

CREATE INDEX IF NOT EXISTS hapax_records_by_expiry ON hapax_records (expires_at);

-- Requests that go through recovery points: what they ask for, until they are answered.
CREATE TABLE IF NOT EXISTS hapax_flows (
    key BLOB PRIMARY KEY CHECK (length(key) = 16),
    fingerprint BLOB NOT NULL,
    request BLOB NOT NULL,
    touched_at INTEGER NOT NULL
);

CREATE INDEX IF NOT EXISTS hapax_flows_by_touch ON hapax_flows (touched_at);

-- The steps of those requests that are done, with their results.
CREATE TABLE IF NOT EXISTS hapax_steps (
    key BLOB NOT NULL REFERENCES hapax_flows (key),
    name TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (key, name)
);

-- Events that are to be sent, because the transaction that wrote them was committed.
CREATE TABLE IF NOT EXISTS hapax_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    not_before INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX IF NOT EXISTS hapax_outbox_by_turn ON hapax_outbox (not_before, number);
