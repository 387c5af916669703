-- Entries whose change Redis did not take (`view` names whose Redis): every process of the service tries to show them,
-- and reads from the database as long as there are any. Empty at rest.
CREATE TABLE unshown (
    number   bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    view     text   NOT NULL,
    entry_id uuid   NOT NULL
);
