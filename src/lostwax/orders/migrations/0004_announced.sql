-- Order requests that a channel has announced and that have not arrived yet; gone when the order is there.
CREATE TABLE announced (
    order_id     uuid        PRIMARY KEY,
    channel      text        NOT NULL,
    announced_at timestamptz NOT NULL DEFAULT now(),
    asked_at     timestamptz
);
CREATE INDEX announced_waiting ON announced (announced_at);
