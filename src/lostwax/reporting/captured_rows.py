"""How a captured row becomes rows of the warehouse's tables. Pure. What else stands in a captured row is passed over,
what is missing is null."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from lostwax.contracts.capture import UNCHANGED
from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import PROMISE
from lostwax.reporting.tables import (
    CLAIMS,
    COMMANDS,
    CUSTOMERS,
    HISTORY,
    LAYOUTS,
    MODELS,
    OPERATORS,
    ORDERS,
    OUTCOMES,
    PARTNERS,
    PRICES,
    QUOTE_REQUESTS,
    QUOTES,
    REQUESTS,
    STAFF,
    TASKS,
    WAITS,
    Gone,
    Row,
    Table,
)


class _Source(msgspec.Struct, frozen=True):
    db: str = ""
    name: str = ""
    lsn: int | None = None
    ts_ms: int = 0


class Envelope(msgspec.Struct, frozen=True):
    """Debezium's envelope: `op` is c, u, d, r (snapshot) or t (truncated)."""

    op: str
    source: _Source
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class _Model(msgspec.Struct, frozen=True):
    size_bytes: int | None = None


class _Specification(msgspec.Struct, frozen=True):
    model: _Model = _Model()
    alloy: str | None = None
    finish: str | None = None
    quantity: int | None = None


class _Geometry(msgspec.Struct, frozen=True):
    triangles: int | None = None
    volume_mm3: float | None = None


class _Quote(msgspec.Struct, frozen=True):
    amount: Decimal
    currency: str
    priced_at: datetime
    geometry: _Geometry = _Geometry()
    tariff_version: str | None = None


class _Failure(msgspec.Struct, frozen=True):
    code: str
    mended_by: str | None = None


class _Actor(msgspec.Struct, frozen=True):
    kind: str | None = None
    id: str | None = None
    name: str | None = None


class _Transition(msgspec.Struct, frozen=True):
    actor: _Actor = _Actor()
    at: datetime | None = None
    source: str | None = None
    reason: str | None = None


class _Shipment(msgspec.Struct, frozen=True):
    carrier: str | None = None


class _OnHold(msgspec.Struct, frozen=True):
    source: str | None = None
    reason: str | None = None


class _Order(msgspec.Struct, frozen=True):
    """A body is whole; one that is not has nulls, and what the columns beside it tell."""

    order_id: str | None = None
    version: int | None = None
    status: str | None = None
    account: str | None = None
    channel: str | None = None
    specification: _Specification = _Specification()
    submitted_at: datetime | None = None
    updated_at: datetime | None = None
    transition: _Transition = _Transition()
    reference: str | None = None
    quote: _Quote | None = None
    failure: _Failure | None = None
    approved_at: datetime | None = None
    maker: _Actor | None = None
    shipment: _Shipment | None = None
    on_hold: _OnHold | None = None


_body = msgspec.json.Decoder(_Order)
_envelope = msgspec.json.Decoder(Envelope)

STAFF_ROLES = ("operator", "supervisor", "seller", "administrator")


