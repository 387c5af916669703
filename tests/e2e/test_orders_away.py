"""With Orders away, 50 orders a second are answered 202; afterwards all that was announced has come, and the counts of
the client, the channel and Orders are equal. LOSTWAX_AWAY_S=60 keeps Orders away for the whole minute."""

import asyncio
import os
import time
from uuid import UUID

import asyncpg
from tests.builders import a_partner, an_uploaded_model, order_at, submit, wait_for

from lostwax.audit.journal import Acknowledged, Journal, read_journal
from lostwax.audit.run import audit
from lostwax.cli.audit import databases_of
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack

AWAY_S = float(os.environ.get("LOSTWAX_AWAY_S", "8"))
PER_S = 50
ANSWERED_WITHIN_S = 20


async def test_intake_goes_on_and_nothing_is_lost(stack: Stack) -> None:
    partner = await a_partner(stack)
    path = stack.folder / f"away-{partner.client_id}.jsonl"
    journal = Journal(path)
    channel = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    shards = [await asyncpg.connect(dsn) for dsn in stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")]
    took: list[float] = []
    try:
        model = await an_uploaded_model(partner)
        await order_at(partner, await submit(partner, model), "PRICE_CALCULATED")

        async def one(number: int) -> None:
            key, started = f"away-{number}", time.monotonic()
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                order_id = await submit(partner, model, key=key)
            took.append(time.monotonic() - started)
            journal.write(Acknowledged(UUID(order_id), partner.client_id, key))

        await asyncio.to_thread(stack.stop, "orders")
        try:
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(int(AWAY_S * PER_S)):
                    await asyncio.sleep(max(0.0, began + number / PER_S - time.monotonic()))
                    group.create_task(one(number))
            stored = await channel.fetchval("SELECT count(*) FROM requests WHERE client_id = $1", partner.client_id)
        finally:
            await asyncio.to_thread(stack.start_one, "orders")
        told = {entry.order_id for entry in read_journal(path)}
        assert len(told) == int(AWAY_S * PER_S)
        assert stored == len(told) + 1

        async def arrived() -> bool:
            there = [
                await s.fetchval("SELECT count(*) FROM orders WHERE order_id = ANY($1)", list(told)) for s in shards
            ]
            return sum(there) == len(told)

        await wait_for(arrived, 60 + AWAY_S)

        async def nothing_expected() -> bool:
            left = [await s.fetchval("SELECT count(*) FROM announced") for s in shards]
            counts = await channel.fetchrow(
                "SELECT (SELECT announced FROM announcing), (SELECT count(*) FROM requests)"
            )
            return sum(left) == 0 and counts[0] == counts[1]

        await wait_for(nothing_expected, 60)
        heard = "SELECT count(*) FROM requests WHERE client_id = $1 AND version >= 2"

        async def all_priced() -> bool:
            return bool(await channel.fetchval(heard, partner.client_id) == len(told) + 1)

        await wait_for(all_priced, 120 + 2 * AWAY_S)
        bootstrap = stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]
        report = await audit(databases_of(stack), bootstrap, read_journal(path), now=utc_now)
        assert report.acknowledged == len(told)
        assert [f for f in report.findings if f.order_id in told] == []
        took.sort()
        print(f"{len(took)} answers: median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s")
    finally:
        journal.close()
        for connection in (channel, *shards):
            await connection.close()
        await partner.aclose()
