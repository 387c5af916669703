"""MES (R6): where operators take and make orders.

Database `mes`: operators, a projection of every order, claims and steps of work, outbox. Writes `orders.commands`;
reads `orders.changes` and `orders.outcomes`. Lists are served from Redis, built from the database; when Redis is not
to be trusted they come from the database, slower, and say so. Who works on what is decided by a unique key here;
whether an order may be started is decided by Orders.
"""
