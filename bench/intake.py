"""`lostwax bench intake`: orders accepted a second by one worker, durably, 64 in flight, against PostgreSQL's own load
generator doing the same two inserts in a transaction with 64 clients; alternated, medians.

The ceiling: pgbench as it comes (the simple protocol) on the same server and the same tables (its own copy of the
schema), a row of the same size into `requests` and one into `outbox`, a real commit each; its prepared protocol, which
saves the server parsing two kilobytes of literals, is shown beside it. Orders, pricing and the MES do not run; the
relay does (`with_relay`), or is paused for the plain figure, since pgbench has none.
"""

import asyncio
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from _load import load
from _stack import fresh_stack
from lostwax.kit.postgres import migrate
from lostwax.local.places import POSTGRES_SUPERUSER, postgres_bin
from lostwax.local.stack import Stack
from lostwax.partner_api.keys import add_client
from lostwax.partner_api.main import MIGRATIONS

IN_FLIGHT = 64
SHA256 = "5f" * 32
BODY = (
    '{"model":"' + SHA256 + '","alloy":"gold-14k","finish":"polished","quantity":2,"ring_size":54.5,'
    '"engraving":"Toujours, 14.02.2027","deadline":"2031-03-01","reference":"PO-@N@"}'
)


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    seconds, rounds = (4, 3) if quick else (15, 5)
    with fresh_stack("partner_api") as stack:
        return asyncio.run(_run(stack, seconds, rounds))


async def _run(stack: Stack, seconds: int, rounds: int) -> dict[str, Any]:
    dsn = stack.env("partner_api")["LOSTWAX_DATABASE_URL"]
    connection = await asyncpg.connect(dsn)
    client, key = await add_client(connection, "bench", unlimited=True)
    await connection.execute(
        "INSERT INTO models (client_id, sha256, size_bytes, name, state) VALUES ($1, $2, 84000, 'ring.stl', 'stored')",
        client.client_id,
        SHA256,
    )
    port = stack.process("partner_api").port
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: @N@\r\n"
        "Content-Type: application/json\r\nContent-Length: @LENGTH@"
    )

    def intake(tag: str) -> dict[str, Any]:
        return load(host="127.0.0.1", port=port, head=head, body=BODY, seconds=seconds, in_flight=IN_FLIGHT, tag=tag)

    warm = intake("warm")
    assert set(warm["statuses"]) == {"202"}, warm
    ceiling_dsn, script = await _ceiling_database(stack, client.client_id)
    plain, relayed, ceiling, prepared, p50s, p99s = [], [], [], [], [], []
    for number in range(rounds):
        ceiling.append(_pgbench(ceiling_dsn, script, seconds, "simple"))
        prepared.append(_pgbench(ceiling_dsn, script, seconds, "prepared"))
        _pause(stack, paused=True)
        result = intake(f"plain{number}")
        plain.append(_accepted(result))
        p50s.append(result["p50_ms"])
        p99s.append(result["p99_ms"])
        _pause(stack, paused=False)
        await _drained(connection)
        result = intake(f"relay{number}")
        relayed.append(_accepted(result))
        await _drained(connection)
        print(
            f"round {number + 1}: pgbench {ceiling[-1]:,.0f}/s, prepared {prepared[-1]:,.0f}/s,"
            f" intake {plain[-1]:,.0f}/s, with relay {relayed[-1]:,.0f}/s"
        )
    await connection.close()
    top = statistics.median(ceiling)
    accepted = statistics.median(plain)
    with_relay = statistics.median(relayed)
    print(f"\n{'':28}{'orders/s':>10}{'of pgbench':>12}")
    print(f"{'pgbench, the same inserts':28}{top:10,.0f}{1:12.2f}")
    print(f"{'the same, prepared':28}{statistics.median(prepared):10,.0f}{statistics.median(prepared) / top:12.2f}")
    print(f"{'intake, accepted (202)':28}{accepted:10,.0f}{accepted / top:12.2f}")
    print(f"{'intake, relay publishing too':28}{with_relay:10,.0f}{with_relay / top:12.2f}")
    print(f"p50 {statistics.median(p50s):.1f} ms, p99 {statistics.median(p99s):.1f} ms at {IN_FLIGHT} in flight")
    return {
        "accepted": {"value": accepted, "unit": "orders/s", "ceiling": top, "ratio": accepted / top},
        "accepted_with_relay": {"value": with_relay, "unit": "orders/s", "ceiling": top, "ratio": with_relay / top},
        "pgbench_prepared": {
            "value": statistics.median(prepared),
            "unit": "orders/s",
            "ceiling": top,
            "ratio": statistics.median(prepared) / top,
        },
        "p50_ms": {"value": statistics.median(p50s), "unit": "ms", "ceiling": None, "ratio": None},
        "p99_ms": {"value": statistics.median(p99s), "unit": "ms", "ceiling": None, "ratio": None},
    }


def _accepted(result: dict[str, Any]) -> float:
    assert set(result["statuses"]) == {"202"}, result
    return float(result["statuses"]["202"] / result["seconds"])


def _pause(stack: Stack, *, paused: bool) -> None:
    httpx.put(
        f"{stack.url('partner_api')}/v1/publishing/orders.requests",
        json={"paused": paused},
        headers={"Authorization": f"Bearer {stack.console_token('partner_api')}"},
    ).raise_for_status()


async def _drained(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):  # noqa: ASYNC110 - the relay's doing
        await asyncio.sleep(0.1)


async def _ceiling_database(stack: Stack, client_id: UUID) -> tuple[str, Path]:
    """A database with the same tables for pgbench alone, without the relay's trigger, and its script: the two inserts
    that an accepted order is, in the bytes of a real one."""
    server = stack.url("pg-main").replace("//", f"//postgres:{POSTGRES_SUPERUSER.read_text().strip()}@")
    own = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    row = await own.fetchrow("SELECT r.body::text AS body FROM requests r LIMIT 1")
    await own.close()
    assert row is not None
    connection = await asyncpg.connect(f"{server}/postgres")
    await connection.execute("CREATE DATABASE ceiling")
    await connection.close()
    dsn = f"{server}/ceiling"
    await migrate(dsn, MIGRATIONS)
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP TRIGGER outbox_wakes_relay ON outbox")
    await connection.close()
    body = row["body"].replace("'", "''")
    script = stack.folder / "ceiling.sql"
    script.write_text(f"""\\set partition random(0, 7)
BEGIN;
INSERT INTO requests (order_id, client_id, idempotency_key, request_hash, accepted_at, body)
    VALUES (gen_random_uuid(), '{client_id}', gen_random_uuid()::text, '\\x{"ab" * 32}', now(), '{body}');
INSERT INTO outbox (topic, partition, key, type, message_id, traceparent, payload)
    VALUES ('orders.requests', :partition, gen_random_uuid()::text, 'orders.order_requested.v1', gen_random_uuid(),
            '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00', convert_to('{body}', 'UTF8'));
COMMIT;
""")
    return dsn, script


def _pgbench(dsn: str, script: Path, seconds: int, protocol: str) -> float:
    """Transactions a second of pgbench with 64 clients in 2 threads."""
    binaries = postgres_bin()
    assert binaries is not None
    done = subprocess.run(
        [
            binaries / "pgbench", "--no-vacuum", "--client=64", "--jobs=2", f"--time={seconds}",
            f"--protocol={protocol}", f"--file={script}", dsn,
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])
