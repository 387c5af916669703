-- Which command it is, where that could be read: when it is discarded, that is its outcome, and it is decided.
ALTER TABLE dead_commands ADD COLUMN command_id uuid;
