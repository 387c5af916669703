"""Redis as Orders uses it: single orders, kept for an hour after they were changed or read (R1.9). When they may be
believed, and what mends them, is `kit/generations.py`; a fresh generation is empty and fills as orders are used."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Order
from lostwax.kit.generations import Entry, Generations, Source, Untrusted
from lostwax.kit.postgres import Connection, Pool

_KEPT_S = 3600
_encode = msgspec.json.Encoder().encode


class OrderCache(Generations):
    """`load` reads orders from their shards. `dsn` and `pool` are the control database's."""

    def __init__(
        self, url: str, dsn: str, pool: Pool, load: Callable[[Sequence[UUID]], Awaitable[Sequence[Order]]]
    ) -> None:
        async def some(_: Connection, order_ids: Sequence[UUID]) -> Sequence[Entry]:
            return [_entry(order) for order in await load(order_ids)]

        super().__init__("orders.orders", url, dsn, pool, Source(_nothing, some, _none))

    async def show(self, orders: Sequence[Order]) -> None:
        """These orders were changed, and the change is committed. Never fails."""
        await self.push([_entry(order) for order in orders])

    async def keep(self, order: Order) -> None:
        """This order was read from its shard. Never fails."""
        await self.read_elsewhere([_entry(order)])

    async def order(self, order_id: UUID) -> bytes | None:
        """The order as JSON; None when its shard must be asked."""
        try:
            found = await self.entry(order_id)
        except Untrusted:
            return None
        return None if found is None else found[1]


def _entry(order: Order) -> Entry:
    return Entry(order.order_id, order.version, (), _encode(order), _KEPT_S)


async def _nothing(_: Connection, __: UUID) -> AsyncIterator[Entry]:
    entries: tuple[Entry, ...] = ()
    for entry in entries:
        yield entry


async def _none(_: Connection, __: UUID) -> int:
    return 0
