"""MES (R6): where operators take and make orders.

Database `mes`: projections of every order and of the staff, claims and steps of work, outbox. Writes
`orders.commands`; reads `orders.changes`, `orders.outcomes` and `staff.changes`. Lists are served from Redis, built
from the database; when Redis is not to be trusted they come from the database, slower, and say so. Who works on what
is decided by a unique key here; whether an order may be started by Orders; who may come in is said by the CRM.
"""
