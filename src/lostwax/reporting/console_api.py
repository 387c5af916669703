"""HTTP of Reporting for the console: what the audit compares, and the warehouse built anew."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, Parameter, answer, query
from lostwax.kit.problems import Problem, try_later
from lostwax.kit.rebuilding import RebuildAsked, RebuildView
from lostwax.kit.service_calls import CONSOLE, SERVICE_AUTH, for_services
from lostwax.reporting.rebuilding import NothingCaptured, Rebuilding
from lostwax.reporting.warehouse import Limits, Value, Warehouse, WarehouseAway

MOST_ORDERS = 10_000
_SECONDS = 20.0
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)

_ORDERS = """
SELECT order_id, version, status, status_since, submitted_at, approved_at, amount_minor, currency FROM orders
WHERE deleted = 0 AND order_id > $after AND order_id <= $until ORDER BY order_id LIMIT $most
"""
_STEPS = """
SELECT order_id, count(*) AS steps FROM history
WHERE deleted = 0 AND order_id > $after AND order_id <= $until
  AND order_id IN (SELECT order_id FROM orders WHERE deleted = 0 AND order_id > $after AND order_id <= $until)
GROUP BY order_id
"""
# History outlives an order that was deleted, and such ones would come on top of the page's.


class OrderKnown(msgspec.Struct, frozen=True):
    """An order as reports have it. `amount_minor`: hundredths of `currency`; `steps`: versions in its history."""

    order_id: str
    version: int
    status: str
    status_since: datetime
    submitted_at: datetime
    approved_at: datetime | None
    amount_minor: int | None
    currency: str | None
    steps: int


class OrdersKnown(msgspec.Struct, frozen=True):
    """In the order of id. `next`: `after` of the next page; null: that was all."""

    orders: list[OrderKnown]
    next: UUID | None


def operations(warehouse: Warehouse, rebuilding: Rebuilding, verifier: ServiceVerifier) -> list[Operation]:
    async def get_orders_known(request: Request) -> Response:
        after: UUID = query(request, "after", UUID, _FIRST)
        until: UUID = query(request, "until", UUID, _LAST)
        most: int = query(request, "limit", Annotated[int, Meta(ge=1, le=MOST_ORDERS)], MOST_ORDERS)
        limits = Limits(most, _SECONDS)
        asked: dict[str, Value] = {"after": str(after), "until": str(until), "most": most}
        try:
            found = await warehouse.query(_ORDERS, asked, limits)
            if not found.rows:
                return answer(OrdersKnown([], None))
            asked["until"] = found.rows[-1][0]
            counted = await warehouse.query(_STEPS, asked, limits)
        except WarehouseAway as error:
            raise try_later(f"The warehouse does not answer: {error}", after_s=5, code="unavailable") from None
        steps = {str(order_id): count for order_id, count in counted.rows}
        orders = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
        known = [OrderKnown(**order, steps=steps.get(order["order_id"], 0)) for order in orders]
        return answer(OrdersKnown(known, UUID(known[-1].order_id) if len(known) == most else None))

    async def post_rebuild(_: Request) -> Response:
        try:
            return answer(RebuildAsked(rebuilding.ask()), 202)
        except NothingCaptured:
            detail = "Nothing is captured here (LOSTWAX_CAPTURE_URLS is not set), so that nothing would come back."
            raise Problem(409, "nothing-captured", "There is nothing to build from", detail) from None

    async def get_rebuild(_: Request) -> Response:
        return answer(rebuilding.view())

    an_id = {"type": "string", "format": "uuid"}
    asked_by = (
        Parameter("after", "query", an_id, "only orders after this one"),
        Parameter("until", "query", an_id, "only orders up to this one"),
        Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_ORDERS}, "orders a page"),
    )
    return for_services(
        [
            Operation("GET", "/v1/orders-known", get_orders_known, "Every order as reports have it, for the audit",
                      {200: OrdersKnown}, auth=SERVICE_AUTH, callers=(CONSOLE,), parameters=asked_by,
                      problems={400: "a parameter is wrong"}),
            Operation("POST", "/v1/rebuild", post_rebuild, "Have the warehouse forgotten, and every table copied anew",
                      {202: RebuildAsked}, auth=SERVICE_AUTH, callers=(CONSOLE,),
                      problems={409: "nothing is captured"}),
            Operation("GET", "/v1/rebuild", get_rebuild, "How far that is, and of when what reports tell is",
                      {200: RebuildView}, auth=SERVICE_AUTH, callers=(CONSOLE,)),
        ],
        verifier,
    )  # fmt: skip
