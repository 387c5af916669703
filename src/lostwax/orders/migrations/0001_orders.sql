-- Which buckets this shard owns ('owned') or not ('away'); checked in every write. epoch grows with each move.
CREATE TABLE bucket_owner (
    bucket integer PRIMARY KEY CHECK (bucket BETWEEN 0 AND 1023),
    epoch  bigint  NOT NULL DEFAULT 1,
    state  text    NOT NULL CHECK (state IN ('owned', 'away'))
);

-- The order as it is now. body is contracts.orders.Order; the columns beside it are what is searched by.
CREATE TABLE orders (
    order_id     uuid        PRIMARY KEY,
    version      integer     NOT NULL CHECK (version >= 1),
    status       text        NOT NULL,
    account      uuid        NOT NULL,
    channel      text        NOT NULL,
    model_sha256 text        NOT NULL,
    -- the one price job whose result counts; null while the model is not stored, and after the result
    price_job_id uuid,
    submitted_at timestamptz NOT NULL,
    status_since timestamptz NOT NULL,
    body         jsonb       NOT NULL
) WITH (fillfactor = 80);

-- Every version ever, for readers that need each step.
CREATE TABLE order_history (
    order_id uuid        NOT NULL,
    version  integer     NOT NULL,
    status   text        NOT NULL,
    at       timestamptz NOT NULL,
    body     jsonb       NOT NULL,
    PRIMARY KEY (order_id, version)
);

-- Each command that was decided, so that it is decided once.
CREATE TABLE commands (
    command_id uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    accepted   boolean     NOT NULL,
    version    integer     NOT NULL,
    code       text,
    decided_at timestamptz NOT NULL
);
CREATE INDEX commands_by_order ON commands (order_id);

-- Commands that came before their order.
CREATE TABLE early_commands (
    command_id  uuid        PRIMARY KEY,
    order_id    uuid        NOT NULL,
    body        jsonb       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX early_commands_by_order ON early_commands (order_id, received_at);

-- The model store's index; the file is in S3 under the same key.
CREATE TABLE models (
    sha256     text        PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes bigint      NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT now()
);

-- Why an account's upload of a model was refused, until it uploads it again.
CREATE TABLE model_refusals (
    sha256     text        NOT NULL,
    account    uuid        NOT NULL,
    failure    jsonb       NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sha256, account)
);

-- Orders, of any shard, that wait for a model of this shard.
CREATE TABLE model_waiters (
    sha256   text        NOT NULL,
    order_id uuid        NOT NULL,
    account  uuid        NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sha256, order_id)
);
