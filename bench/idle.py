"""`lostwax bench idle`: what everything costs when nothing happens: CPU of services and servers in per cent of one
core, memory, and what grows, of memory and on disk, in each half of the time: what was warming up stops, a leak goes
on."""

import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from _stack import fresh_stack
from lostwax.local.stack import Stack

Family = list[psutil.Process]


class Reading(msgspec.Struct, frozen=True):
    """CPU in seconds and memory in MB by process, bytes on disk by server."""

    at: float
    cpu: dict[str, float]
    memory: dict[str, float]
    disk: dict[str, int]


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    half_s = 10 if quick else 300
    with fresh_stack() as stack:
        time.sleep(10)
        families = {p.name: _family(p.pid) for p in stack.status() if p.pid is not None}
        readings = [_read(stack, families)]
        for _ in range(2):
            time.sleep(half_s)
            readings.append(_read(stack, families))
        return _tell(stack, readings)


def _read(stack: Stack, families: dict[str, Family]) -> Reading:
    cpu = {name: _sum(family, _cpu) for name, family in families.items()}
    memory = {name: _sum(family, _memory) for name, family in families.items()}
    disk = {name: _size(folder) for name, folder in _folders(stack).items()}
    return Reading(time.monotonic(), cpu, memory, disk)


def _tell(stack: Stack, readings: list[Reading]) -> dict[str, Any]:
    first, middle, last = readings
    took = last.at - first.at
    services = {p.name for p in stack.status() if p.kind == "service"}
    share = {name: 100 * (last.cpu[name] - first.cpu[name]) / took for name in first.cpu}
    print(f"{'':14}{'% of a core':>12}{'MB':>8}   grown, MB, in each half of {took:.0f} s")
    for name, used in share.items():
        early, late = middle.memory[name] - first.memory[name], last.memory[name] - middle.memory[name]
        print(f"{name:14}{used:12.2f}{last.memory[name]:8.0f}{early:+10.1f}{late:+8.1f}")
    for name, bytes_ in last.disk.items():
        early, late = middle.disk[name] - first.disk[name], bytes_ - middle.disk[name]
        print(f"{'disk: ' + name:26}{bytes_ / 1e6:8.0f}{early / 1e6:+10.2f}{late / 1e6:+8.2f}")
    of_services = sum(used for name, used in share.items() if name in services)
    of_servers = sum(share.values()) - of_services
    memory = sum(last.memory.values())
    memory_late = memory - sum(middle.memory.values())
    disk_late = (sum(last.disk.values()) - sum(middle.disk.values())) / 1e6
    print(f"services {of_services:.2f} %, servers {of_servers:.2f} %, {memory:.0f} MB; in the second half")
    print(f"memory {memory_late:+.1f} MB, disk {disk_late:+.2f} MB")
    half = f"MB in the second {took / 2:.0f} s"
    return {
        "cpu": {"value": of_services, "unit": "% of a core", "ceiling": None, "ratio": None},
        "servers_cpu": {"value": of_servers, "unit": "% of a core", "ceiling": None, "ratio": None},
        "memory_mb": {"value": memory, "unit": "MB", "ceiling": None, "ratio": None},
        "memory_grown_mb": {"value": memory_late, "unit": half, "ceiling": None, "ratio": None},
        "disk_grown_mb": {"value": disk_late, "unit": half, "ceiling": None, "ratio": None},
    }


def _family(pid: int) -> Family:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _sum(family: Family, figure: Any) -> float:
    return sum(figure(process) for process in family if process.is_running())


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> float:
    """Proportional share, so that pages that PostgreSQL's processes share count once."""
    return float(process.memory_full_info().pss) / 1e6


def _folders(stack: Stack) -> dict[str, Path]:
    """What keeps data, and beside each PostgreSQL's data its log of changes, which is recycled, not removed."""
    found = {folder.name: folder for folder in stack.folder.iterdir() if folder.is_dir() and folder.name != "postgres"}
    for server in (stack.folder / "postgres").iterdir():
        found[server.name] = server
    return found


def _size(folder: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])