class Calendar:
    """Days, months and weeks of the workshop, whose time zone it is."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def day(self, at: datetime | None) -> str | None:
        return None if at is None else at.astimezone(self._zone).date().isoformat()

    def days(self, at: datetime | None) -> tuple[str | None, str | None, str | None]:
        """Day, month, and ISO week."""
        if at is None:
            return None, None, None
        date = at.astimezone(self._zone).date()
        year, week, _ = date.isocalendar()
        day = date.isoformat()
        return day, day[:7], f"{year}-W{week:02}"


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    at = datetime.fromisoformat(value)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def _minor(amount: Decimal) -> int:
    """Minor units; all currencies of the tariffs have two decimals."""
    return int((amount * 100).to_integral_value())


def _order(after: Mapping[str, Any]) -> _Order:
    order = _body.decode(after["body"])
    if order.order_id is not None and order.version is not None:
        return order
    return msgspec.structs.replace(
        order,
        order_id=after["order_id"],
        version=after["version"],
        status=after.get("status"),
        account=after.get("account"),
        channel=after.get("channel"),
        submitted_at=_time(after.get("submitted_at")),
        updated_at=_time(after.get("status_since") or after.get("at")),
    )


def _partner(door: str | None, account: str | None) -> str | None:
    """By whom reports count an order: customers of the shop and of the sellers are counted by their door together."""
    return account if door in (None, "partner_api") else door


def _facts(order: _Order) -> Row:
    made, quote = order.specification, order.quote
    return (
        short_code(UUID(order.order_id or "")),
        order.channel,
        _partner(order.channel, order.account),
        made.alloy,
        made.finish,
        made.quantity,
        None if quote is None else _minor(quote.amount),
        None if quote is None else quote.currency,
    )


class Marks(msgspec.Struct, frozen=True):
    """What all rows of one change have in common, beside `deleted` and `position`."""

    origin: str
    lsn: int
    source_at: datetime
    captured_at: datetime

    def row(self, position: int | None = None) -> Row:
        return (0, self.origin, self.lsn if position is None else position, self.source_at, self.captured_at)


_Made = list[tuple[Table, Row]]


def _order_row(order: _Order, calendar: Calendar, marks: Marks, since: datetime | None, sha256: str | None) -> Row:
    status, quote = order.status, order.quote
    approved = order.approved_at
    promised = None if approved is None else approved + PROMISE
    at = order.transition.at or order.updated_at
    shipped = at if status == "SHIPPED" else None
    on_time = None if shipped is None or promised is None else int(shipped <= promised)
    submitted_day = calendar.days(order.submitted_at)
    return (
        order.order_id,
        *_facts(order),
        order.reference,
        status,
        since,
        order.version,
        sha256,
        order.specification.model.size_bytes,
        order.submitted_at,
        *submitted_day,
        None if quote is None else quote.priced_at,
        approved,
        *calendar.days(approved),
        promised,
        at if status == "MANUFACTURING_STARTED" else None,
        at if status == "MANUFACTURING_COMPLETED" else None,
        at if status == "PACKAGING" else None,
        shipped,
        *calendar.days(shipped),
        on_time,
        _seconds(approved, shipped),
        at if status == "CLOSED" else None,
        at if status == "CANCELLED" else None,
        _seconds(order.submitted_at, None if quote is None else quote.priced_at),
        _seconds(order.submitted_at, shipped),
        1 if status == "REWORK" else None,
        None if order.failure is None else order.failure.code,
        None if quote is None else quote.geometry.triangles,
        None if order.maker is None else order.maker.id,
        None if order.maker is None else order.maker.name,
        None if order.on_hold is None else order.on_hold.reason,
        None if order.on_hold is None else order.on_hold.source,
        None if order.shipment is None else order.shipment.carrier,
        order.account,
        *marks.row(order.version),
    )


def _orders(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    order = _order(after)
    since = _time(after.get("status_since")) or order.updated_at
    return [(ORDERS, _order_row(order, calendar, marks, since, after.get("model_sha256")))]


_MILESTONES = frozenset(
    {"MANUFACTURING_STARTED", "MANUFACTURING_COMPLETED", "PACKAGING", "SHIPPED", "CLOSED", "CANCELLED", "REWORK"}
)


def _history(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    """A version, and what it alone tells: prices, and when the order passed what its present row no longer tells."""
    order = _order(after)
    step, facts = order.transition, _facts(order)
    at = step.at or order.updated_at
    days = calendar.days(at)
    made: _Made = [
        (
            HISTORY,
            (
                order.order_id,
                order.version,
                *facts,
                order.status,
                step.source,
                at,
                *days,
                None if at is None else at.timestamp(),
                None,  # told by the rows before it: see spans
                step.actor.id,
                step.actor.name if step.actor.kind in STAFF_ROLES else None,
                step.actor.kind,
                step.reason,
                _seconds(order.submitted_at, at),
                _seconds(order.approved_at, at),
                *marks.row(order.version),
            ),
        )
    ]
    if order.status in ("PRICE_CALCULATED", "PRICE_FAILED") and step.source != "ON_HOLD":
        first = order.version == 2
        geometry = _Geometry() if order.quote is None else order.quote.geometry
        made.append(
            (
                PRICES,
                (
                    order.order_id,
                    order.version,
                    *facts,
                    order.submitted_at if first else None,
                    at,
                    *days,
                    _seconds(order.submitted_at, at) if first else None,
                    "priced" if order.status == "PRICE_CALCULATED" else "failed",
                    None if order.failure is None else order.failure.code,
                    None if order.failure is None else order.failure.mended_by,
                    geometry.triangles,
                    geometry.volume_mm3,
                    order.specification.model.size_bytes,
                    None if order.quote is None else order.quote.tariff_version,
                    *marks.row(order.version),
                ),
            )
        )
    if order.status in _MILESTONES:
        # The step's time is the status' since: a hold ends in a step of its own.
        made.append((ORDERS, _order_row(order, calendar, marks, order.updated_at, None)))
    return made


def _claims(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    claimed, confirmed, ended = (_time(after.get(n)) for n in ("claimed_at", "confirmed_at", "ended_at"))
    row = (
        *(after.get(n) for n in ("claim_id", "order_id", "operator_id", "state", "reason")),
        claimed,
        confirmed,
        ended,
        *calendar.days(ended or claimed),
        _seconds(confirmed or claimed, ended),
        after.get("ended_by"),
        *marks.row(),
    )
    return [(CLAIMS, row)]


def _commands(door: str, giver: str) -> "_Reader":
    def read(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
        issued, decided = _time(after.get("issued_at")), _time(after.get("decided_at"))
        told = (after.get(n) for n in ("command_id", "order_id", giver, "action", "state", "code"))
        return [
            (COMMANDS, (door, *told, issued, calendar.day(issued), decided, _seconds(issued, decided), *marks.row()))
        ]

    return read


def _outcomes(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    accepted = after.get("accepted")
    told = (after.get("command_id"), after.get("order_id"), None if accepted is None else int(accepted))
    row = (*told, after.get("version"), after.get("code"), _time(after.get("decided_at")), *marks.row())
    return [(OUTCOMES, row)]


def _requests(door: str) -> "_Reader":
    def read(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
        accepted = _time(after.get("accepted_at"))
        day, month, _ = calendar.days(accepted)
        told = (after.get("order_id"), _partner(door, after.get("client_id")), accepted, day, month)
        return [(REQUESTS, (*told, after.get("version"), after.get("status"), *marks.row()))]

    return read


def _quotes(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    at = _time(after.get("requested_at"))
    told = (after.get(n) for n in ("quote_id", "account", "state", "model_sha256", "version"))
    return [(QUOTES, (*told, at, calendar.day(at), *marks.row(after.get("version"))))]


def _quote_requests(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    at = _time(after.get("requested_at"))
    told = (after.get(n) for n in ("quote_id", "client_id", "version"))
    return [(QUOTE_REQUESTS, (*told, at, calendar.day(at), *marks.row()))]


def _models(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    at = _time(after.get("stored_at"))
    return [(MODELS, (after.get("sha256"), after.get("size_bytes"), at, calendar.day(at), *marks.row(0)))]


def _partners(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    created, suspended = _time(after.get("created_at")), _time(after.get("suspended_at"))
    return [(PARTNERS, (after.get("client_id"), after.get("name"), created, suspended, *marks.row()))]


def _operators(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    active = after.get("active")
    told = (after.get("operator_id"), after.get("name"), after.get("role"), None if active is None else int(active))
    return [(OPERATORS, (*told, _time(after.get("created_at")), *marks.row()))]


def _staff(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    told = (after.get("staff_id"), after.get("name"), after.get("role"))
    return [(STAFF, (*told, _time(after.get("created_at")), _time(after.get("withdrawn_at")), *marks.row()))]


def _customers(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    created = _time(after.get("created_at"))
    told = (after.get(n) for n in ("customer_id", "kind", "seller_id"))
    return [(CUSTOMERS, (*told, created, calendar.day(created), after.get("merged_into"), *marks.row()))]


def _layouts(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    made, answered = _time(after.get("at")), _time(after.get("answered_at"))
    told = (after.get(n) for n in ("layout_id", "order_id", "revision", "state", "staff_id"))
    return [(LAYOUTS, (*told, made, calendar.day(made), answered, *marks.row()))]


def _waits(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    since, ended = _time(after.get("since")), _time(after.get("ended_at"))
    told = (after.get(n) for n in ("order_id", "since", "party"))
    return [(WAITS, (*told, since, ended, calendar.day(ended or since), _seconds(since, ended), *marks.row()))]


def _tasks(after: Mapping[str, Any], calendar: Calendar, marks: Marks) -> _Made:
    created, done = _time(after.get("created_at")), _time(after.get("done_at"))
    told = (after.get(n) for n in ("task_id", "seller_id", "order_id", "customer_id"))
    return [(TASKS, (*told, created, calendar.day(created), done, _seconds(created, done), *marks.row()))]


_Reader = Callable[[Mapping[str, Any], Calendar, Marks], _Made]


class Read(msgspec.Struct, frozen=True):
    """How rows of a captured table are read: `key` names the captured columns of `table`'s key, for deletions."""

    table: Table
    key: tuple[str, ...]
    reader: _Reader
    door: str | None = None


