"""What the audit concludes of one order, from what each place knows of it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from lostwax.contracts.ids import bucket_of
from lostwax.contracts.orders import Status


class Kind(StrEnum):
    """What can be wrong with an order."""

    MISSING = "missing"
    DOUBLED = "doubled"
    UNREQUESTED = "unrequested"
    MISPLACED = "misplaced"
    GAP = "gap"
    STUCK = "stuck"
    DIFFERS = "differs"
    DEAD = "dead"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. `order_id` None: not about one order."""

    kind: Kind
    order_id: UUID | None
    detail: str


class InOrders(msgspec.Struct, frozen=True):
    """An order as a shard has it. `digest` of the whole body; `steps` and `last_step` of its history."""

    shard: int
    owned: bool
    version: int
    status: Status
    since: datetime
    digest: str
    steps: int
    last_step: int


class InView(msgspec.Struct, frozen=True):
    """An order as a reader has it; version 0: requested, nothing heard yet."""

    version: int
    status: str
    digest: str | None


class Known(msgspec.Struct, frozen=True):
    """Everything that is known of one order. `views` by reader; a reader that must know of it and does not is None."""

    order_id: UUID
    acknowledged: bool
    requested: bool
    in_orders: Sequence[InOrders]
    views: Mapping[str, InView | None]


LIMITS: Mapping[Status, timedelta] = {
    Status.SUBMITTED: timedelta(minutes=10),
    Status.PRICE_CALCULATED: timedelta(days=14),
    Status.PRICE_FAILED: timedelta(days=30),
    Status.MANUFACTURING_APPROVED: timedelta(days=7),
    Status.MANUFACTURING_STARTED: timedelta(days=10),
    Status.REWORK: timedelta(days=3),
    Status.MANUFACTURING_COMPLETED: timedelta(days=3),
    Status.PACKAGING: timedelta(days=2),
    Status.ON_HOLD: timedelta(days=30),
}
"""How long an order may stay in a status before it counts as stuck. The others are ends, or wait for the carrier."""


def judge(known: Known, now: datetime, limits: Mapping[Status, timedelta]) -> list[Finding]:
    """Everything that is wrong with one order."""
    findings: list[Finding] = []

    def find(kind: Kind, detail: str) -> None:
        findings.append(Finding(kind, known.order_id, detail))

    places = known.in_orders
    if not places:
        who = "a client was told it is accepted" if known.acknowledged else "its channel has the request"
        find(Kind.MISSING, f"{who}, and Orders does not have it")
        return findings
    if len(places) > 1:
        find(Kind.DOUBLED, f"on shards {', '.join(str(p.shard) for p in places)}")
    if not known.requested:
        find(Kind.UNREQUESTED, "no channel has a request for it")
    order = next((p for p in places if p.owned), places[0])
    if not order.owned:
        find(Kind.MISPLACED, f"on shard {order.shard}, which does not own bucket {bucket_of(known.order_id)}")
    if order.steps != order.version or order.last_step != order.version:
        find(Kind.GAP, f"version {order.version}, but {order.steps} steps of history up to {order.last_step}")
    limit = limits.get(order.status)
    if limit is not None and now - order.since > limit:
        find(Kind.STUCK, f"{order.status} since {order.since:%Y-%m-%d %H:%M:%S} UTC, longer than {limit}")
    for reader, view in known.views.items():
        if view is None:
            find(Kind.DIFFERS, f"{reader} does not know of it")
        elif (view.version, view.status) != (order.version, order.status):
            find(
                Kind.DIFFERS,
                f"{reader} sees version {view.version} {view.status}, Orders has {order.version} {order.status}",
            )
        elif view.digest != order.digest:
            find(Kind.DIFFERS, f"{reader} sees other contents of version {order.version} than Orders has")
    return findings
