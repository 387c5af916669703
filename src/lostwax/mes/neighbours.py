"""Other services' HTTP, as the MES calls it: Orders for models."""

from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import not_found


async def model_link(orders: Neighbour, sha256: str, name: str) -> str:
    """Where to get a stored model. Raises the 404 or 503 Problem."""
    response = await orders.call(
        "GET",
        f"/v1/models/{sha256}/link",
        expected=(200, 404),
        missing="the model cannot be fetched now.",
        params={"name": name},
    )
    if response.status_code == 404:
        raise not_found("model")
    return str(response.json()["url"])
