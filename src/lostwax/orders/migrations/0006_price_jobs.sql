-- Prices that have been asked for and not been answered. The desk publishes a bounded window of them, fairly by account;
-- an answered or superseded job is deleted.
CREATE TABLE price_jobs (
    job_id        uuid        PRIMARY KEY,
    -- what the price is for; the result goes to it
    subject_kind  text        NOT NULL CHECK (subject_kind IN ('order', 'quote')),
    subject_id    uuid        NOT NULL,
    account       uuid        NOT NULL,
    lane          text        NOT NULL CHECK (lane IN ('quick', 'heavy')),
    sequence      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    state         text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'published')),
    specification jsonb       NOT NULL,
    -- version of the tariff, so that a job published again has the same answer
    tariff        text        NOT NULL,
    traceparent   text,
    enqueued_at   timestamptz NOT NULL DEFAULT now(),
    -- the last time; how often; and when it counts as lost
    published_at  timestamptz,
    attempts      integer     NOT NULL DEFAULT 0,
    due_at        timestamptz,
    CHECK ((state = 'published') = (published_at IS NOT NULL AND due_at IS NOT NULL AND attempts > 0))
);
-- A queue table turns over constantly, as the outbox does.
ALTER TABLE price_jobs SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
-- The oldest of an account, and the next account, are one step each.
CREATE INDEX price_jobs_waiting ON price_jobs (lane, account, sequence) WHERE state = 'waiting';
CREATE INDEX price_jobs_out ON price_jobs (lane, account) WHERE state = 'published';
CREATE INDEX price_jobs_by_subject ON price_jobs (subject_id);

-- New jobs and freed places wake the desk.
CREATE FUNCTION wake_desk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY price_jobs;
    RETURN NULL;
END
$$;
CREATE TRIGGER price_jobs_wake_desk AFTER INSERT OR DELETE ON price_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION wake_desk();

-- How long a job of the lane took lately from publication to answer: a running mean, s; null before the first answer.
CREATE TABLE price_lanes (
    lane   text             PRIMARY KEY,
    mean_s double precision
);
INSERT INTO price_lanes (lane) VALUES ('quick'), ('heavy');

-- Prices that were asked for before there was a window have been published.
INSERT INTO price_jobs (job_id, subject_kind, subject_id, account, lane, state, specification, tariff,
                        published_at, attempts, due_at)
SELECT price_job_id, 'order', order_id, account,
       CASE WHEN (body #>> '{specification,model,size_bytes}')::bigint >= 10000000 THEN 'heavy' ELSE 'quick' END,
       'published', body -> 'specification', '2026-11', now(), 1, now() + interval '10 minutes'
FROM orders WHERE price_job_id IS NOT NULL AND kept_price IS NULL;
