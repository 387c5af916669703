-- A confirmed claim ends when its order has moved on, whoever moved it: the operator, a supervisor, a cancellation.
-- confirmed_version is the version that Orders gave to the start; only newer versions can end the claim.
ALTER TABLE claims ADD COLUMN confirmed_version integer;
ALTER TABLE claims DROP CONSTRAINT claims_state_check;
ALTER TABLE claims ADD CONSTRAINT claims_state_check
    CHECK (state IN ('pending', 'confirmed', 'done', 'released', 'reworked', 'cancelled', 'voided'));

-- What becomes of a claim when its order has this status; null: it goes on.
CREATE FUNCTION claim_after(status text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN status IN ('MANUFACTURING_COMPLETED', 'PACKAGING', 'SHIPPED', 'CLOSED') THEN 'done'
        WHEN status = 'MANUFACTURING_APPROVED' THEN 'released'
        WHEN status = 'REWORK' THEN 'reworked'
        WHEN status = 'CANCELLED' THEN 'cancelled'
    END
$$;
