-- Letters to customers (kit/mail.py sends them). secret: the path of the link in one, which lets its reader in, so it is
-- forgotten once the letter is sent or given up.
CREATE TABLE mails (
    mail_id    uuid        PRIMARY KEY,
    address    text        NOT NULL,
    subject    text        NOT NULL,
    body       text        NOT NULL,
    kind       text        NOT NULL,
    secret     text,
    order_id   uuid,
    until      timestamptz,
    state      text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed', 'superseded')),
    attempts   integer     NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    sent_at    timestamptz,
    trouble    text
);
CREATE INDEX mails_waiting ON mails (next_at) WHERE state = 'waiting';
CREATE INDEX mails_by_order ON mails (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX mails_by_time ON mails (created_at);

-- Who has an address is known once it was confirmed by a letter; until then anybody may have named it, so that a sign-up
-- tells nobody who has an account.
ALTER TABLE customers
    ADD COLUMN language     text NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'ru')),
    ADD COLUMN confirmed_at timestamptz;
UPDATE customers SET confirmed_at = signed_up_at;
DROP INDEX customers_by_email;
CREATE UNIQUE INDEX customers_by_email ON customers (lower(email)) WHERE confirmed_at IS NOT NULL;
CREATE INDEX customers_unconfirmed ON customers (lower(email), customer_id DESC)
    WHERE password IS NOT NULL AND confirmed_at IS NULL;

-- Links of letters that confirm an address or set a new password: random, kept as their SHA-256, each used once.
CREATE TABLE mail_links (
    digest      bytea       PRIMARY KEY,
    purpose     text        NOT NULL CHECK (purpose IN ('confirm', 'password')),
    customer_id uuid        NOT NULL REFERENCES customers ON DELETE CASCADE,
    email       text        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX mail_links_by_customer ON mail_links (customer_id);
CREATE INDEX mail_links_by_end ON mail_links (expires_at);

-- Letters that somebody asked for, by the digest of the address, whether it is known here or not: they are counted.
CREATE TABLE asked_for (
    digest bytea       NOT NULL,
    at     timestamptz NOT NULL
);
CREATE INDEX asked_for_by_address ON asked_for (digest, at);
CREATE INDEX asked_for_by_time ON asked_for (at);

-- A link that came by a letter, to who ordered: it may answer, too.
ALTER TABLE order_links ADD COLUMN mailed boolean NOT NULL DEFAULT false;
