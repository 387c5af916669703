"""Payment, as a port: what the shop asks of whoever takes the money. The one that is there asks for nothing before the
piece is sent; a provider's is another class with the same function, chosen in `main.py`."""

from decimal import Decimal
from typing import Protocol

import msgspec

from lostwax.channel.views import OrderView
from lostwax.contracts.orders import Status


class Due(msgspec.Struct, frozen=True):
    """What is to be paid for an order. `state`: `nothing` (there is no price, or it is cancelled), `with_the_piece`,
    or `invoiced`, when the piece is on its way. `pay_at`: where a provider takes the money, None where nobody does."""

    method: str
    state: str
    amount: Decimal | None = None
    currency: str | None = None
    pay_at: str | None = None


class Payment(Protocol):
    """Whoever takes the money."""

    async def due(self, order: OrderView) -> Due:
        """What is to be paid for this order now. May ask a provider; raises Problem when that does not answer."""
        ...


class PayLater:
    """The invoice comes with the piece."""

    async def due(self, order: OrderView) -> Due:
        if order.quote is None or order.status is Status.CANCELLED:
            return Due("later", "nothing")
        sent = order.status in (Status.SHIPPED, Status.CLOSED)
        return Due("later", "invoiced" if sent else "with_the_piece", order.quote.amount, order.quote.currency)
