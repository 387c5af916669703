CREATE TABLE operators (
    operator_id  uuid        PRIMARY KEY,
    name         text        NOT NULL,
    badge_digest bytea       NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz
);

-- On which list operators see an order; null: on none. The one place that says so, for projection, claims and rebuild.
CREATE FUNCTION list_of(status text, claimed boolean) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN status IN ('MANUFACTURING_APPROVED', 'REWORK') AND NOT claimed THEN 'queue'
        WHEN status = 'MANUFACTURING_COMPLETED' THEN 'packing'
        WHEN status = 'PACKAGING' THEN 'shipping'
    END
$$;

-- What Orders told of each order, the newest version. claim_seq counts what claims did to its place on the lists
-- since that version, so that (version, claim_seq) only ever grows and an older view never replaces a newer one.
CREATE TABLE orders (
    order_id  uuid        PRIMARY KEY,
    version   integer     NOT NULL,
    claim_seq integer     NOT NULL DEFAULT 0,
    status    text        NOT NULL,
    list      text,
    due_at    timestamptz NOT NULL,
    body      jsonb       NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX orders_on_lists ON orders (list, due_at, order_id) WHERE list IS NOT NULL;

-- pending until Orders confirms the start; then confirmed; ended as done, released, or voided by a refusal.
CREATE TABLE claims (
    claim_id     uuid        PRIMARY KEY,
    order_id     uuid        NOT NULL,
    operator_id  uuid        NOT NULL REFERENCES operators,
    state        text        NOT NULL CHECK (state IN ('pending', 'confirmed', 'done', 'released', 'voided')),
    reason       text,
    claimed_at   timestamptz NOT NULL,
    confirmed_at timestamptz,
    ended_at     timestamptz
);
-- The rule of the trade: one order, one pair of hands. Of a hundred clicks one row gets in.
CREATE UNIQUE INDEX claims_one_active ON claims (order_id) WHERE state IN ('pending', 'confirmed');
CREATE INDEX claims_by_operator ON claims (operator_id, claimed_at DESC);

-- What operators asked Orders for, and what became of it.
CREATE TABLE steps (
    command_id  uuid        PRIMARY KEY,
    order_id    uuid        NOT NULL,
    operator_id uuid        NOT NULL REFERENCES operators,
    action      text        NOT NULL,
    state       text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'refused')),
    code        text,
    detail      text,
    issued_at   timestamptz NOT NULL,
    decided_at  timestamptz
);
CREATE INDEX steps_by_order ON steps (order_id, issued_at DESC);
