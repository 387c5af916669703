"""Other services' HTTP, as the MES calls it: Orders for models, the CRM for sign-in."""

from typing import Any

from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem, not_found, unauthorized


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


async def sign_in(crm: Neighbour, badge: str, address: str) -> str:
    """A token for who holds this badge, which came from `address`. Raises the 401, 429 or 503 Problem."""
    if not 0 < len(badge) <= 200:
        raise _unknown()
    response = await crm.call(
        "POST",
        "/v1/sign-in",
        expected=(200, 401, 429),
        missing="nobody can sign in now. Who is signed in goes on working.",
        json={"badge": badge},
        headers={"X-Forwarded-For": address},
    )
    if response.status_code == 401:
        raise _unknown()
    if response.status_code == 429:
        problem: dict[str, Any] = response.json()
        headers = {"Retry-After": response.headers.get("Retry-After", "60")}
        raise Problem(429, "too-many-failures", problem["title"], problem.get("detail"), headers=headers)
    return str(response.json()["token"])


def _unknown() -> Problem:
    return unauthorized("This badge is not known, or was withdrawn.")
