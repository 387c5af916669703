-- Where clients want to be told of their orders. The secret signs, so it is kept as it is; it is emptied on removal.
-- Nothing refers to a hook by a foreign key: rows of a removed one are swept in pieces.
CREATE TABLE hooks (
    hook_id      uuid        PRIMARY KEY,
    client_id    uuid        NOT NULL REFERENCES clients,
    url          text        NOT NULL,
    secret       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    disabled_at  timestamptz,
    disabled_why text,
    removed_at   timestamptz,
    -- Since the last success: attempts that failed, deliveries given up, and when the hook may be tried again.
    failures     integer     NOT NULL DEFAULT 0,
    given_up     integer     NOT NULL DEFAULT 0,
    retry_at     timestamptz
);
CREATE UNIQUE INDEX hooks_by_client ON hooks (client_id, url) WHERE removed_at IS NULL;

-- How far each order has come for each hook: settled <= enqueued <= known, all of them versions. known > enqueued is a
-- gap, to be filled from Orders at fill_at. No row: everything up to requests.version was enqueued or is not wanted.
-- Whoever adds or settles deliveries of an order holds the lock of its row.
CREATE TABLE hook_orders (
    hook_id    uuid        NOT NULL,
    order_id   uuid        NOT NULL,
    known      integer     NOT NULL,
    enqueued   integer     NOT NULL,
    settled    integer     NOT NULL,
    fill_at    timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hook_id, order_id),
    CHECK (settled <= enqueued AND enqueued <= known),
    CHECK ((known > enqueued) = (fill_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX hook_gaps ON hook_orders (fill_at) WHERE fill_at IS NOT NULL;

-- Deliveries, kept as a log after they are settled. due: the next one of its order, to be sent at next_at; waiting:
-- behind that one. order_body is the whole order at that version, dropped once settled; a test has no order.
CREATE TABLE hook_deliveries (
    number           bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    delivery_id      uuid        NOT NULL,
    hook_id          uuid        NOT NULL,
    order_id         uuid,
    version          integer,
    order_body       jsonb,
    state            text        NOT NULL CHECK (state IN ('waiting', 'due', 'delivered', 'given_up')),
    created_at       timestamptz NOT NULL DEFAULT now(),
    next_at          timestamptz NOT NULL DEFAULT now(),
    attempts         integer     NOT NULL DEFAULT 0,
    first_attempt_at timestamptz,
    last_attempt_at  timestamptz,
    duration_ms      integer,
    response_status  integer,
    response_body    text,
    error            text,
    UNIQUE (hook_id, order_id, version)
) WITH (fillfactor = 80);
CREATE INDEX hook_deliveries_due ON hook_deliveries (hook_id, next_at) WHERE state = 'due';
CREATE INDEX hook_deliveries_log ON hook_deliveries (hook_id, number DESC);
