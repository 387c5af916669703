-- Commands that lie in the dead letters: while one does, the later commands of its order wait.
CREATE TABLE dead_commands (
    -- topic/partition/offset at which it stood when it was given up, as the letter says
    place    text        PRIMARY KEY,
    order_id uuid        NOT NULL,
    -- where it belongs among the commands of its order: the offset at which it stood at first, before any replay
    position bigint      NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_commands_by_order ON dead_commands (order_id);

-- Commands that wait for an earlier one of their order to be replayed or discarded.
CREATE TABLE parked_commands (
    command_id uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    position   bigint      NOT NULL,
    arrival    bigint      GENERATED ALWAYS AS IDENTITY,
    body       jsonb       NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_commands_by_order ON parked_commands (order_id, position, arrival);

-- What an early command needs to become a dead letter that can be replayed; null in rows from before.
ALTER TABLE early_commands
    ADD COLUMN position    bigint,
    ADD COLUMN place       text,
    ADD COLUMN source      text,
    ADD COLUMN message_id  text,
    ADD COLUMN traceparent text,
    -- it is marked in dead_commands and about to be dead-lettered; its order does not take it any more
    ADD COLUMN given_up_at timestamptz;
CREATE INDEX early_commands_by_age ON early_commands (received_at);
