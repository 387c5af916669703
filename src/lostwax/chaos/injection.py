"""Breaks one thing of a stack and mends it again."""

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

import httpx
import psutil

from lostwax.chaos.disk import SmallDisk
from lostwax.chaos.faults import Fault, Kind
from lostwax.local.servers import toxiproxy
from lostwax.local.stack import Stack

DELAY_MS = 500

FELT_WITHIN_S = 60.0
"""A full disk that the database did not feel in its time stays full for up to so much longer: it writes on for a while
into files that it had made before."""


async def suffer(
    stack: Stack, fault: Fault, disks: Mapping[str, SmallDisk], felt: asyncio.Event | None = None
) -> float:
    """Break it, hold it for its time, mend it; returns when it was mended (a kill: when it was killed), in seconds
    since 1970. Mends it when cancelled, too. A full disk stays full until it is `felt`, within FELT_WITHIN_S.
    Raises NotRunning when the target does not run."""
    if fault.kind is Kind.KILL:
        await asyncio.to_thread(stack.kill, fault.target)
        return time.time()
    if fault.kind is Kind.STOP:
        return await _stop(stack.pid(fault.target), fault.seconds)
    if fault.kind is Kind.FULL:
        disk = disks[fault.target]
        disk.fill()
        try:
            await asyncio.sleep(fault.seconds)
            if felt is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(felt.wait(), FELT_WITHIN_S)
        finally:
            disk.empty()
        return time.time()
    return await _disturb(stack.url(toxiproxy.NAME), fault)


async def _stop(pid: int, seconds: float) -> float:
    """The children too: PostgreSQL's do the work, each in a group of its own."""
    stopped: dict[int, psutil.Process] = {}
    try:
        leader = psutil.Process(pid)
        while fresh := [p for p in (leader, *leader.children(recursive=True)) if p.pid not in stopped]:
            for process in fresh:
                stopped[process.pid] = process
                _send(process, signal.SIGSTOP)
        await asyncio.sleep(seconds)
    finally:
        for process in reversed(stopped.values()):
            _send(process, signal.SIGCONT)
    return time.time()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass  # ended meanwhile


async def _disturb(url: str, fault: Fault) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=10) as proxy:

        async def tell(path: str, body: Mapping[str, object]) -> None:
            (await proxy.post(path, json=body)).raise_for_status()

        try:
            if fault.kind is Kind.CUT:
                await tell(f"/proxies/{fault.target}", {"enabled": False})
            else:
                for stream in ("upstream", "downstream"):
                    # a timeout of 0 keeps the connection and lets nothing through
                    slow = fault.kind is Kind.SLOW
                    attributes = {"latency": DELAY_MS, "jitter": 0} if slow else {"timeout": 0}
                    toxic = {"type": "latency" if slow else "timeout", "stream": stream, "attributes": attributes}
                    await tell(f"/proxies/{fault.target}/toxics", toxic)
            await asyncio.sleep(fault.seconds)
        finally:
            await tell("/reset", {})
    return time.time()
