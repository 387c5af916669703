"""Orders' HTTP API, as the CRM calls it."""

from uuid import UUID

import msgspec

from lostwax.contracts.orders import Order
from lostwax.kit.neighbours import Neighbour


class _History(msgspec.Struct, frozen=True):
    versions: list[Order]


_history = msgspec.json.Decoder(_History)


async def history(orders: Neighbour, order_id: UUID, after: int) -> list[Order]:
    """Versions of an order above `after`, oldest first, at most 100; none when Orders does not know it. Raises the 503
    Problem."""
    response = await orders.call(
        "GET",
        f"/v1/orders/{order_id}/history",
        expected=(200, 404),
        missing="the time line cannot be shown now; the order's present state can.",
        params={"after": after},
    )
    return _history.decode(response.content).versions if response.status_code == 200 else []
