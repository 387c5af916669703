"""Pure rules of the CRM: what a seller can be told at once that Orders would refuse.

Orders alone decides; this only spares a round trip and says more, since what a seller saw and what is known now can be
compared here. A test holds that the statuses are those of Orders' own table.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from lostwax.contracts.orders import (
    Action,
    Approve,
    Cancel,
    Close,
    Hold,
    Order,
    Resubmit,
    Resume,
    Specification,
    Status,
    Transition,
)

SHIFT = timedelta(hours=12)
"""How long a sign-in lasts."""

_BEFORE_SHIPPING = frozenset(
    {
        Status.SUBMITTED,
        Status.PRICE_CALCULATED,
        Status.PRICE_FAILED,
        Status.MANUFACTURING_APPROVED,
        Status.MANUFACTURING_STARTED,
        Status.REWORK,
        Status.MANUFACTURING_COMPLETED,
        Status.PACKAGING,
    }
)

FROM: Mapping[type[Action], frozenset[Status]] = {
    Approve: frozenset({Status.PRICE_CALCULATED}),
    Resubmit: frozenset({Status.PRICE_CALCULATED, Status.PRICE_FAILED, Status.MANUFACTURING_APPROVED}),
    Hold: _BEFORE_SHIPPING,
    Resume: frozenset({Status.ON_HOLD}),
    Cancel: _BEFORE_SHIPPING | {Status.ON_HOLD},
    Close: frozenset({Status.SHIPPED}),
}
"""From which statuses a seller's action leads on."""


class Hopeless(Exception):
    """What Orders would refuse for certain. `code` is for programs, `title` and `detail` for the seller."""

    def __init__(self, code: str, title: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.title, self.detail = code, title, detail


def check(order: Order, action: Action, seen_version: int, now: datetime) -> None:
    """Raises Hopeless for a wish that cannot succeed. `order` is what is known here; a seller may have seen a newer
    version already, and then Orders is asked."""
    if seen_version > order.version:
        return
    if seen_version < order.version:
        raise Hopeless("stale", "The order has changed since you looked", f"{happened(order)} Look at it again.")
    if order.status not in FROM[type(action)]:
        wanted = " or ".join(sorted(FROM[type(action)]))
        raise Hopeless("wrong-status", "This does not fit the order now", f"{happened(order)} It is not {wanted}.")
    if isinstance(action, Approve):
        _check_quote(order, action, now)


def _check_quote(order: Order, action: Approve, now: datetime) -> None:
    quote = order.quote
    if quote is None or quote.quote_id != action.quote_id:
        raise Hopeless("quote-superseded", "This price is no longer the order's", "Look at the order again.")
    if quote.amount != action.amount:
        detail = f"The price is {quote.amount} {quote.currency}, not {action.amount}."
        raise Hopeless("amount-differs", "This is not the quoted amount", detail)
    if quote.expires_at < now:
        detail = f"It was held until {quote.expires_at:%Y-%m-%d %H:%M} UTC; resubmit the order for a fresh one."
        raise Hopeless("quote-expired", "The price has expired", detail)


def happened(order: Order) -> str:
    """The step that led to the order's version, in a sentence."""
    step: Transition = order.transition
    why = f" ({step.reason})" if step.reason else ""
    return f"It is {order.status} by {step.actor.name} since {step.at:%Y-%m-%d %H:%M:%S} UTC{why}."


def misfit(specification: Specification, now: datetime) -> str | None:
    """What the fields of a specification cannot say one by one; None when it holds together."""
    if specification.ring_size is not None and specification.scale is not None:
        return "Give a ring size or a scale, not both."
    if specification.deadline is not None and specification.deadline < now.date():
        return f"The deadline {specification.deadline} has passed."
    return None
