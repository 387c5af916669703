-- What customers and sellers say to each other about an order (channel/conversation.py). sent_at is the writer's clock.
CREATE TABLE messages (
    message_id uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    channel    text        NOT NULL,
    side       text        NOT NULL CHECK (side IN ('customer', 'seller')),
    name       text        NOT NULL,
    text       text        NOT NULL,
    sent_at    timestamptz NOT NULL,
    asks       boolean     NOT NULL DEFAULT false,
    layout_id  uuid,
    revision   integer
);
CREATE INDEX messages_by_order ON messages (order_id, sent_at, message_id);
