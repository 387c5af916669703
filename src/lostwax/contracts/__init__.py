"""What services say to each other: ids, topics and message structs. No I/O, no decisions.

Every struct is frozen and every message type is registered once, by a chosen and versioned name, in `catalogue`.
"""
