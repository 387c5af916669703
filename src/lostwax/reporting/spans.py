"""How long an order had been in the status that it left: told by the versions before, however they come. Pure.

`former_s` of a version is known once every version back to the one that entered that status is in. Each write counts it
anew for all versions of the orders that it touches, so a version that comes late, or is told differently, mends those
behind it. `FORMER_SQL` is the same for a warehouse that can; a test holds the two against each other.
"""

from collections.abc import Sequence

from lostwax.reporting.tables import HISTORY, Row

_VERSION, _STATUS, _FROM, _AT, _FORMER = map(
    HISTORY.names.index, ("version", "status", "from_status", "happened_s", "former_s")
)

FORMER_SQL = """UPDATE history SET former_s = told.former_s
FROM (
  SELECT order_id, version, CASE WHEN enters THEN happened_s - last_value(CASE WHEN enters THEN happened_s END IGNORE NULLS)
      OVER (PARTITION BY order_id, gaps ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) END AS former_s
  FROM (
    SELECT order_id, version, happened_s, from_status IS DISTINCT FROM status AS enters,
      version - row_number() OVER (PARTITION BY order_id ORDER BY version) AS gaps
    FROM history WHERE order_id IN (SELECT order_id FROM incoming)
  ) AS steps
) AS told
WHERE history.order_id = told.order_id AND history.version = told.version
  AND history.former_s IS DISTINCT FROM told.former_s"""  # noqa: E501
"""`incoming`: what was written just now."""


def with_former(rows: Sequence[Row]) -> list[Row]:
    """All versions of one order that are in, with `former_s` as they tell it; what it leaves alone is the same row."""
    told: list[Row] = []
    entered: float | None = None
    expected = None
    for row in sorted(rows, key=lambda row: row[_VERSION]):
        if row[_VERSION] != expected:
            entered = None
        expected = row[_VERSION] + 1
        former = None
        if row[_FROM] != row[_STATUS]:
            at = row[_AT]
            former = None if at is None or entered is None else at - entered
            entered = entered if at is None else at
        told.append(row if row[_FORMER] == former else (*row[:_FORMER], former, *row[_FORMER + 1 :]))
    return told
