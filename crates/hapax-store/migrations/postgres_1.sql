-- hapax store, version 1, for PostgreSQL. Run by `hapax store migrate`, in one transaction.

-- One row a key. Instants are milliseconds since 1970 by the server's clock. `state` is
-- 0 outstanding, 1 completed, 2 rejected, 3 unknown; an outstanding row has no `expires_at`.
CREATE TABLE hapax_store_records (
    key BYTEA PRIMARY KEY,
    claim BYTEA NOT NULL,
    state SMALLINT NOT NULL,
    claimed_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    expires_at BIGINT,
    value BYTEA NOT NULL
);

-- What a sweep looks for.
CREATE INDEX hapax_store_records_by_expiry ON hapax_store_records (expires_at) WHERE expires_at IS NOT NULL;

-- What gauges and operators look for: few rows of many.
CREATE INDEX hapax_store_records_outstanding ON hapax_store_records (key) WHERE state = 0;
CREATE INDEX hapax_store_records_unknown ON hapax_store_records (key) WHERE state = 3;
