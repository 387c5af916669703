-- Each upload of a model has a number, counted by client and model, and a place of its own in staging: what Orders tells
-- of one upload says nothing of the next, and clearing one away never touches the next. 0: from before there were any.
ALTER TABLE models
    DROP CONSTRAINT models_state_check,
    ADD CONSTRAINT models_state_check
        CHECK (state IN ('registered', 'uploaded', 'stored', 'refused', 'expired')),
    ADD COLUMN upload          integer     NOT NULL DEFAULT 0,
    ADD COLUMN upload_began_at timestamptz NOT NULL DEFAULT now(),
    -- S3's name of a multipart upload that is going on, so that any process can go on with it
    ADD COLUMN multipart_id    text,
    ADD COLUMN part_size_bytes bigint,
    ADD COLUMN assembled       boolean     NOT NULL DEFAULT false,
    ADD CHECK ((multipart_id IS NULL) = (part_size_bytes IS NULL));
CREATE INDEX models_by_client ON models (client_id, registered_at DESC, sha256 DESC);
CREATE INDEX models_not_ordered ON models (upload_began_at) WHERE state = 'registered';

-- What is to be cleared out of staging: written with the decision, gone when it is done. multipart_id '': none.
CREATE TABLE staging_leftovers (
    key          text        NOT NULL,
    multipart_id text        NOT NULL DEFAULT '',
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, multipart_id)
);
CREATE INDEX staging_leftovers_by_age ON staging_leftovers (since);

-- Every process forgets a model that may not be ordered any more as it was.
CREATE FUNCTION models_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('models_changed', NEW.client_id || '/' || NEW.sha256);
    RETURN NULL;
END $$;
CREATE TRIGGER models_changed AFTER UPDATE ON models FOR EACH ROW
    WHEN (OLD.state IN ('uploaded', 'stored') AND (NEW.state <> OLD.state AND NEW.state <> 'stored'))
    EXECUTE FUNCTION models_changed();
