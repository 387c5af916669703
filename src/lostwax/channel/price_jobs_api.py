"""Where the price of an order stands, for its owner."""

from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel import handlers, orders_client
from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Scope
from lostwax.channel.handlers import Door
from lostwax.channel.orders_client import PriceJob
from lostwax.kit.http import Operation, answer, path_uuid
from lostwax.kit.neighbours import Neighbour


def operations(door: Door, orders: Neighbour, auth: str) -> list[Operation]:
    async def get_price_job(request: Request) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        await handlers.own_request(door, calling_client(request), order_id)
        return answer(await orders_client.price_job(orders, order_id))

    return [
        Operation(
            "GET",
            "/v1/orders/{order_id}/price-job",
            get_price_job,
            "The place of an order's price in the queue, and when it is expected",
            {200: PriceJob},
            {404: "no such order, or no price is due", 503: "the order book does not answer"},
            auth=auth,
            scope=Scope.ORDERS_READ,
        )
    ]
