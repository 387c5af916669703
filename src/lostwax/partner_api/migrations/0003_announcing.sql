-- The transaction that accepted a request: what is announced to Orders is read in its order, and only up to the oldest
-- transaction that is still open, so that none is passed over.
ALTER TABLE requests ADD COLUMN accepted_in xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX requests_to_announce ON requests (accepted_in, order_id);

-- Up to where requests have been announced, and how many.
CREATE TABLE announcing (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    accepted_in xid8    NOT NULL DEFAULT '0',
    order_id    uuid    NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    announced   bigint  NOT NULL DEFAULT 0
);
INSERT INTO announcing DEFAULT VALUES;
