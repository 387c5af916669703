-- The longest in each status that somebody must end, looked up every quarter of a minute.
CREATE INDEX orders_by_age ON orders (status, status_since) WHERE status NOT IN ('SHIPPED', 'CLOSED', 'CANCELLED');
