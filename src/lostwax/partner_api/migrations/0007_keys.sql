-- Keys have names, ends and scopes. Those that are there already may do everything, as before.
ALTER TABLE api_keys
    ADD COLUMN key_id       uuid,
    ADD COLUMN name         text NOT NULL DEFAULT 'first key',
    ADD COLUMN scopes       text[] NOT NULL DEFAULT ARRAY['orders:read', 'orders:write', 'models:read', 'models:write',
                                                         'quotes:read', 'quotes:write', 'hooks:manage', 'keys:manage'],
    ADD COLUMN expires_at   timestamptz,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN replaced_by  uuid;
-- A UUIDv7 of the time at which each was made.
UPDATE api_keys SET key_id = (
    lpad(to_hex(floor(extract(epoch FROM created_at) * 1000)::bigint), 12, '0')
    || '7' || substr(md5(digest::text), 1, 3) || '8' || substr(md5(digest::text), 4, 15)
)::uuid;
ALTER TABLE api_keys
    ALTER COLUMN key_id SET NOT NULL,
    ALTER COLUMN scopes DROP DEFAULT,
    ALTER COLUMN name DROP DEFAULT,
    ADD UNIQUE (key_id);
CREATE INDEX api_keys_by_client ON api_keys (client_id, key_id);

-- own_limit: the client's own rate, both NULL for no limit; else the settings' default holds.
ALTER TABLE clients
    ADD COLUMN suspended_at timestamptz,
    ADD COLUMN own_limit    boolean NOT NULL DEFAULT false,
    ADD COLUMN rate_per_s   double precision CHECK (rate_per_s > 0),
    ADD COLUMN burst        integer CHECK (burst > 0),
    ADD CHECK ((rate_per_s IS NULL) = (burst IS NULL)),
    ADD CHECK (own_limit OR rate_per_s IS NULL);

-- Processes remember who calls; they are told at once of what takes that away or changes it, whoever does it. The
-- payload is the key's digest, or empty: any key.
CREATE FUNCTION tell_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('callers', encode(NEW.digest, 'hex'));
    RETURN NULL;
END $$;
CREATE TRIGGER key_changed AFTER UPDATE OF withdrawn_at, expires_at, scopes, replaced_by ON api_keys
    FOR EACH ROW EXECUTE FUNCTION tell_of_key();
CREATE FUNCTION tell_of_client() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY callers;
    RETURN NULL;
END $$;
CREATE TRIGGER client_changed AFTER UPDATE OF name, suspended_at, own_limit, rate_per_s, burst ON clients
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_client();

-- While a hook's secret is being changed, both sign.
ALTER TABLE hooks
    ADD COLUMN old_secret       text,
    ADD COLUMN old_secret_until timestamptz,
    ADD CHECK ((old_secret IS NULL) = (old_secret_until IS NULL));
