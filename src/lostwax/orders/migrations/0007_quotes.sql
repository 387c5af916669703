-- Quotes: prices before an order. body is contracts.quotes.PriceQuote.
CREATE TABLE quotes (
    quote_id     uuid        PRIMARY KEY,
    version      integer     NOT NULL CHECK (version >= 1),
    state        text        NOT NULL,
    account      uuid        NOT NULL,
    model_sha256 text        NOT NULL,
    -- its model is not stored yet: no price is asked for until it is
    needs_model  boolean     NOT NULL,
    requested_at timestamptz NOT NULL,
    body         jsonb       NOT NULL
) WITH (fillfactor = 60);
