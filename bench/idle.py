"""`lostwax bench idle`: what everything costs when nothing happens: CPU of services and servers in per cent of one
core, memory, and the growth of the data on disk."""

import time
from pathlib import Path
from typing import Any

import psutil

from _stack import fresh_stack
from lostwax.local.stack import Stack


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    seconds = 20 if quick else 600
    with fresh_stack() as stack:
        time.sleep(10)
        return _measure(stack, seconds)


def _measure(stack: Stack, seconds: float) -> dict[str, Any]:
    families = {p.name: (p.kind, _family(p.pid)) for p in stack.status() if p.pid is not None}
    cpu_before = {name: _cpu(family) for name, (_, family) in families.items()}
    memory_before = {name: _memory(family) for name, (_, family) in families.items()}
    disk_before = _size(stack.folder)
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    print(f"{'':14}{'% of a core':>12}{'MB':>8}{'grown MB':>10}")
    sums = {"service": 0.0, "server": 0.0}
    memory = 0.0
    for name, (kind, family) in families.items():
        share = 100 * (_cpu(family) - cpu_before[name]) / took
        now = _memory(family)
        sums[kind] += share
        memory += now
        print(f"{name:14}{share:12.2f}{now:8.0f}{now - memory_before[name]:10.1f}")
    grown = (_size(stack.folder) - disk_before) / 1e6
    print(f"services {sums['service']:.2f} %, servers {sums['server']:.2f} %, {memory:.0f} MB, disk {grown:+.2f} MB")
    return {
        "cpu": {"value": sums["service"], "unit": "% of a core", "ceiling": None, "ratio": None},
        "servers_cpu": {"value": sums["server"], "unit": "% of a core", "ceiling": None, "ratio": None},
        "memory_mb": {"value": memory, "unit": "MB", "ceiling": None, "ratio": None},
        "disk_mb": {"value": grown, "unit": f"MB in {took:.0f} s", "ceiling": None, "ratio": None},
    }


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        if process.is_running():
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _memory(family: list[psutil.Process]) -> float:
    """Megabytes, what is shared counted once (PSS)."""
    return sum(p.memory_full_info().pss for p in family if p.is_running()) / 1e6


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
