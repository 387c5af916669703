"""What Reporting wants of a warehouse, whichever it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lostwax.reporting.tables import Gone, Row, Table

Value = str | int | float | datetime | None
Written = Mapping[Table, Sequence[Row]]

# The orders' and the history's are what reports are about, and every order changes both.
NEWEST_SQL = "SELECT max(source_at) AS source_at, max(captured_at) AS captured_at FROM history"
"""How new what is in is."""


class WarehouseAway(Exception):
    """The warehouse does not answer, is full, or cannot be opened: in words. Nothing of the call is certain."""


class QueryFailed(Exception):
    """The query is wrong, in the warehouse's words."""


class QueryTooBig(Exception):
    """The query came to more rows, memory or seconds than it may."""


class Limits(msgspec.Struct, frozen=True):
    """What one query may come to. `share`: of the warehouse's memory, for what it gathers on its way; only an embedded
    one heeds it, a server has bounds of its own."""

    rows: int = 100_000
    seconds: float = 30.0
    share: float = 1.0


class Answer(msgspec.Struct, frozen=True):
    """`columns` by name and `rows`; times are in UTC. Dates and decimals, if a query makes them, come as such."""

    columns: tuple[str, ...]
    rows: list[Row]


class Freshness(msgspec.Struct, frozen=True):
    """`as_of`: when the newest change that is in was written by its database; None: nothing is in."""

    as_of: datetime | None
    captured_at: datetime | None


class Warehouse(Protocol):
    """Rows by key, newest wins: a row that comes again, or late, changes nothing that it should not.

    Every call may raise WarehouseAway.
    """

    async def write(self, rows: Written, gone: Sequence[Gone] = ()) -> None:
        """Put whole rows in, and mark what is gone, all or nothing where the warehouse can; idempotent. Of one key,
        later ones in `rows` win over earlier ones of the same position; deletions come after all rows."""
        ...

    async def query(self, sql: str, parameters: Mapping[str, Value], limits: Limits) -> Answer:
        """Answer a question, writing nothing. `sql` names parameters as $name; names that it does not use are passed
        over. Raises QueryFailed or QueryTooBig. Cancelling it ends it in the warehouse too."""
        ...

    async def freshness(self) -> Freshness:
        """How new what is in is."""
        ...

    async def forget(self) -> None:
        """Empty every table, all or nothing where the warehouse can."""
        ...

    async def close(self) -> None:
        """Nothing that was written is lost by not calling it."""
        ...
