"""Change capture -> rows -> the warehouse. Offsets are stored after the warehouse has the rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

import msgspec

from lostwax.contracts import capture
from lostwax.contracts.capture import CapturedTable
from lostwax.contracts.metrics import WAREHOUSE_ROWS
from lostwax.contracts.topics import Topic
from lostwax.kit import metrics
from lostwax.kit.coalescer import Coalescer
from lostwax.kit.messages import Decoder, Handler, Incoming
from lostwax.reporting import captured_rows
from lostwax.reporting.captured_rows import Calendar, Changes
from lostwax.reporting.tables import Gone, Row, Table
from lostwax.reporting.warehouse import Warehouse

BATCH = 2000
"""Records of one partition at once."""

_TOGETHER = 16
"""Batches of several partitions in one transaction: while one is written, the others' gather."""

_rows = metrics.counter(WAREHOUSE_ROWS)


class Written(msgspec.Struct):
    """What has come into the warehouse since the start: how many rows, and when the last of a copied table, by the
    monotonic clock."""

    rows: int = 0
    copied_at: float = 0.0


def decoders(calendar: Calendar, now: Callable[[], datetime]) -> Mapping[Topic, Decoder]:
    """How the records of each captured table are read."""

    def decoder(captured: str) -> Decoder:
        return lambda record: captured_rows.changes(captured, record, calendar, now())

    return {table.topic: decoder(_name(table)) for table in capture.TABLES}


def routes(warehouse: Warehouse, written: Written) -> Mapping[Topic, Handler]:
    """What is done with the rows of each captured table."""
    writing: Coalescer[Sequence[Changes], None] = Coalescer(
        partial(_write, warehouse, written), max_rows=_TOGETHER, flushers=1
    )

    async def handle(batch: Sequence[Incoming]) -> None:
        await writing.submit([incoming.body for incoming in batch])

    return {table.topic: handle for table in capture.TABLES}


def _name(table: CapturedTable) -> str:
    return f"{table.database}.{table.table}"


async def _write(warehouse: Warehouse, written: Written, batches: Sequence[Sequence[Changes]]) -> Sequence[None]:
    rows: dict[Table, list[Row]] = {}
    gone: list[Gone] = []
    for batch in batches:
        for changes in batch:
            for table, row in changes.rows:
                rows.setdefault(table, []).append(row)
            if changes.gone is not None:
                gone.append(changes.gone)
    await warehouse.write(rows, gone)
    for table, made in rows.items():
        _rows.add(len(made), table.name)
        written.rows += len(made)
    if any(changes.copied for batch in batches for changes in batch):
        written.copied_at = time.monotonic()
    return [None] * len(batches)