READ: Mapping[str, Read] = {
    "orders.orders": Read(ORDERS, ("order_id",), _orders),
    "orders.order_history": Read(HISTORY, ("order_id", "version"), _history),
    "orders.commands": Read(OUTCOMES, ("command_id",), _outcomes),
    "orders.quotes": Read(QUOTES, ("quote_id",), _quotes),
    "orders.models": Read(MODELS, ("sha256",), _models),
    "partner_api.clients": Read(PARTNERS, ("client_id",), _partners),
    "partner_api.requests": Read(REQUESTS, ("order_id",), _requests("partner_api")),
    "partner_api.quotes": Read(QUOTE_REQUESTS, ("quote_id",), _quote_requests),
    "partner_api.commands": Read(COMMANDS, ("command_id",), _commands("partner_api", "client_id"), "partner_api"),
    "shop.requests": Read(REQUESTS, ("order_id",), _requests("shop")),
    "shop.quotes": Read(QUOTE_REQUESTS, ("quote_id",), _quote_requests),
    "shop.commands": Read(COMMANDS, ("command_id",), _commands("shop", "client_id"), "shop"),
    "mes.operators": Read(OPERATORS, ("operator_id",), _operators),
    "mes.claims": Read(CLAIMS, ("claim_id",), _claims),
    "mes.steps": Read(COMMANDS, ("command_id",), _commands("mes", "operator_id"), "mes"),
    "crm.requests": Read(REQUESTS, ("order_id",), _requests("crm")),
    "crm.quotes": Read(QUOTE_REQUESTS, ("quote_id",), _quote_requests),
    "crm.staff": Read(STAFF, ("staff_id",), _staff),
    "crm.commands": Read(COMMANDS, ("command_id",), _commands("crm", "staff_id"), "crm"),
    "crm.customers": Read(CUSTOMERS, ("customer_id",), _customers),
    "crm.layouts": Read(LAYOUTS, ("layout_id",), _layouts),
    "crm.layout_waits": Read(WAITS, ("order_id", "since"), _waits),
    "crm.tasks": Read(TASKS, ("task_id",), _tasks),
}
"""By captured table, `database.table`."""


