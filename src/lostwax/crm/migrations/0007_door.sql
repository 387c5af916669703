-- Orders that sellers take for customers: the tables of a door, as every channel has them (lostwax.channel). client_id is
-- the desk's own id; for whom an order is stands in desk.

-- The desk's models by content. registered -> uploaded (seen in staging) -> stored or refused (by Orders); expired: not
-- ordered in time. Each upload of a model has a number, counted by model, and a place of its own in staging.
CREATE TABLE models (
    client_id       uuid        NOT NULL,
    sha256          text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes      bigint      NOT NULL,
    name            text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('registered', 'uploaded', 'stored', 'refused', 'expired')),
    failure         text,
    registered_at   timestamptz NOT NULL DEFAULT now(),
    upload          integer     NOT NULL DEFAULT 0,
    upload_began_at timestamptz NOT NULL DEFAULT now(),
    -- S3's name of a multipart upload that is going on, so that any process can go on with it
    multipart_id    text,
    part_size_bytes bigint,
    assembled       boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (client_id, sha256),
    CHECK ((multipart_id IS NULL) = (part_size_bytes IS NULL))
);

CREATE INDEX models_by_client ON models (client_id, registered_at DESC, sha256 DESC);
CREATE INDEX models_not_ordered ON models (upload_began_at) WHERE state = 'registered';

-- What is to be cleared out of staging: written with the decision, gone when it is done. multipart_id '': none.
CREATE TABLE staging_leftovers (
    key          text        NOT NULL,
    multipart_id text        NOT NULL DEFAULT '',
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, multipart_id)
);
CREATE INDEX staging_leftovers_by_age ON staging_leftovers (since);

-- Every process forgets a model that may not be ordered any more as it was.
CREATE FUNCTION models_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('models_changed', NEW.client_id || '/' || NEW.sha256);
    RETURN NULL;
END $$;
CREATE TRIGGER models_changed AFTER UPDATE ON models FOR EACH ROW
    WHEN (OLD.state IN ('uploaded', 'stored') AND (NEW.state <> OLD.state AND NEW.state <> 'stored'))
    EXECUTE FUNCTION models_changed();

-- Order requests, and the last version of the order that Orders told of (version 0: nothing yet). accepted_in is the
-- transaction that accepted a request: what is announced to Orders is read in its order, and only up to the oldest
-- transaction that is still open, so that none is passed over.
CREATE TABLE requests (
    order_id        uuid        PRIMARY KEY,
    client_id       uuid        NOT NULL,
    idempotency_key text        NOT NULL,
    request_hash    bytea       NOT NULL,
    accepted_at     timestamptz NOT NULL,
    body            jsonb       NOT NULL,
    version         integer     NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'SUBMITTED',
    order_body      jsonb,
    accepted_in     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (client_id, idempotency_key)
) WITH (fillfactor = 80);
-- What Orders has not told of yet, newest first: UUIDv7 sorts by time.
CREATE INDEX requests_unconfirmed ON requests (order_id DESC) WHERE version = 0;

CREATE INDEX requests_to_announce ON requests (accepted_in, order_id);

-- Up to where requests have been announced, and how many.
CREATE TABLE announcing (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    accepted_in xid8    NOT NULL DEFAULT '0',
    order_id    uuid    NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    announced   bigint  NOT NULL DEFAULT 0
);
INSERT INTO announcing DEFAULT VALUES;

-- Quotes that sellers asked for, and the last version that Orders told of (version 0: nothing yet).
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
-- Newest first.
CREATE INDEX quotes_by_client ON quotes (client_id, quote_id DESC);

-- What the seller who took an order wrote down with it.
ALTER TABLE desk ADD COLUMN remarks text NOT NULL DEFAULT '';
