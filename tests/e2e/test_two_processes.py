"""Two processes of a service on one database and one Redis: each shows what the other did, and neither rebuilds the
other's lists; and rebuilding on demand."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.builders import (
    Operator,
    Partner,
    an_approved_order,
    an_uploaded_model,
    submit,
    wait_for,
)
from tests.own_valkey import a_free_port

from lostwax.local.stack import Stack


@contextmanager
def second_process(stack: Stack, service: str, **otherwise: str) -> Iterator[str]:
    """Another process of a running service, on a port of its own, some settings `otherwise`; gives its URL."""
    port = a_free_port()
    given = stack.env(service) | {"LOSTWAX_HTTP_PORT": str(port), "LOSTWAX_INSTANCE": "second"} | otherwise
    with (stack.folder / "logs" / f"{service}-second.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lostwax", "run", service], env=os.environ | given, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


async def ready(url: str) -> None:
    async with httpx.AsyncClient() as http:

        async def answers() -> bool:
            try:
                return (await http.get(f"{url}/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await wait_for(answers, 30)


async def built_at(stack: Stack, service: str, url: str) -> Any:
    headers = {"Authorization": f"Bearer {stack.console_token(service)}"}
    async with httpx.AsyncClient(headers=headers) as http:
        return (await http.get(f"{url}/v1/rebuild")).raise_for_status().json()["built_at"]


async def test_an_order_claimed_at_one_mes_is_not_free_at_the_other(
    stack: Stack, ada: Operator, partner: Partner
) -> None:
    model = await an_uploaded_model(partner)
    with second_process(stack, "mes") as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, headers=ada.headers, timeout=20) as other:

            async def queue(mes: httpx.AsyncClient) -> set[str] | None:
                page = (await mes.get("/v1/lists/queue", params={"limit": 200})).raise_for_status().json()
                return {card["order_id"] for card in page["cards"]} if page["source"] == "redis" else None

            for _ in range(3):
                order_id = await an_approved_order(partner, model)

                async def listed(order_id: str = order_id) -> bool:
                    return order_id in (await queue(ada) or ()) and order_id in (await queue(other) or ())

                await wait_for(listed)
                (await ada.post(f"/v1/orders/{order_id}/claim")).raise_for_status()
                assert order_id not in (await queue(other) or ())
                assert order_id not in (await queue(ada) or ())
            since = await built_at(stack, "mes", url)
            await asyncio.sleep(1.5)
            assert await built_at(stack, "mes", url) == await built_at(stack, "mes", stack.url("mes")) == since
            for mes in (ada, other):
                assert await queue(mes) is not None


async def test_an_order_accepted_at_one_partner_api_is_listed_at_the_other(stack: Stack, partner: Partner) -> None:
    model = await an_uploaded_model(partner)
    with second_process(stack, "partner_api") as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, headers=partner.headers, timeout=20) as other:

            async def from_redis() -> bool:
                sources = [(await p.get("/v1/orders")).raise_for_status().json()["source"] for p in (partner, other)]
                return sources == ["redis", "redis"]

            await wait_for(from_redis)
            for _ in range(20):
                order_id = await submit(partner, model)
                # What it looks like is in Redis once somebody has asked for it, or Orders has told of it.
                for source in (("database", "redis"), ("redis",)):
                    page = (await other.get("/v1/orders", params={"limit": 1})).raise_for_status().json()
                    assert page["orders"][0]["order_id"] == order_id
                    assert page["source"] in source
                assert (await other.get(f"/v1/orders/{order_id}")).status_code == 200
            since = await built_at(stack, "partner_api", url)
            await asyncio.sleep(1.5)
            assert await built_at(stack, "partner_api", stack.url("partner_api")) == since


@pytest.mark.parametrize(
    ("name", "service"),
    [("mes", "mes"), ("crm", "crm"), ("partner-api", "partner_api"), ("shop", "shop"), ("orders", "orders")],
)
async def test_a_rebuild_from_the_command_line_ends_when_it_is_in_force(stack: Stack, name: str, service: str) -> None:
    before = await built_at(stack, service, stack.url(service))
    command = [sys.executable, "-m", "lostwax", "rebuild", name, "--stack", stack.folder.name]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "built anew" in done.stdout
    assert await built_at(stack, service, stack.url(service)) > (before or "")
    async with httpx.AsyncClient(base_url=stack.url(service)) as anybody:
        assert (await anybody.post("/v1/rebuild")).status_code == 401
        assert (await anybody.get("/v1/rebuild")).status_code == 401


def test_a_service_without_lists_is_named_with_those_that_have_some(stack: Stack) -> None:
    command = [sys.executable, "-m", "lostwax", "rebuild", "pricing", "--stack", stack.folder.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "mes, crm, partner-api, shop, orders" in done.stderr
