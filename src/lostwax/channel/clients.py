"""Redis as a door uses it: each client's orders, newest first, as the API shows them (R5.4). When they may be
believed, and what mends them, is `kit/generations.py`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.channel.views import OwnView
from lostwax.contracts.orders import Status
from lostwax.kit.generations import Entry, Generations, Source, Untrusted
from lostwax.kit.postgres import Connection, Pool

__all__ = ["OrderViews", "Requests", "Untrusted"]

_RENEWED_AFTER_S = 24 * 3600.0
_OLDER = "older"
_encode = msgspec.json.Encoder().encode


class Requests(msgspec.Struct, frozen=True):
    """How the database tells of orders: all from an id upwards and how many, the clients who have some below it, and
    some by their ids."""

    everything: Callable[[Connection, UUID], AsyncIterator[OwnView]]
    count: Callable[[Connection, UUID], Awaitable[int]]
    clients_with_older: Callable[[Connection, UUID], Awaitable[Sequence[UUID]]]
    some: Callable[[Connection, Sequence[UUID]], Awaitable[Sequence[OwnView]]]


class CachedPage(msgspec.Struct, frozen=True):
    """Orders as JSON, newest first. `goes_on_below`: Redis has none below that id, and the database may."""

    orders: list[bytes]
    goes_on_below: UUID | None


class OrderViews(Generations):
    """Orders accepted in the last `cached` (a day more at most), by client and by client and status."""

    def __init__(
        self,
        name: str,
        url: str,
        dsn: str,
        pool: Pool,
        requests: Requests,
        *,
        cached: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        async def everything(connection: Connection, floor: UUID) -> AsyncIterator[Entry]:
            # They stand on a list of their own, so that a client without older orders is not looked up below the floor.
            for client_id in await requests.clients_with_older(connection, floor):
                yield Entry(client_id, 0, ((_OLDER, str(client_id)),), b"")
            async for own in requests.everything(connection, floor):
                yield entry(own)

        async def some(connection: Connection, order_ids: Sequence[UUID]) -> Sequence[Entry]:
            return [entry(own) for own in await requests.some(connection, order_ids)]

        def floor() -> UUID:
            # UUIDv7 begins with its time in milliseconds.
            return UUID(int=int((now() - cached).timestamp() * 1000) << 80)

        source = Source(everything, some, requests.count, floor)
        super().__init__(f"{name}.orders", url, dsn, pool, source, renewed_after_s=_RENEWED_AFTER_S)

    async def of_client(self, client_id: UUID, status: Status | None, before: UUID | None, limit: int) -> CachedPage:
        """A client's orders from below `before`. Raises Untrusted."""
        found = await self.page(
            str(client_id) if status is None else f"{client_id}:{status}",
            None if before is None else str(before),
            limit,
            last_first=True,
            mark=(_OLDER, str(client_id)),
        )
        if not all(found.bodies):
            raise Untrusted("an order has just been accepted")
        return CachedPage(found.bodies, found.floor if found.marked and len(found.bodies) < limit else None)

    async def own(self, client_id: UUID, order_id: UUID) -> bytes | None:
        """One order as JSON; None when Redis has no such order of this client, or not yet what it looks like. Raises
        Untrusted."""
        found = await self.entry(order_id)
        return None if found is None or str(client_id) not in found[0] else found[1] or None


def entry(own: OwnView) -> Entry:
    view = own.view
    # Odd: newer than the bare entry of the same order, and than no later version.
    return Entry(view.order_id, 2 * view.version + 1, _places(own.client_id, view.order_id, view.status), _encode(view))


def accepted(client_id: UUID, order_id: UUID) -> Entry:
    """Of an order that has just been accepted: where it stands, not what it looks like. Who asks for it before its
    first version comes, a moment later, gets it from the database; so intake has a sixth to write into Redis."""
    return Entry(order_id, 0, _places(client_id, order_id, Status.SUBMITTED), b"")


def _places(client_id: UUID, order_id: UUID, status: Status) -> tuple[tuple[str, str], ...]:
    member = str(order_id)
    return ((str(client_id), member), (f"{client_id}:{status}", member))
