"""How long orders have been where they are, looked up without reading the orders."""

from datetime import timedelta
from pathlib import Path

from tests.builders import NOON, an_order
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.contracts.orders import Status
from lostwax.kit.postgres import open_pool
from lostwax.orders import store
from lostwax.orders.store import Entry


async def test_the_longest_in_each_open_status_is_found_by_the_index(new_database: NewDatabase) -> None:
    dsn = await new_database(Path(lostwax.orders.__file__).parent / "migrations")
    entries = [
        Entry(an_order(status, updated_at=NOON - timedelta(hours=hours)))
        for status in (Status.SUBMITTED, Status.PACKAGING, Status.CLOSED)
        for hours in range(200)
    ]
    async with await open_pool(dsn, name="test", size=1) as pool, pool.acquire() as connection:
        assert await store.longest_in(connection) == {}
        await store.insert_orders(connection, entries)
        longest = NOON - timedelta(hours=199)
        assert await store.longest_in(connection) == {Status.SUBMITTED: longest, Status.PACKAGING: longest}
        await connection.execute("ANALYZE orders")
        plan = [row[0] for row in await connection.fetch(f"EXPLAIN {store._LONGEST}")]
    assert sum("orders_by_age" in line for line in plan) == len(store.OPEN), plan
    assert not [line for line in plan if "Seq Scan" in line]
