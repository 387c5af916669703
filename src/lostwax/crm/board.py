"""Redis as the CRM uses it: the board of orders that are not over, by status, what has been there longest first (R4.5).
When it may be believed, and what mends it, is `kit/generations.py`."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Status
from lostwax.crm import desk_store
from lostwax.crm.domain import OFF_BOARD, OrderLine, Placed, line
from lostwax.kit.generations import Entry, Generations, Source, Untrusted
from lostwax.kit.postgres import Connection, Pool

__all__ = ["Board", "Untrusted"]

_OFF_BOARD_S = 24 * 3600
"""How long an order that is over is remembered: its rank must outlive late, older views."""

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_line = msgspec.json.Decoder(OrderLine)
_encode = msgspec.json.Encoder().encode


class Board(Generations):
    """A list for each status."""

    def __init__(self, url: str, dsn: str, pool: Pool) -> None:
        async def everything(connection: Connection, _: UUID) -> AsyncIterator[Entry]:
            async for placed in desk_store.on_board(connection):
                yield _entry(placed)

        async def some(connection: Connection, order_ids: Sequence[UUID]) -> Sequence[Entry]:
            return [_entry(placed) for placed in await desk_store.placed(connection, order_ids)]

        async def count(connection: Connection, _: UUID) -> int:
            return await desk_store.count_on_board(connection)

        super().__init__("crm.board", url, dsn, pool, Source(everything, some, count))

    async def show(self, orders: Sequence[Placed]) -> None:
        """Show these orders where they stand now. Never fails: what Redis does not take is made good."""
        await self.push([_entry(placed) for placed in orders])

    async def column(self, status: Status, limit: int) -> list[OrderLine]:
        """What has had a status for longest. Raises Untrusted."""
        return [_line.decode(body) for body in (await self.page(status, None, limit)).bodies]


def _entry(placed: Placed) -> Entry:
    order = placed.order
    if order.status in OFF_BOARD:
        return Entry(order.order_id, order.version, (), b"", _OFF_BOARD_S)
    since = (placed.status_since.astimezone(UTC) - _FIRST) // _MILLISECOND
    member = f"{since:015d}_{order.order_id}"
    # Whose it is may change without a new version: that is looked up when the board is shown.
    bare = Placed(order, placed.status_since)
    return Entry(order.order_id, order.version, ((order.status, member),), _encode(line(bare)))
