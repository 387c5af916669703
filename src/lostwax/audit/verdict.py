"""What the audit concludes of one order or quote, from what each place knows of it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from lostwax.contracts.ids import bucket_of
from lostwax.contracts.orders import Status
from lostwax.contracts.quotes import QuoteState


class Kind(StrEnum):
    """What can be wrong with an order or a quote."""

    MISSING = "missing"
    DOUBLED = "doubled"
    UNREQUESTED = "unrequested"
    MISPLACED = "misplaced"
    GAP = "gap"
    STUCK = "stuck"
    DIFFERS = "differs"
    DEAD = "dead"
    UNREPORTED = "unreported"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, of an order, of a quote, or (both None) of neither."""

    kind: Kind
    order_id: UUID | None
    detail: str
    quote_id: UUID | None = None


class InOrders(msgspec.Struct, frozen=True):
    """An order as a shard has it. `digest` of the whole body; `steps` and `last_step` of its history; `amount_minor`:
    hundredths of `currency`."""

    shard: int
    owned: bool
    version: int
    status: Status
    since: datetime
    digest: str
    steps: int
    last_step: int
    submitted_at: datetime
    approved_at: datetime | None = None
    amount_minor: int | None = None
    currency: str | None = None


class InView(msgspec.Struct, frozen=True):
    """An order as a reader has it; version 0: requested, nothing heard yet."""

    version: int
    status: str
    digest: str | None


class InReports(msgspec.Struct, frozen=True):
    """An order as reports have it, in the same words."""

    version: int
    status: str
    since: datetime
    steps: int
    submitted_at: datetime
    approved_at: datetime | None
    amount_minor: int | None
    currency: str | None


class Known(msgspec.Struct, frozen=True):
    """Everything that is known of one order. `channels`: through which it was requested. `views` by reader; a reader
    that must know of it and does not is None. `compared`: reports were asked, too."""

    order_id: UUID
    acknowledged: bool
    channels: Sequence[str]
    in_orders: Sequence[InOrders]
    views: Mapping[str, InView | None]
    compared: bool = False
    reported: InReports | None = None

    @property
    def requested(self) -> bool:
        return bool(self.channels)


class QuoteInOrders(msgspec.Struct, frozen=True):
    """A quote as a shard has it. `digest` of the whole body."""

    shard: int
    version: int
    state: str
    requested_at: datetime
    digest: str


class KnownQuote(msgspec.Struct, frozen=True):
    """Everything that is known of one quote. `views` by the channel that it was asked through."""

    quote_id: UUID
    views: Mapping[str, InView]
    in_orders: Sequence[QuoteInOrders]


def judge_quote(known: KnownQuote, now: datetime, limit: timedelta | None) -> list[Finding]:
    """Everything that is wrong with one quote; it is to be answered within `limit`, if there is one."""
    findings: list[Finding] = []

    def find(kind: Kind, detail: str) -> None:
        findings.append(Finding(kind, None, detail, known.quote_id))

    if not known.in_orders:
        find(Kind.MISSING, f"{' and '.join(known.views)} asked for a quote, and Orders does not have it")
        return findings
    if len(known.in_orders) > 1:
        find(Kind.DOUBLED, f"a quote on shards {', '.join(str(q.shard) for q in known.in_orders)}")
    if not known.views:
        find(Kind.UNREQUESTED, "no channel has asked for this quote")
    quote = known.in_orders[0]
    if limit is not None and quote.state == QuoteState.REQUESTED and now - quote.requested_at > limit:
        find(Kind.STUCK, f"a quote without its prices since {quote.requested_at:%Y-%m-%d %H:%M:%S} UTC")
    for reader, view in known.views.items():
        if view.version != quote.version:
            find(Kind.DIFFERS, f"{reader} sees version {view.version} of a quote, Orders has {quote.version}")
        elif view.digest != quote.digest:
            find(Kind.DIFFERS, f"{reader} sees other contents of version {quote.version} of a quote than Orders has")
    return findings


def judge(known: Known, now: datetime, limits: Mapping[Status, timedelta]) -> list[Finding]:
    """Everything that is wrong with one order."""
    findings: list[Finding] = []

    def find(kind: Kind, detail: str) -> None:
        findings.append(Finding(kind, known.order_id, detail))

    places = known.in_orders
    if not places and not known.acknowledged and not known.requested and not any(known.views.values()):
        find(Kind.UNREPORTED, "reports tell of it, and nobody else knows of it")
        return findings
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
    if known.compared and (detail := _reported_wrong(order, known.reported)):
        find(Kind.UNREPORTED, detail)
    return findings


def _reported_wrong(order: InOrders, reported: InReports | None) -> str | None:
    """In words, how reports differ; None when they do not."""
    if reported is None:
        return "reports do not know of it"
    differing = [name for name in InReports.__struct_fields__ if getattr(order, name) != getattr(reported, name)]
    if not differing:
        return None
    told = ", ".join(f"{name} {getattr(reported, name)} (Orders: {getattr(order, name)})" for name in differing)
    return f"reports have {told}"
