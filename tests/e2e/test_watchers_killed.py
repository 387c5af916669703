"""Who only looks on is killed under flow; nothing is missing afterwards.

Runs after the orders of test_shipping, by its name: OpenSearch, which they went without, is started here and takes what
was logged until then.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from tests.builders import a_partner, an_approved_order, submit, wait_for

from lostwax.audit.run import Report, audit
from lostwax.audit.sources import Databases
from lostwax.contracts.topics import TELEMETRY_LOGS
from lostwax.kit import otlp
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.local.stack import Stack
from lostwax.telemetry import indices

RATE, LINES = 20, 50


@asynccontextmanager
async def flow(stack: Stack) -> AsyncIterator[list[str]]:
    """Orders, and lines of a log with the id of their order, while this is entered; gives the orders' ids so far."""
    publisher = Publisher(bootstrap(stack), client_id="test", timeout_s=20)
    ids: list[str] = []

    async def place() -> None:
        async with await a_partner(stack) as partner:
            ids.append(await an_approved_order(partner))
            model = (await partner.get(f"/v1/orders/{ids[0]}")).json()["specification"]["model"]["sha256"]
            while True:
                began = time.monotonic()
                ids.append(await submit(partner, model, approve_up_to="1000000"))
                now_ns = time.time_ns()
                said = [otlp.Log(now_ns + n, logging.INFO, f"of {ids[-1]} {n}", {}, None) for n in range(LINES)]
                value = otlp.encode_logs(otlp.resource("test", "test-0"), said)
                await publisher.publish([OutgoingRecord(TELEMETRY_LOGS.name, "test", value, {})])
                await asyncio.sleep(max(0.0, 1 / RATE - (time.monotonic() - began)))

    placing = asyncio.create_task(place())
    try:
        await wait_for(lambda: placing.done() or len(ids) >= RATE, 40)
        yield ids
    finally:
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)


def bootstrap(stack: Stack) -> str:
    return stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


async def audited(stack: Stack, databases: Databases) -> Report:
    return await audit(databases, bootstrap(stack), [], now=utc_now, settle_s=30, reports_s=60)


async def test_killed_under_flow_they_miss_nothing(rough_stack: Stack, databases: Databases) -> None:
    await asyncio.to_thread(rough_stack.start_one, "opensearch", limit_s=120)
    pids = {name: rough_stack.pid(name) for name in ("reporting", "telemetry")}
    async with flow(rough_stack) as ids:
        for _ in range(2):
            for name in pids:
                told = len(ids)
                await asyncio.to_thread(rough_stack.kill, name)
                await asyncio.to_thread(rough_stack.wait_ready, name, 30)
                await wait_for(lambda told=told: len(ids) > told + RATE, 30)
    assert all(rough_stack.pid(name) != pid for name, pid in pids.items()), "a killed service still runs"
    report = await audited(rough_stack, databases)
    assert report.findings == []
    assert report.reported == report.orders > len(ids)

    # The first order was placed before there were lines.
    wanted = LINES * (len(ids) - 1)
    asked = {"query": {"term": {"service": "test"}}, "track_total_hits": True, "size": 0}
    async with httpx.AsyncClient(base_url=rough_stack.url("opensearch"), timeout=30) as search:

        async def stored() -> int:
            await search.post(f"/{indices.LOGS.name}/_refresh")
            answer = (await search.post(f"/{indices.LOGS.name}/_search", json=asked)).raise_for_status().json()
            return int(answer["hits"]["total"]["value"])

        async def all_stored() -> bool:
            return await stored() >= wanted

        await wait_for(all_stored, 90)
        await asyncio.sleep(1)
        assert await stored() == wanted, "nothing twice"
    await asyncio.to_thread(rough_stack.stop, "opensearch")


async def test_reports_built_anew_are_whole_even_if_that_was_killed_halfway(
    rough_stack: Stack, databases: Databases
) -> None:
    async with await a_partner(rough_stack) as partner:
        await an_approved_order(partner)
    headers = {"Authorization": f"Bearer {rough_stack.console_token('reporting')}"}
    url = f"{rough_stack.url('reporting')}/v1/rebuild"
    async with httpx.AsyncClient(headers=headers, timeout=20) as asking:

        async def state() -> str:
            return str((await asking.get(url)).raise_for_status().json()["state"])

        async def building() -> bool:
            return await state() == "building"

        (await asking.post(url)).raise_for_status()
        await wait_for(building, 40)
        await asyncio.to_thread(rough_stack.kill, "reporting")
    await asyncio.to_thread(rough_stack.wait_ready, "reporting", 30)
    killed = await audited(rough_stack, databases)
    assert killed.findings == []
    assert killed.reported == killed.orders > 0

    command = [sys.executable, "-m", "lostwax", "rebuild", "reporting", "--stack", rough_stack.folder.name]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "built anew" in done.stdout) == (0, True), done.stderr
    built = await audited(rough_stack, databases)
    assert built.findings == []
    assert built.reported == killed.reported
