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
