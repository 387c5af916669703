"""`lostwax bench start`: from nothing running to the first order shipped, with everything downloaded: what `demo` does
before it has something to show."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from _stack import fresh_stack
from lostwax.cli.audit import databases_of
from lostwax.demo.run import Progress, ship_orders
from lostwax.local.stack import Stack


def run(quick: bool) -> dict[str, Any]:
    """Prints the rounds; returns the metrics (medians)."""
    ready, shipped = [], []
    for number in range(1 if quick else 5):
        began = time.monotonic()
        with fresh_stack(settled=False) as stack:
            ready.append(time.monotonic() - began)
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(_one_order(stack, Path(folder)))
            shipped.append(time.monotonic() - began)
        print(f"round {number + 1}: ready after {ready[-1]:.1f} s, first order shipped after {shipped[-1]:.1f} s")
    middle = len(ready) // 2
    return {
        "ready_s": {"value": sorted(ready)[middle], "unit": "s", "ceiling": None, "ratio": None},
        "first_shipped_s": {"value": sorted(shipped)[middle], "unit": "s", "ceiling": None, "ratio": None},
    }


async def _one_order(stack: Stack, folder: Path) -> None:
    def nothing(_: Progress) -> None:
        return

    _, report = await ship_orders(stack, databases_of(stack), 1, folder, seed=0, show=nothing, limit_s=60)
    assert report.clean, report.findings
