-- A delivery is asked for once more by the id that came with it.
CREATE INDEX hook_deliveries_by_id ON hook_deliveries (delivery_id);
