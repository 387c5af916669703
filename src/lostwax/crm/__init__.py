"""CRM (R4): the sellers' desk, and the accounts of the staff.

Database `crm`: staff and the digests of their badges, a projection of every order, customers, layouts and the links by
which customers see them, tasks, letters, commands, outbox. Redis: the board. Writes `staff.changes` and
`orders.commands`; reads `orders.changes` and `orders.outcomes`; writes and reads `orders.messages`. Signs the
tokens by which sellers, operators, supervisors and administrators come in, here and at every other house of the staff.
"""
