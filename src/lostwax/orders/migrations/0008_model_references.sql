-- Uploads are counted by their channel: the refusal of one says nothing of a later one.
ALTER TABLE model_refusals ADD COLUMN upload integer NOT NULL DEFAULT 0;
ALTER TABLE model_waiters ADD COLUMN upload integer NOT NULL DEFAULT 0;

-- By which upload an account brought a stored model, so that it is told when the model is removed.
CREATE TABLE model_uploads (
    sha256  text    NOT NULL,
    account uuid    NOT NULL,
    upload  integer NOT NULL,
    PRIMARY KEY (sha256, account)
);

-- Who needs a stored model, and until when (null: for ever). kind: 'order' (subject 'orders': all of the account's, for
-- they are kept for ever) or 'quote' (subject 'quotes', until the last of the account's expires).
CREATE TABLE model_references (
    sha256  text        NOT NULL,
    account uuid        NOT NULL,
    kind    text        NOT NULL,
    subject text        NOT NULL,
    until   timestamptz,
    PRIMARY KEY (sha256, account, kind, subject)
);

-- A model to which nothing refers is marked with the time at which it will be removed.
ALTER TABLE models ADD COLUMN remove_after timestamptz;
CREATE INDEX models_to_remove ON models (remove_after) WHERE remove_after IS NOT NULL;

-- How often a model has been removed, and whether its file is going just now: whoever copies a file of this digest
-- compares the number before and after, so that an index row never outlives its file.
CREATE TABLE model_removals (
    sha256   text    PRIMARY KEY,
    number   integer NOT NULL,
    removing boolean NOT NULL,
    since    timestamptz NOT NULL
);
CREATE INDEX model_removals_unfinished ON model_removals (sha256) WHERE removing;

-- Whether any order needs a model: looked up before one is marked or removed.
CREATE INDEX orders_by_model ON orders USING hash (model_sha256);
