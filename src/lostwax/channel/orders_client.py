"""Orders' HTTP API, as the partner API calls it while a client waits."""

from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem


class PriceJob(msgspec.Struct, frozen=True):
    """A price that is due. `state`: waiting or published. `place` 0: being priced; 1: next; it may grow while others,
    who have less under way, come. `attempts`: how often it was sent to be priced. `expected_at`: judged by what such
    prices took lately and what goes before; null while nobody knows."""

    order_id: UUID
    lane: str
    state: str
    place: int
    attempts: int
    enqueued_at: datetime
    expected_at: datetime | None = None


_price_job = msgspec.json.Decoder(PriceJob)


async def model_link(orders: Neighbour, sha256: str, name: str) -> str:
    """A link to a stored model for fifteen minutes, saved under `name`. Raises Problem: 409 when Orders has no such
    model, 503 when it does not answer."""
    response = await orders.call(
        "GET",
        f"/v1/models/{sha256}/link",
        expected=(200, 404),
        missing="the model cannot be fetched now; ask again.",
        params={"name": name},
    )
    if response.status_code == 404:
        raise Problem(409, "model-not-stored", "This model is not in the model store any more", "Register it again.")
    return str(response.json()["url"])


async def price_job(orders: Neighbour, order_id: UUID) -> PriceJob:
    """Where an order's price stands. Raises Problem: 404 when none is due, 503 when Orders does not answer."""
    response = await orders.call(
        "GET",
        f"/v1/orders/{order_id}/price-job",
        expected=(200, 404),
        missing="your order is safe and will be priced.",
    )
    if response.status_code == 404:
        raise Problem(404, "no-price-due", "No price is due", "The order has it, or its model is just being taken up.")
    return _price_job.decode(response.content)
