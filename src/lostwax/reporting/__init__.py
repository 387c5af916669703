"""Reporting (R8): keeps what change capture reads from every database in a warehouse, and answers questions about the
business. It is in no order's path."""
