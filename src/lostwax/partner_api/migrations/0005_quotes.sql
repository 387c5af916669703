-- Quotes that clients asked for, and the last version that Orders told of (version 0: nothing yet).
CREATE TABLE quotes (
    quote_id        uuid        PRIMARY KEY,
    client_id       uuid        NOT NULL,
    idempotency_key text        NOT NULL,
    request_hash    bytea       NOT NULL,
    requested_at    timestamptz NOT NULL,
    -- contracts.quotes.QuoteRequested
    body            jsonb       NOT NULL,
    version         integer     NOT NULL DEFAULT 0,
    -- contracts.quotes.PriceQuote
    quote_body      jsonb,
    UNIQUE (client_id, idempotency_key)
) WITH (fillfactor = 60);
-- A client's own quotes, newest first.
CREATE INDEX quotes_by_client ON quotes (client_id, quote_id DESC);
