"""What rows of one key come to together, in whatever order they are told. Pure."""

from collections.abc import Sequence
from typing import Any

from lostwax.reporting.tables import Row, Table


def one_of_each(table: Table, rows: Sequence[Row]) -> list[Row]:
    """Of rows of one key, what they come to together: one statement may not write a row twice."""
    width = len(table.key)
    together: dict[Row, Row] = {}
    for row in rows:
        key = row[:width]
        before = together.get(key)
        together[key] = row if before is None else merged(table, before, row)
    return list(together.values())


def merged(table: Table, before: Row, row: Row) -> Row:
    """`row`, told after `before`, of the same key; between rows of one position and time it counts as the newer."""
    names = table.names
    position, at = names.index("position"), names.index("source_at")
    is_newer = (row[position], row[at]) >= (before[position], before[at])
    older, newer = (before, row) if is_newer else (row, before)
    same = row[position] == before[position]
    return tuple(
        _value(column.keep, old, new, same) for column, old, new in zip(table.columns, older, newer, strict=True)
    )


def _value(keep: str, old: Any, new: Any, same: bool) -> Any:
    if keep == "newest":
        # A row that is told of the same version again may know less: what it does not know stands.
        return old if same and new is None else new
    if old is None or new is None:
        return new if old is None else old
    return min(old, new) if keep == "first" else max(old, new)
