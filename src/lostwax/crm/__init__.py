"""CRM (R4): the sellers' door, and the accounts of the staff.

Database `crm`: staff and the digests of their badges, a projection of every order, commands, outbox. Writes
`staff.changes` and `orders.commands`; reads `orders.changes` and `orders.outcomes`. Signs the tokens by which sellers,
operators, supervisors and administrators come in, here and in the MES.
"""
