-- Letters as every service writes them (kit/mail.py). secret was the end of a layout's link and is now the whole path; a
-- letter may be of no use after some time, or needless before it was sent; nobody in particular has written some.
ALTER TABLE mails
    ADD COLUMN kind text NOT NULL DEFAULT 'layout',
    ADD COLUMN until timestamptz,
    ALTER COLUMN staff_id DROP NOT NULL,
    DROP CONSTRAINT mails_state_check,
    ADD CONSTRAINT mails_state_check CHECK (state IN ('waiting', 'sent', 'failed', 'superseded'));
UPDATE mails SET secret = '/l/' || secret WHERE secret IS NOT NULL;
