"""Partner API (R5), called the MES API in the requirements: the door for other jewellery sellers' programs.

Database `partner_api`: clients, keys, models, order requests with what is known of their orders, quotes, commands, web
hooks and their deliveries, outbox. Redis: clients' newest orders, and the buckets of their limits (`rate:`).
Writes `orders.requests`, `orders.commands`, `quotes.requests`, `models.transfers`; reads `orders.changes`,
`orders.outcomes`, `quotes.changes`, `models.stored`. Accepts orders with Kafka, Orders or Redis away.
"""
