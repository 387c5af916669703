"""Where the price of an order stands, for its owner."""

from starlette.requests import Request
from starlette.responses import Response

from lostwax.kit.http import Operation, answer, path_uuid
from lostwax.partner_api import handlers
from lostwax.partner_api.callers import AUTH, calling_client
from lostwax.partner_api.domain import Scope
from lostwax.partner_api.handlers import Door
from lostwax.partner_api.orders_client import OrdersClient, PriceJob


def operations(door: Door, orders: OrdersClient) -> list[Operation]:
    async def get_price_job(request: Request) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        await handlers.own_request(door, calling_client(request), order_id)
        return answer(await orders.price_job(order_id))

    return [
        Operation(
            "GET",
            "/v1/orders/{order_id}/price-job",
            get_price_job,
            "The place of an order's price in the queue, and when it is expected",
            {200: PriceJob},
            {404: "no such order, or no price is due", 503: "the order book does not answer"},
            auth=AUTH,
            scope=Scope.ORDERS_READ,
        )
    ]
