-- What a seller is to do, about an order, a customer, or nothing in particular.
CREATE TABLE tasks (
    task_id     uuid        PRIMARY KEY,
    seller_id   uuid        NOT NULL REFERENCES staff,
    order_id    uuid,
    customer_id uuid        REFERENCES customers,
    text        text        NOT NULL,
    due_on      date        NOT NULL,
    created_by  uuid        NOT NULL REFERENCES staff,
    created_at  timestamptz NOT NULL,
    done_at     timestamptz
);
CREATE INDEX tasks_to_do ON tasks (seller_id, due_on, task_id) WHERE done_at IS NULL;

-- Letters to customers, written in the transaction that they tell of and sent when the mail server takes them. The link
-- in one lets its holder in, so it is forgotten as soon as the letter is sent or given up.
CREATE TABLE mails (
    mail_id    uuid        PRIMARY KEY,
    address    text        NOT NULL,
    subject    text        NOT NULL,
    body       text        NOT NULL,
    secret     text,
    order_id   uuid,
    staff_id   uuid        NOT NULL REFERENCES staff,
    state      text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    attempts   integer     NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    sent_at    timestamptz,
    trouble    text
);
CREATE INDEX mails_waiting ON mails (next_at) WHERE state = 'waiting';
CREATE INDEX mails_by_time ON mails (mail_id DESC);
CREATE INDEX mails_by_order ON mails (order_id, mail_id DESC) WHERE order_id IS NOT NULL;
