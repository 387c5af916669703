"""The audit: proof instead of hope. Takes the orders that clients were told are accepted, and shows that each is
exactly once in Orders and seen alike by all who read of it; names every one that is not, and can re-drive it.

Reads every database by a read-only role of its own and the dead-letter topics; trusts no service's word.
"""
