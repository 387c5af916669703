-- Accounts are the CRM's now; this is what it told of them, the newest version, and what their tokens said before it did.
-- Whoever was let in here stays for the claims that bear their name (version 0: the CRM does not know them), and gets a
-- badge of the CRM's under a new account.
ALTER TABLE operators ADD COLUMN role text NOT NULL DEFAULT 'operator'
    CHECK (role IN ('seller', 'operator', 'supervisor', 'administrator'));
ALTER TABLE operators ADD COLUMN active boolean NOT NULL DEFAULT false;
ALTER TABLE operators ADD COLUMN version integer NOT NULL DEFAULT 0;
ALTER TABLE operators DROP COLUMN badge_digest;
ALTER TABLE operators DROP COLUMN withdrawn_at;
ALTER TABLE operators ALTER COLUMN role DROP DEFAULT;
ALTER TABLE operators ALTER COLUMN active DROP DEFAULT;
ALTER TABLE operators ALTER COLUMN version DROP DEFAULT;

-- Who ended a claim, when that was not its holder: they are told.
ALTER TABLE claims ADD COLUMN ended_by text;

-- Claims that are old enough to be given back to the queue.
CREATE INDEX claims_confirmed ON claims (confirmed_at) WHERE state = 'confirmed';
-- Everything that is in hand, for supervisors, the oldest first.
CREATE INDEX claims_in_hand ON claims (claim_id) WHERE state IN ('pending', 'confirmed');
