"""Redis as the MES uses it: the operators' lists. When they may be believed, and what mends them, is
`kit/generations.py`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.kit.generations import Entry, Generations, Source, Untrusted
from lostwax.kit.postgres import Connection, Pool
from lostwax.mes.domain import Card, ListName, Placed

__all__ = ["Lists", "Standings", "Untrusted"]

_OFF_LIST_S = 24 * 3600
"""How long an order on no list is remembered: its rank must outlive late, older views."""

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_card = msgspec.json.Decoder(Card)
_encode = msgspec.json.Encoder().encode


class Standings(msgspec.Struct, frozen=True):
    """How the database tells where orders stand: all of those on lists, in one snapshot, how many they are, and some by
    their ids."""

    everything: Callable[[Connection], AsyncIterator[Placed]]
    count: Callable[[Connection], Awaitable[int]]
    some: Callable[[Connection, Sequence[UUID]], Awaitable[Sequence[Placed]]]


class Lists(Generations):
    """The operators' lists, by due date."""

    def __init__(self, url: str, dsn: str, pool: Pool, standings: Standings) -> None:
        async def everything(connection: Connection, _: UUID) -> AsyncIterator[Entry]:
            async for placed in standings.everything(connection):
                yield _entry(placed)

        async def some(connection: Connection, order_ids: Sequence[UUID]) -> Sequence[Entry]:
            return [_entry(placed) for placed in await standings.some(connection, order_ids)]

        async def count(connection: Connection, _: UUID) -> int:
            return await standings.count(connection)

        super().__init__("mes.lists", url, dsn, pool, Source(everything, some, count))

    async def show(self, orders: Sequence[Placed]) -> None:
        """Show these orders where they stand now. Never fails: what Redis does not take is made good."""
        await self.push([_entry(placed) for placed in orders])

    async def shown_elsewhere(self, orders: Sequence[Placed]) -> None:
        """These orders were read from the database and are about to be seen."""
        await self.read_elsewhere([_entry(placed) for placed in orders])

    async def cards(self, list_name: ListName, after: tuple[datetime, UUID] | None, limit: int) -> list[Card]:
        """Cards of a list by due date, from above `after`. Raises Untrusted."""
        found = await self.page(list_name, None if after is None else _member(*after), limit)
        return [_card.decode(body) for body in found.bodies]


def _member(due_at: datetime, order_id: UUID) -> str:
    """Sorts as due date and id do. Due dates are whole milliseconds."""
    return f"{(due_at.astimezone(UTC) - _FIRST) // _MILLISECOND:015d}_{order_id}"


def _entry(placed: Placed) -> Entry:
    card = placed.card
    if placed.list is None:
        return Entry(card.order_id, placed.rank, (), b"", _OFF_LIST_S)
    return Entry(card.order_id, placed.rank, ((placed.list, _member(card.due_at, card.order_id)),), _encode(card))
