-- Revisions of the model that an order is made from, as they are agreed with the customer.
CREATE TABLE layouts (
    layout_id uuid        PRIMARY KEY,
    order_id  uuid        NOT NULL REFERENCES orders,
    revision  integer     NOT NULL CHECK (revision >= 1),
    sha256    text        NOT NULL,
    name      text        NOT NULL,
    size_bytes bigint     NOT NULL,
    note      text        NOT NULL DEFAULT '',
    state     text        NOT NULL DEFAULT 'draft'
        CHECK (state IN ('draft', 'sent', 'approved', 'answered', 'superseded')),
    staff_id  uuid        NOT NULL REFERENCES staff,
    at        timestamptz NOT NULL,
    answered_by text,
    answered_at timestamptz,
    UNIQUE (order_id, revision),
    UNIQUE (order_id, sha256)
);

-- Remarks of sellers and customers, pinned to a place of the model (mm, as it is drawn) or to none.
CREATE TABLE layout_remarks (
    remark_id uuid        PRIMARY KEY,
    layout_id uuid        NOT NULL REFERENCES layouts,
    staff_id  uuid        REFERENCES staff,
    author    text        NOT NULL,
    text      text        NOT NULL,
    x double precision, y double precision, z double precision,
    at        timestamptz NOT NULL,
    CHECK ((x IS NULL) = (y IS NULL) AND (y IS NULL) = (z IS NULL))
);
CREATE INDEX layout_remarks_by_layout ON layout_remarks (layout_id, remark_id);

-- Links by which a customer sees one layout without an account: random, kept as their SHA-256, for a time, until answered.
CREATE TABLE layout_links (
    link_id     uuid        PRIMARY KEY,
    digest      bytea       NOT NULL UNIQUE,
    layout_id   uuid        NOT NULL REFERENCES layouts,
    staff_id    uuid        NOT NULL REFERENCES staff,
    sent_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    opened      integer     NOT NULL DEFAULT 0,
    answered_at timestamptz
);
CREATE INDEX layout_links_by_layout ON layout_links (layout_id);

-- The clock of who is waited for: one open row (ended_at NULL) of an order while its layout is being agreed.
CREATE TABLE layout_waits (
    order_id   uuid        NOT NULL,
    party      text        NOT NULL CHECK (party IN ('seller', 'customer')),
    since      timestamptz NOT NULL,
    ended_at   timestamptz,
    PRIMARY KEY (order_id, since)
);
CREATE UNIQUE INDEX layout_waits_open ON layout_waits (order_id) WHERE ended_at IS NULL;
CREATE INDEX layout_waits_by_party ON layout_waits (party, since) WHERE ended_at IS NULL;

-- What sellers often answer.
CREATE TABLE answer_templates (
    template_id uuid        PRIMARY KEY,
    name        text        NOT NULL UNIQUE,
    text        text        NOT NULL,
    staff_id    uuid        NOT NULL REFERENCES staff,
    at          timestamptz NOT NULL
);
