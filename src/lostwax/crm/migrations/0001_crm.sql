-- Accounts of the staff. A withdrawn one stays, for what its holder did stays under their name. version is raised by one
-- in each change, and readers of staff.changes keep the newest.
CREATE TABLE staff (
    staff_id     uuid        PRIMARY KEY,
    name         text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('seller', 'operator', 'supervisor', 'administrator')),
    created_at   timestamptz NOT NULL,
    withdrawn_at timestamptz,
    version      integer     NOT NULL DEFAULT 1
);

-- Badges are random and kept only as their SHA-256. Passwords will be hashed slowly, in a table of their own.
CREATE TABLE badges (
    digest    bytea       PRIMARY KEY,
    staff_id  uuid        NOT NULL REFERENCES staff,
    issued_at timestamptz NOT NULL
);
CREATE INDEX badges_by_holder ON badges (staff_id);

-- What Orders told of each order, of whatever channel, the newest version.
CREATE TABLE orders (
    order_id uuid    PRIMARY KEY,
    version  integer NOT NULL,
    status   text    NOT NULL,
    body     jsonb   NOT NULL
) WITH (fillfactor = 80);
-- Lists of one status, newest first: UUIDv7 sorts by time.
CREATE INDEX orders_by_status ON orders (status, order_id DESC);

-- What the staff asked to be done with an order, and what became of it.
CREATE TABLE commands (
    command_id uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    staff_id   uuid        NOT NULL REFERENCES staff,
    action     text        NOT NULL,
    state      text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'refused')),
    code       text,
    detail     text,
    issued_at  timestamptz NOT NULL,
    decided_at timestamptz
);
CREATE INDEX commands_by_order ON commands (order_id, issued_at DESC);
