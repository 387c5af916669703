"""A package of its own, so that `python -m tests..` finds it: an installed one (ydb) brings another of this name."""