class Changes(msgspec.Struct, frozen=True):
    """What one captured record comes to, whole rows or a deletion; nothing of a truncation. `copied`: it comes from a
    copy of the whole table."""

    rows: Sequence[tuple[Table, Row]] = ()
    gone: Gone | None = None
    copied: bool = False


def changes(captured: str, record: bytes, calendar: Calendar, now: datetime) -> Changes:
    """What a record of change capture comes to. Raises ValueError for what is no change, or lacks what cannot be
    missing. Columns that are not known are passed over."""
    try:
        return _changes(READ[captured], _envelope.decode(record), calendar, now)
    except KeyError as error:
        raise ValueError(f"the row has no {error.args[0]}") from None
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(str(error)) from None


def _changes(read: Read, envelope: Envelope, calendar: Calendar, now: datetime) -> Changes:
    source = envelope.source
    origin = source.name or source.db
    if envelope.op == "t":
        # No table is truncated in the course of business; reports keep what was.
        return Changes()
    if envelope.op == "d":
        before = envelope.before or {}
        key = tuple(before.get(name) for name in read.key)
        if None in key:
            raise ValueError(f"a deletion without {' and '.join(read.key)}")
        key = key if read.door is None else (read.door, *key)
        return Changes(gone=Gone(read.table, key, origin, now))
    after = envelope.after
    if after is None:
        raise ValueError(f"op {envelope.op!r} without the row after it")
    if after.get("body") == UNCHANGED:
        return Changes()  # a large body that this update has not touched, and neither has it the version
    marks = Marks(origin, source.lsn or 0, datetime.fromtimestamp(source.ts_ms / 1000, UTC), now)
    return Changes(rows=read.reader(after, calendar, marks), copied=envelope.op == "r")
