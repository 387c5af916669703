-- Messages that a transaction wishes to send. The relay publishes them in the order of id within a topic and deletes
-- a row only after the broker's acknowledgement. partition is set by the writer (-1: by the key's hash).
CREATE TABLE outbox (
    topic       text        NOT NULL,
    id          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    partition   integer     NOT NULL,
    key         text        NOT NULL,
    type        text        NOT NULL,
    message_id  uuid        NOT NULL,
    traceparent text,
    payload     bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, id)
);

-- A queue table turns over constantly: vacuum it by count, not by share of its size, and without pauses.
ALTER TABLE outbox SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 100000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE FUNCTION wake_relay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY outbox;
    RETURN NULL;
END
$$;

CREATE TRIGGER outbox_wakes_relay AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION wake_relay();

-- How fast a topic may be published; a topic without a row is unlimited.
CREATE TABLE publishing (
    topic      text             PRIMARY KEY,
    rate_per_s double precision CHECK (rate_per_s > 0),
    burst      integer          NOT NULL CHECK (burst >= 1),
    paused     boolean          NOT NULL DEFAULT false,
    set_at     timestamptz      NOT NULL DEFAULT now()
);
