"""HTTP of Orders, for other services: one order and its history."""

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts import topics
from lostwax.contracts.announcements import Announcement, Granted, digest_of
from lostwax.contracts.ids import bucket_of
from lostwax.contracts.orders import Order, OrderChanged
from lostwax.contracts.quotes import PriceQuote, QuoteChanged
from lostwax.kit import outbox
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.problems import Problem
from lostwax.kit.service_calls import CONSOLE, SERVICE_AUTH, calling_service, for_services
from lostwax.kit.shards import ShardMap
from lostwax.orders import quotes_store, store
from lostwax.orders.callers import CHANNELS, READERS
from lostwax.orders.clients import OrderCache
from lostwax.orders.expectations import Expectations


class History(msgspec.Struct, frozen=True):
    """Versions of an order, oldest first, without gaps above the version asked after."""

    versions: list[Order]


def announcement_operation(expectations: Expectations, verifier: ServiceVerifier) -> Operation:
    """The small command by which channels announce order requests."""

    async def announce_requests(request: Request, body: Announcement) -> Response:
        channel = calling_service(request)
        if body.count != len(body.order_ids) or body.digest != digest_of(body.order_ids):
            raise Problem(
                422,
                "digest-differs",
                "Count or digest do not fit the ids",
                "The digest is the sha-256 over the ids' sixteen bytes each, in ascending order.",
            )
        return answer(Granted(await expectations.announce(channel, body.order_ids)), 202)

    operation = Operation(
        "POST",
        "/v1/announcements",
        announce_requests,
        "Announce order requests that are on their way, and be told how fast to publish",
        {202: Granted},
        body=Announcement,
        auth=SERVICE_AUTH,
        callers=CHANNELS,
    )
    return for_services([operation], verifier)[0]


def operations(shards: ShardMap, cache: OrderCache, verifier: ServiceVerifier) -> list[Operation]:
    def wanted(request: Request) -> UUID:
        return path_uuid(request, "order_id", "order")

    async def get_order(request: Request) -> Response:
        order_id = wanted(request)
        if (cached := await cache.order(order_id)) is not None:
            return answer(msgspec.Raw(cached))
        async with shards.of(bucket_of(order_id)).pool.acquire() as connection:
            order = await store.order(connection, order_id)
        if order is None:
            raise Problem(404, "not-found", "No such order", "Orders has not received it (yet).")
        await cache.keep(order)
        return answer(order)

    async def get_history(request: Request) -> Response:
        order_id = wanted(request)
        after = query(request, "after", int, 0)
        async with shards.of(bucket_of(order_id)).pool.acquire() as connection:
            versions = await store.history(connection, order_id, max(0, min(after, 2**31 - 1)), 100)
        if not versions and after == 0:
            raise Problem(404, "not-found", "No such order", "Orders has not received it (yet).")
        return answer(History(versions))

    async def republish_order(request: Request) -> Response:
        order_id = wanted(request)
        async with shards.of(bucket_of(order_id)).pool.acquire() as connection, connection.transaction():
            entries = await store.lock_orders(connection, [order_id])
            if order_id not in entries:
                raise Problem(404, "not-found", "No such order", "Orders has not received it (yet).")
            order = entries[order_id].order
            await outbox.add(connection, [outbox.message(topics.ORDER_CHANGES, order_id, OrderChanged(order))])
        return answer(order, 202)

    async def republish_quote(request: Request) -> Response:
        quote_id = path_uuid(request, "quote_id", "quote")
        async with shards.of(bucket_of(quote_id)).pool.acquire() as connection, connection.transaction():
            entries = await quotes_store.lock(connection, [quote_id])
            if quote_id not in entries:
                raise Problem(404, "not-found", "No such quote", "Orders has not received it (yet).")
            quote = entries[quote_id].quote
            await outbox.add(connection, [outbox.message(topics.QUOTE_CHANGES, quote_id, QuoteChanged(quote))])
        return answer(quote, 202)

    operations = [
        Operation(
            "GET",
            "/v1/orders/{order_id}",
            get_order,
            "One order as it is now",
            {200: Order},
            {404: "not received"},
            auth=SERVICE_AUTH,
            callers=READERS,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/republish",
            republish_order,
            "Tell everybody of this order's current version once more",
            {202: Order},
            {404: "not received"},
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
        Operation(
            "POST",
            "/v1/quotes/{quote_id}/republish",
            republish_quote,
            "Tell everybody of this quote's current version once more",
            {202: PriceQuote},
            {404: "not received"},
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
        Operation(
            "GET",
            "/v1/orders/{order_id}/history",
            get_history,
            "Versions of an order, oldest first, at most 100",
            {200: History},
            {400: "a parameter is wrong", 404: "not received"},
            parameters=(Parameter("after", "query", {"type": "integer", "default": 0}, "versions above this one"),),
            auth=SERVICE_AUTH,
            callers=READERS,
        ),
    ]
    return for_services(operations, verifier)
