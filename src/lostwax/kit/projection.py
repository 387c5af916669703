"""Reading `orders.changes`: the newest version is all that a reader which shows state needs."""

from collections.abc import Iterable
from uuid import UUID

from lostwax.contracts.orders import Order


def newest(orders: Iterable[Order]) -> list[Order]:
    """The newest version of each order, sorted by id, as rows must be locked."""
    by_id: dict[UUID, Order] = {}
    for order in orders:
        if order.order_id not in by_id or by_id[order.order_id].version < order.version:
            by_id[order.order_id] = order
    return [by_id[order_id] for order_id in sorted(by_id)]
