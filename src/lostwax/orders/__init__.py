"""Orders (R1): owns every order from SUBMITTED on, its price, its history, the quotes, and the store of 3D models.

Databases: `orders` on each shard, `orders_control` for publishing limits. Reads `orders.requests`, `orders.commands`,
`orders.models`, `quotes.requests`, `models.transfers`, `pricing.results`; writes `orders.changes`, `orders.outcomes`,
`orders.models`, `quotes.changes`, `models.transfers`, `models.stored`, `pricing.requests.quick`,
`pricing.requests.heavy`.
"""
