"""`lostwax bench crm`: the sellers' desk with 50 sellers, 40 requests a second: the board, searches by code, name,
telephone and reference, pages of customers; with 1,000 orders and with 100,000, to see whether the desk minds.

The orders are rows in the CRM's own database, copies of one real order spread over all statuses, with a customer for
every four; the board in Redis is rebuilt from them.
"""

import asyncio
import statistics
import subprocess
import sys
from typing import Any

import asyncpg
import httpx

from _load import load
from _people import a_partner, get_head, order_body, order_head, upload_model
from _stack import fresh_stack
from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.staff import Role
from lostwax.crm.handlers import add_staff
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack

SELLERS, RATE = 50, 40
_STATUSES = (
    "SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED", "MANUFACTURING_STARTED", "MANUFACTURING_COMPLETED",
    "SHIPPED", "ON_HOLD", "CLOSED", "CLOSED", "CLOSED",
)  # fmt: skip
_CUSTOMERS = """
    WITH made AS (
        INSERT INTO customers (customer_id, kind, name, seller_id, created_at, words)
        SELECT gen_random_uuid(), 'person', 'Olga ' || n || ' Petrova',
               ($3::uuid[])[1 + n % cardinality($3::uuid[])], now(),
               array_to_tsvector(ARRAY['olga', 'petrova', n::text, 'ph' || reverse('7900' || lpad(n::text, 7, '0'))])
        FROM generate_series($1::int, $2::int) n RETURNING customer_id, name)
    INSERT INTO contacts (contact_id, customer_id, name, phone, phone_digits, email, created_at)
    SELECT gen_random_uuid(), customer_id, name, '+7 900 ' || lpad(split_part(name, ' ', 2), 7, '0'),
           '900' || lpad(split_part(name, ' ', 2), 7, '0'), 'olga.' || split_part(name, ' ', 2) || '@example.org', now()
    FROM made
"""
_ORDERS = """
    INSERT INTO orders (order_id, version, status, body, status_since)
    SELECT id, 1, status, jsonb_set(jsonb_set(jsonb_set(body, '{order_id}', to_jsonb(id::text)),
                                              '{status}', to_jsonb(status)), '{reference}', to_jsonb('PO-' || n)),
           now() - n * interval '20 s'
    FROM (SELECT n, gen_random_uuid() AS id, ($3::text[])[1 + n % cardinality($3::text[])] AS status
          FROM generate_series($1::int, $2::int) n) copies, (SELECT body FROM orders ORDER BY order_id LIMIT 1) one
"""
_DESK = """
    INSERT INTO desk (order_id, customer_id, seller_id)
    SELECT o.order_id, c.customer_id, c.seller_id
    FROM (SELECT order_id, row_number() OVER () AS n FROM orders WHERE NOT EXISTS
             (SELECT FROM desk d WHERE d.order_id = orders.order_id)) o
    JOIN (SELECT customer_id, seller_id, row_number() OVER () AS n, count(*) OVER () AS of FROM customers) c
        ON c.n = 1 + o.n % c.of
"""


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    with fresh_stack("partner_api", "orders", "pricing", "crm") as stack:
        return asyncio.run(_run(stack, (1_000, 100_000), seconds=4 if quick else 15, rounds=2 if quick else 3))


