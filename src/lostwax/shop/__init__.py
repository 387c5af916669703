"""Internet shop (R3): the door for people, who sign up or order as guests.

Database `shop`: customers and their sessions, links that show one order, models, order requests with what is known of
their orders, quotes, commands, outbox. Redis: customers' newest orders, and the buckets of limits (`shop-rate:`).
Writes `orders.requests`, `orders.commands`, `quotes.requests`, `models.transfers`; reads `orders.changes`,
`orders.outcomes`, `quotes.changes`, `models.stored`; writes and reads `orders.messages`. What a person is
called and reached by never leaves its database.
"""
