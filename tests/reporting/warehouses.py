"""Warehouses of every kind, empty."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.reporting.ydb_stand_in import StandIn, serving

from lostwax.contracts.ids import new_id
from lostwax.reporting.warehouse import Warehouse
from lostwax.reporting.warehouse_duckdb import DuckDbWarehouse
from lostwax.reporting.warehouse_ydb import YdbWarehouse, address_of

REAL_YDB = os.environ.get("LOSTWAX_TEST_YDB", "")
"""ydb://host:port/database of a real one; tests make folders of their own in it, and leave them."""

KINDS = ("duckdb", "ydb", *(("real-ydb",) if REAL_YDB else ()))


@asynccontextmanager
async def a_warehouse(kind: str, folder: Path) -> AsyncIterator[Warehouse]:
    if kind == "ydb":
        async with serving(StandIn()) as at, in_ydb(at) as in_stand_in:
            yield in_stand_in
        return
    opened: Warehouse
    if kind == "real-ydb":
        opened = YdbWarehouse(address_of(f"{REAL_YDB}?folder=lostwax-test/{new_id()}"))
    else:
        opened = DuckDbWarehouse(folder / "reports.duckdb")
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def in_ydb(at: StandIn, *, patience_s: float = 5.0) -> AsyncIterator[YdbWarehouse]:
    opened = YdbWarehouse(address_of(f"ydb://127.0.0.1:{at.port}/local"), patience_s=patience_s)
    try:
        yield opened
    finally:
        await opened.close()
