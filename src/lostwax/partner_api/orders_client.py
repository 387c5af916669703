"""What the partner API asks Orders while a client waits."""

import logging
from datetime import datetime
from uuid import UUID

import httpx
import msgspec

from lostwax.kit.auth import ServiceSigner
from lostwax.kit.problems import Problem, try_later

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


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


class _Link(msgspec.Struct, frozen=True):
    url: str


_link = msgspec.json.Decoder(_Link)
_price_job = msgspec.json.Decoder(PriceJob)


class OrdersClient:
    """Calls Orders at `url` under this service's name."""

    def __init__(self, url: str, signer: ServiceSigner) -> None:
        self._signer = signer
        self._http = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def model_link(self, sha256: str, name: str) -> str:
        """A link to a stored model for fifteen minutes, saved under `name`. Raises Problem: 409 when Orders has no such
        model, 503 when it does not answer."""
        try:
            response = await self._http.get(
                f"/v1/models/{sha256}/link",
                params={"name": name},
                headers={"Authorization": f"Bearer {self._signer.token('orders')}"},
            )
            if response.status_code == 404:
                raise Problem(
                    409, "model-not-stored", "This model is not in the model store any more", "Register it again."
                )
            response.raise_for_status()
            return _link.decode(response.content).url
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            log.warning("orders away", extra={"error": repr(error)})
            raise try_later("The model store does not answer just now; ask again.", code="orders-away") from None

    async def price_job(self, order_id: UUID) -> PriceJob:
        """Where an order's price stands. Raises Problem: 404 when none is due, 503 when Orders does not answer."""
        try:
            response = await self._http.get(
                f"/v1/orders/{order_id}/price-job",
                headers={"Authorization": f"Bearer {self._signer.token('orders')}"},
            )
            if response.status_code == 404:
                raise Problem(
                    404, "no-price-due", "No price is due", "The order has it, or its model is just being taken up."
                )
            response.raise_for_status()
            return _price_job.decode(response.content)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            log.warning("orders away", extra={"error": repr(error)})
            raise try_later(
                "The order book does not answer just now. Your order is safe and will be priced.",
                after_s=5,
                code="orders-away",
            ) from None
