"""What the client of a benchmark wrote down of its orders, and when all of them are through."""

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from lostwax.audit.journal import Acknowledged
from lostwax.audit.sources import Databases
from lostwax.chaos.eyes import count

DRAINED_WITHIN_S = 300


class Answer(msgspec.Struct, frozen=True):
    """One answer as the client wrote it down: when its request was due (seconds since 1970), how long it took then."""

    at: float
    seconds: float
    status: int
    submission: str
    body: str


class _Accepted(msgspec.Struct, frozen=True):
    order_id: UUID


async def drained(databases: Databases, accepted: int) -> float:
    """Wait until each accepted order is priced and known to the operators' database, and nothing is left to publish.
    Returns when that was, in seconds since 1970."""
    deadline = time.monotonic() + DRAINED_WITHIN_S
    connection = await asyncpg.connect(databases.mes)
    try:
        while True:
            now = await count(databases.shards)
            seen = int(await connection.fetchval("SELECT count(*) FROM orders"))
            if now.known >= accepted and now.unpriced == 0 and seen >= accepted:
                return time.time()
            if time.monotonic() > deadline:
                print(f"NOT DRAINED after {DRAINED_WITHIN_S} s: {now}, {seen} seen by the MES, of {accepted}")
                return time.time()
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


def read(folder: Path) -> list[Answer]:
    """Of `journal.jsonl` in it, as `_load.load` records it."""
    decode = msgspec.json.Decoder(Answer).decode
    return [decode(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]


def acknowledged(answer: Answer, client: UUID) -> Acknowledged:
    """As the audit wants to know it."""
    return Acknowledged(msgspec.json.decode(answer.body, type=_Accepted).order_id, client, answer.submission)


def metric(value: float, unit: str) -> dict[str, Any]:
    """Without a peer."""
    return {"value": value, "unit": unit, "ceiling": None, "ratio": None}
