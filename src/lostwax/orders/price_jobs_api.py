"""HTTP of Orders, for other services: where a price stands."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.ids import bucket_of
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, answer, path_uuid
from lostwax.kit.problems import Problem
from lostwax.kit.service_calls import SERVICE_AUTH, for_services
from lostwax.kit.shards import ShardMap
from lostwax.orders import price_jobs
from lostwax.orders.callers import READERS
from lostwax.orders.price_jobs import Lane, SubjectKind, Terms


class PriceJobView(msgspec.Struct, frozen=True):
    """A price that is due. `state`: waiting or published. `place` 0: being priced; 1: next; it may grow while others,
    who have less under way, come. `attempts`: how often it was published. `expected_at`: by what its lane took lately
    and what goes before it; null while nobody knows."""

    order_id: UUID
    lane: str
    state: str
    place: int
    attempts: int
    enqueued_at: datetime
    expected_at: datetime | None = None


def operations(shards: ShardMap, terms: Mapping[Lane, Terms], verifier: ServiceVerifier) -> list[Operation]:
    async def get_price_job(request: Request) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        async with shards.of(bucket_of(order_id)).pool.acquire() as connection:
            found = await price_jobs.place(connection, SubjectKind.ORDER, order_id, terms)
        if found is None:
            raise Problem(404, "no-price-due", "No price is due", "It is there, or its model is still being brought.")
        return answer(
            PriceJobView(
                order_id=order_id,
                lane=found.lane.value,
                state=found.state,
                place=found.place,
                attempts=found.attempts,
                enqueued_at=found.enqueued_at,
                expected_at=found.expected_at,
            )
        )

    operation = Operation(
        "GET",
        "/v1/orders/{order_id}/price-job",
        get_price_job,
        "The place of an order's price in the queue, and when it is expected",
        {200: PriceJobView},
        {404: "no price is due"},
        auth=SERVICE_AUTH,
        callers=READERS,
    )
    return for_services([operation], verifier)
