-- Customers of the sellers: people and firms. A merged one stays, for links to it, and leads to the one that it went into.
-- version is raised by one in each change, and customer_changes says what each was and who made it.
CREATE TABLE customers (
    customer_id uuid        PRIMARY KEY,
    kind        text        NOT NULL CHECK (kind IN ('person', 'firm')),
    name        text        NOT NULL,
    -- whose customer it is
    seller_id   uuid        NOT NULL REFERENCES staff,
    -- consent to be written to, with how it was given; NULL: none
    consent_at  timestamptz,
    consent_how text,
    version     integer     NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL,
    merged_into uuid        REFERENCES customers,
    -- what it is found by: names, mail addresses, and telephone numbers backwards ('ph' and the digits from the last)
    words       tsvector    NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX customers_by_words ON customers USING gin (words) WHERE merged_into IS NULL;
CREATE INDEX customers_by_seller ON customers (seller_id, customer_id DESC) WHERE merged_into IS NULL;

-- How a customer is reached: of a person mostly one, of a firm its people.
CREATE TABLE contacts (
    contact_id   uuid        PRIMARY KEY,
    customer_id  uuid        NOT NULL REFERENCES customers,
    name         text        NOT NULL,
    position     text        NOT NULL DEFAULT '',
    phone        text        NOT NULL DEFAULT '',
    phone_digits text        NOT NULL DEFAULT '',
    email        text        NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL
);
CREATE INDEX contacts_by_customer ON contacts (customer_id, contact_id);
-- Doubles are found by what they share.
CREATE INDEX contacts_by_phone ON contacts (phone_digits) WHERE phone_digits <> '';
CREATE INDEX contacts_by_email ON contacts (lower(email)) WHERE email <> '';

CREATE TABLE customer_notes (
    note_id     uuid        PRIMARY KEY,
    customer_id uuid        NOT NULL REFERENCES customers,
    staff_id    uuid        NOT NULL REFERENCES staff,
    text        text        NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX customer_notes_by_customer ON customer_notes (customer_id, note_id DESC);

CREATE TABLE customer_changes (
    customer_id uuid        NOT NULL REFERENCES customers,
    version     integer     NOT NULL,
    staff_id    uuid        NOT NULL REFERENCES staff,
    at          timestamptz NOT NULL,
    what        text        NOT NULL,
    PRIMARY KEY (customer_id, version)
);

-- What the CRM itself knows of an order: for which customer it is, and which seller looks after it.
CREATE TABLE desk (
    order_id    uuid PRIMARY KEY,
    customer_id uuid REFERENCES customers,
    seller_id   uuid REFERENCES staff
);
CREATE INDEX desk_by_customer ON desk (customer_id, order_id DESC);
CREATE INDEX desk_by_seller ON desk (seller_id, order_id DESC);

-- That the customer has the piece: who took it, when, as the seller who closed the order was told.
CREATE TABLE deliveries (
    order_id     uuid        PRIMARY KEY,
    delivered_on date        NOT NULL,
    received_by  text        NOT NULL,
    staff_id     uuid        NOT NULL REFERENCES staff,
    at           timestamptz NOT NULL
);

-- What orders are found by, beside their id. code_bits are those of the short code: the lowest fifty of the id.
ALTER TABLE orders
    ADD COLUMN status_since timestamptz,
    ADD COLUMN code_bits bigint NOT NULL GENERATED ALWAYS AS
        (('x' || right(replace(order_id::text, '-', ''), 13))::bit(52)::bigint & 1125899906842623) STORED,
    ADD COLUMN reference text GENERATED ALWAYS AS (lower(body ->> 'reference')) STORED,
    ADD COLUMN account uuid NOT NULL GENERATED ALWAYS AS ((body ->> 'account')::uuid) STORED,
    ADD COLUMN channel text NOT NULL GENERATED ALWAYS AS (body ->> 'channel') STORED;
UPDATE orders SET status_since = (body -> 'transition' ->> 'at')::timestamptz;
ALTER TABLE orders ALTER COLUMN status_since SET NOT NULL;
CREATE INDEX orders_by_code ON orders (code_bits);
CREATE INDEX orders_by_reference ON orders (reference text_pattern_ops, order_id DESC) WHERE reference IS NOT NULL;
CREATE INDEX orders_by_channel ON orders (channel, order_id DESC);
CREATE INDEX orders_by_account ON orders (account, order_id DESC);
-- The board shows of each status what has been there longest; what is over stands on no board.
CREATE INDEX orders_on_board ON orders (status, status_since, order_id) WHERE status NOT IN ('CLOSED', 'CANCELLED');

-- How many orders have each status: counted as they change, for a board is looked at all the time.
CREATE TABLE order_counts (
    status  text   PRIMARY KEY,
    count   bigint NOT NULL,
    changes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO order_counts (status, count)
SELECT s, (SELECT count(*) FROM orders WHERE status = s)
FROM unnest(ARRAY['SUBMITTED', 'PRICE_CALCULATED', 'PRICE_FAILED', 'MANUFACTURING_APPROVED', 'MANUFACTURING_STARTED',
                  'REWORK', 'MANUFACTURING_COMPLETED', 'PACKAGING', 'SHIPPED', 'CLOSED', 'ON_HOLD', 'CANCELLED']) AS s;

CREATE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM order_counts ORDER BY status FOR UPDATE;
    IF TG_OP = 'INSERT' THEN
        UPDATE order_counts c SET count = c.count + n.count, changes = c.changes + n.count
        FROM (SELECT status, count(*) AS count FROM after GROUP BY status) n WHERE c.status = n.status;
    ELSE
        UPDATE order_counts c SET count = c.count + n.came - n.went, changes = c.changes + n.came + n.went
        FROM (SELECT status, sum(came) AS came, sum(went) AS went
              FROM (SELECT status, 1 AS came, 0 AS went FROM after UNION ALL SELECT status, 0, 1 FROM before) AS both_sides
              GROUP BY status) n
        WHERE c.status = n.status;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new AFTER INSERT ON orders REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_orders();
CREATE TRIGGER count_changed AFTER UPDATE ON orders REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_orders();
