-- The price result that came while an order was on hold; applied when the hold ends.
ALTER TABLE orders ADD COLUMN kept_price jsonb;
