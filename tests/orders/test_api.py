"""What Orders tells other services by HTTP: an order, its history without gaps, a link to a model."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.builders import (
    Partner,
    a_digest,
    a_model_file,
    a_partner,
    an_approved_order,
    an_uploaded_model,
    service_token,
)

from lostwax.contracts.ids import new_id
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack) as client:
        yield client


@pytest.fixture
async def mes(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """The MES, as it calls Orders."""
    headers = {"Authorization": f"Bearer {service_token(stack, 'mes', 'orders')}"}
    async with httpx.AsyncClient(base_url=stack.url("orders"), headers=headers) as client:
        yield client


def problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"/problems/{code}"


async def test_history_has_every_version_from_any_point_on(partner: Partner, mes: httpx.AsyncClient) -> None:
    order_id = await an_approved_order(partner)
    order = (await mes.get(f"/v1/orders/{order_id}")).raise_for_status().json()
    path = f"/v1/orders/{order_id}/history"

    async def versions(**query: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await mes.get(path, params=query)).raise_for_status().json()["versions"]
        return found

    whole = await versions()
    assert [v["version"] for v in whole] == [1, 2, 3]
    assert [v["status"] for v in whole] == ["SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED"]
    assert whole[-1] == order
    for after in range(5):
        assert await versions(after=after) == whole[after:]
    assert await versions(after=-5) == whole
    assert await versions(after=10**15) == []


async def test_a_link_gives_the_stored_model(partner: Partner, mes: httpx.AsyncClient) -> None:
    content = a_model_file()
    digest = await an_uploaded_model(partner, content)
    await an_approved_order(partner, digest)
    link = (await mes.get(f"/v1/models/{digest}/link", params={"name": "Ring für Åsa.stl"})).raise_for_status().json()
    async with httpx.AsyncClient() as anybody:
        file = await anybody.get(link["url"])
        assert hashlib.sha256(file.content).hexdigest() == digest
        assert "Ring%20f%C3%BCr%20%C3%85sa.stl" in file.headers["content-disposition"]
        elsewhere = link["url"].replace(digest, a_digest())
        assert (await anybody.get(elsewhere)).status_code == 403


async def test_what_is_unknown_or_wrong_is_a_problem(mes: httpx.AsyncClient) -> None:
    for path in ("/v1/orders/{}", "/v1/orders/{}/history"):
        for order_id in (str(new_id()), "no-uuid", "%00"):
            problem(await mes.get(path.format(order_id)), 404, "not-found")
    problem(await mes.get(f"/v1/orders/{new_id()}/history?after=many"), 400, "bad-parameter")
    for digest in (a_digest(), "A" * 64, "short", "%00"):
        problem(await mes.get(f"/v1/models/{digest}/link"), 404, "not-found")


async def test_only_services_are_answered(stack: Stack, partner: Partner) -> None:
    async with httpx.AsyncClient(base_url=stack.url("orders")) as http:
        for token in ("x", partner.key, service_token(stack, "mes", "partner_api")):
            headers = {"Authorization": f"Bearer {token}"}
            for path in (
                f"/v1/orders/{new_id()}",
                f"/v1/orders/{new_id()}/history",
                f"/v1/models/{a_digest()}/link",
                "/v1/publishing/orders.changes",
            ):
                problem(await http.get(path, headers=headers), 401, "unauthorized")