async def _run(stack: Stack, sizes: tuple[int, ...], seconds: int, rounds: int) -> dict[str, Any]:
    _, key = await a_partner(stack)
    sellers, tokens = await _sellers(stack)
    await asyncio.to_thread(_one_order, stack, key, upload_model(stack, key))
    async with httpx.AsyncClient(base_url=stack.url("crm"), headers={"Authorization": f"Bearer {tokens[0]}"}) as crm:
        async with asyncio.timeout(60):
            while not (await crm.get("/v1/orders")).json()["orders"]:  # noqa: ASYNC110 - another process tells it
                await asyncio.sleep(0.2)
    metrics: dict[str, Any] = {}
    p99s: dict[str, list[float]] = {}
    there = 0
    print(f"{'orders':>9}  {'what':<10}{'p50 ms':>9}{'p99 ms':>9}")
    for size in sizes:
        await _fill(stack, there, size, sellers)
        there = size
        command = [sys.executable, "-m", "lostwax", "rebuild", "crm", "--stack", stack.folder.name]
        await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        for name, requests in (await _requests(stack, tokens, size)).items():
            results = [
                await asyncio.to_thread(_look, stack.process("crm").port, requests, seconds, f"{name}{size}{number}")
                for number in range(rounds)
            ]
            p50, p99 = (statistics.median(r[part] for r in results) for part in ("p50_ms", "p99_ms"))
            print(f"{size:9,}  {name:<10}{p50:9.1f}{p99:9.1f}")
            metrics[f"{name}_p99_ms_{size}"] = {"value": p99, "unit": "ms", "ceiling": None, "ratio": None}
            p99s.setdefault(name, []).append(p99)
    worst = max(of[-1] for of in p99s.values())
    growth = max(of[-1] / of[0] for of in p99s.values())
    metrics["p99_ms"] = {"value": worst, "unit": "ms", "ceiling": None, "ratio": None}
    metrics["growth"] = {"value": growth, "unit": f"{sizes[-1]} / {sizes[0]}", "ceiling": None, "ratio": None}
    print(f"growth {growth:.2f}")
    return metrics


def _look(port: int, requests: list[list[str]], seconds: int, tag: str) -> dict[str, Any]:
    result = load(
        host="127.0.0.1", port=port, requests=requests, seconds=seconds, in_flight=SELLERS, rate=RATE, tag=tag
    )
    assert set(result["statuses"]) == {"200"}, result
    return result


def _one_order(stack: Stack, key: str, model: str) -> None:
    load(
        host="127.0.0.1", port=stack.process("partner_api").port, head=order_head(key), body=order_body(model),
        seconds=20, in_flight=1, rate=5, most=1, tag="one",
    )  # fmt: skip


async def _sellers(stack: Stack) -> tuple[list[Any], list[str]]:
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"])
    try:
        added = [await add_staff(connection, f"seller {n}", Role.SELLER, utc_now()) for n in range(SELLERS)]
    finally:
        await connection.close()
    async with httpx.AsyncClient(base_url=stack.url("crm"), timeout=20) as crm:
        answers = [await crm.post("/v1/sign-in", json={"badge": badge}) for _, badge in added]
    return [row.staff_id for row, _ in added], [str(a.raise_for_status().json()["token"]) for a in answers]


async def _fill(stack: Stack, there: int, wanted: int, sellers: list[Any]) -> None:
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"], command_timeout=600)
    try:
        await connection.execute(_CUSTOMERS, there // 4 + 1, wanted // 4, sellers)
        for start in range(there, wanted, 20_000):
            await connection.execute(_ORDERS, start, min(start + 20_000, wanted) - 1, list(_STATUSES))
        await connection.execute(_DESK)
        await connection.execute("VACUUM ANALYZE orders, customers, contacts, desk, order_counts")
    finally:
        await connection.close()


async def _requests(stack: Stack, tokens: list[str], size: int) -> dict[str, list[list[str]]]:
    """What each seller asks for: the board's page, a search of each kind, a customer's page."""
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"])
    try:
        orders = [r["order_id"] for r in await connection.fetch("SELECT order_id FROM orders LIMIT 50")]
        customers = [r["customer_id"] for r in await connection.fetch("SELECT customer_id FROM customers LIMIT 50")]
    finally:
        await connection.close()
    asked: dict[str, list[list[str]]] = {"board": [], "search": [], "customer": []}
    uuid = type(new_id())
    for number, token in enumerate(tokens):
        n = 1 + number * (size // 4) // len(tokens)
        searches = (
            short_code(uuid(int=orders[number % len(orders)].int)),
            "olg",
            f"{n:07d}",
            f"po-{n}",
            f"petrova%20{n}",
        )
        asked["board"].append([get_head("/v1/board?limit=12", token), ""])
        asked["search"] += [[get_head(f"/v1/search?q={text}", token), ""] for text in searches]
        asked["customer"].append([_page_head(f"/customers/{customers[number % len(customers)]}", token), ""])
    return asked


def _page_head(path: str, token: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: staff={token}"
