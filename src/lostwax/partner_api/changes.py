"""What Orders tells of partners' orders: kept, and told to their hooks."""

from collections.abc import Sequence

from lostwax.channel import handlers, store
from lostwax.channel.clients import Requests
from lostwax.channel.handlers import Door
from lostwax.contracts.orders import Order
from lostwax.kit.postgres import Connection
from lostwax.partner_api import hooks, keys_store
from lostwax.partner_api.hooks_store import clients_with_hooks

REQUESTS = Requests(store.own_views_from, store.count_from, keys_store.clients_with_older, store.own_views)
"""What clients' orders in Redis are built from."""


async def take_changes(door: Door, orders: Sequence[Order]) -> None:
    """Keep what Orders says of this channel's orders, the newest version of each; every version becomes a delivery to
    the hooks of its client."""
    await handlers.take_changes(door, orders, keep=_keep_and_tell)


async def _keep_and_tell(connection: Connection, own: Sequence[Order], changed: Sequence[Order]) -> None:
    told = await clients_with_hooks(connection, list({order.account for order in changed}))
    if not told:
        await store.take_changes(connection, changed)
    else:
        async with connection.transaction():
            await hooks.enqueue(connection, [order for order in own if order.account in told])
            await store.take_changes(connection, changed)
