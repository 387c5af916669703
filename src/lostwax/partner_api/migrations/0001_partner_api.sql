CREATE TABLE clients (
    client_id  uuid        PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Keys are random and kept only as their SHA-256.
CREATE TABLE api_keys (
    digest       bytea       PRIMARY KEY,
    client_id    uuid        NOT NULL REFERENCES clients,
    created_at   timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz
);

-- A client's models by content. registered -> uploaded (seen in staging) -> stored or refused (by Orders).
CREATE TABLE models (
    client_id     uuid        NOT NULL REFERENCES clients,
    sha256        text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes    bigint      NOT NULL,
    name          text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('registered', 'uploaded', 'stored', 'refused')),
    failure       text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client_id, sha256)
);

-- Order requests, and the last version of the order that Orders told of (version 0: nothing yet).
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
    UNIQUE (client_id, idempotency_key)
) WITH (fillfactor = 80);
-- A client's own orders, newest first: UUIDv7 sorts by time.
CREATE INDEX requests_by_client ON requests (client_id, order_id DESC);

-- What clients asked to be done with an order, and what became of it.
CREATE TABLE commands (
    command_id uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    client_id  uuid        NOT NULL,
    action     text        NOT NULL,
    state      text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'refused')),
    code       text,
    detail     text,
    issued_at  timestamptz NOT NULL,
    decided_at timestamptz
);
CREATE INDEX commands_by_order ON commands (order_id, issued_at DESC);
