"""Orders' HTTP API, as the CRM calls it."""

import hashlib
from uuid import UUID

import msgspec

from lostwax.contracts.orders import ModelRef, Order
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem, not_found


class _History(msgspec.Struct, frozen=True):
    versions: list[Order]


_history = msgspec.json.Decoder(_History)


async def history(orders: Neighbour, order_id: UUID, after: int, *, patience_s: float = 5) -> list[Order]:
    """Versions of an order above `after`, oldest first, at most 100; none when Orders does not know it. Raises the 503
    Problem, after `patience_s` without an answer."""
    response = await orders.call(
        "GET",
        f"/v1/orders/{order_id}/history",
        expected=(200, 404),
        missing="the time line cannot be shown now; the order's present state can.",
        params={"after": after},
        timeout=patience_s,
    )
    return _history.decode(response.content).versions if response.status_code == 200 else []


async def keep_model(orders: Neighbour, content: bytes, name: str) -> ModelRef:
    """Put a model into the store. Raises the 413 and 503 Problems."""
    digest = hashlib.sha256(content).hexdigest()
    response = await orders.call(
        "PUT",
        f"/v1/models/{digest}",
        expected=(200, 201, 413),
        missing="the model cannot be stored now. Nothing was changed; send it again.",
        content=content,
        headers={"Content-Type": "application/octet-stream"},
    )
    if response.status_code == 413:
        raise Problem(413, "body-too-large", "The model is too large", response.json().get("detail"))
    return ModelRef(digest, len(content), name)


async def model_link(orders: Neighbour, model: ModelRef) -> str:
    """Where to get a stored model. Raises the 404 or 503 Problem."""
    response = await orders.call(
        "GET",
        f"/v1/models/{model.sha256}/link",
        expected=(200, 404),
        missing="the model cannot be shown now.",
        params={"name": model.name},
    )
    if response.status_code == 404:
        raise not_found("model")
    return str(response.json()["url"])
