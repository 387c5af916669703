"""Change capture kept going: connectors registered, mended, and let copy everything anew when a slot was lost.

Runs in Reporting; each source is cared for by one process at a time. It only ever looks after the capture: with Connect
or a database away it says so, and waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import asyncpg
import httpx
import msgspec

from lostwax.contracts.metrics import CAPTURE_DEEDS, CAPTURE_HELD, CAPTURE_LAG, CAPTURE_STREAMING
from lostwax.kit import metrics
from lostwax.kit.clock import utc_now
from lostwax.kit.postgres import Connection
from lostwax.reporting.capture_clients import (
    DATABASE_AWAY,
    Connect,
    ConnectAway,
    connected,
    drop_slot,
    in_charge,
    look,
)
from lostwax.reporting.capture_domain import (
    TRANSACTION,
    Care,
    Deed,
    Seen,
    Source,
    connector_config,
    decide,
    lag,
    stands_still,
    trouble,
)

log = logging.getLogger(__name__)

_held = metrics.gauge(CAPTURE_HELD)
_lag = metrics.gauge(CAPTURE_LAG)
_streaming = metrics.gauge(CAPTURE_STREAMING)
_deeds = metrics.counter(CAPTURE_DEEDS)

EVERY_S = 5.0
_CHARGE_S, _CHARGE_TURNS = 0.2, 100


class Report(msgspec.Struct, frozen=True):
    """One source, for people. `trouble` is None when its changes flow; -1 stands for what is not known."""

    source: str
    state: str
    trouble: str | None
    held_bytes: int = -1
    behind_bytes: int = -1
    lag_s: float = -1.0


class Watcher:
    """Cares for all sources until cancelled. `reports` is what it saw last."""

    def __init__(self, connect_url: str, watched: Sequence[Source], *, every_s: float = EVERY_S) -> None:
        self.connect_url, self._sources, self._every_s = connect_url, watched, every_s
        self._care: dict[str, Care] = {}
        self._told: dict[str, str | None] = {}
        self.reports: dict[str, Report] = {}

    async def run(self) -> None:
        """Look every few seconds, at each source by itself: one that hangs holds up no other."""
        async with httpx.AsyncClient() as client:
            connect = Connect(self.connect_url, client)
            if not self._sources:
                log.warning("nothing is captured: LOSTWAX_CAPTURE_URLS is not set")
                await asyncio.Event().wait()
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(self._watch(connect, source))

    async def _watch(self, connect: Connect, source: Source) -> None:
        while True:
            try:
                report = await self._look_after(connect, source)
            except ConnectAway as error:
                report = Report(source.name, "unknown", f"Kafka Connect: {error}")
            except DATABASE_AWAY as error:
                report = Report(source.name, "unknown", f"database: {type(error).__name__}: {error}")
            self._tell(report)
            await asyncio.sleep(self._every_s)

    async def _look_after(self, connect: Connect, source: Source) -> Report:
        wanted = connector_config(source)
        async with connected(source) as connection, in_charge(connection, source) as ours:
            seen = await look(connect, source, connection, utc_now())
            before = self._care.get(source.name, Care())
            deed, care = decide(wanted, seen, before)
            self._care[source.name] = care
            if ours and deed is not Deed.NOTHING:
                await _do(deed, connect, source, connection, wanted)
            elif ours and stands_still(seen, before):
                await connection.execute(TRANSACTION)
        return report_of(source, seen, care)

    def _tell(self, report: Report) -> None:
        self.reports[report.source] = report
        _streaming.set(0.0 if report.trouble else 1.0, report.source)
        if report.held_bytes >= 0:
            _held.set(report.held_bytes, report.source)
        if report.lag_s >= 0:
            _lag.set(report.lag_s, report.source)
        if report.trouble != self._told.get(report.source):
            level = logging.WARNING if report.trouble else logging.INFO
            log.log(level, "capture", extra={"source": report.source, "trouble": report.trouble or "none"})
            self._told[report.source] = report.trouble

    def trouble(self) -> str | None:
        """In words, which sources do not flow; None when all do."""
        said = [f"{r.source}: {r.trouble}" for r in self.reports.values() if r.trouble]
        return "; ".join(sorted(said)) or None


async def _do(deed: Deed, connect: Connect, source: Source, connection: Connection, wanted: Mapping[str, str]) -> None:
    log.warning("capture mended", extra={"source": source.name, "deed": deed.value})
    _deeds.add(1, source.name, deed.value)
    match deed:
        case Deed.REGISTER:
            await connect.register(source.connector, dict(wanted))
        case Deed.RESTART:
            await connect.restart(source.connector)
        case Deed.COPY_ANEW:
            # without its slot the connector finds that it has missed something, and copies all tables
            await drop_slot(connection, source)
            await connect.restart(source.connector)


def report_of(source: Source, seen: Seen, care: Care) -> Report:
    """What is said of a source."""
    behind = lag(seen, care)
    state = (seen.state or "absent").lower()
    if state == "running" and seen.slot is not None and seen.slot.active:
        state = "streaming"
    elif seen.copying:
        state = "copying"
    return Report(
        source.name,
        state,
        trouble(seen),
        held_bytes=-1 if seen.slot is None else seen.slot.held_bytes,
        behind_bytes=-1 if seen.slot is None else seen.slot.behind_bytes,
        lag_s=-1.0 if behind is None else behind.total_seconds(),
    )


async def report(connect_url: str, watched: Sequence[Source], *, looks: int = 8) -> list[Report]:
    """Look at each source, and do nothing about it. How far it is behind in seconds shows only over time: there are up
    to so many looks, a second apart, until it is known."""
    async with httpx.AsyncClient() as client:
        connect = Connect(connect_url, client)
        return await asyncio.gather(*(_look_only(connect, source, looks) for source in watched))


async def _look_only(connect: Connect, source: Source, looks: int) -> Report:
    care = Care()
    try:
        async with connected(source) as connection:
            while True:
                looks -= 1
                seen = await look(connect, source, connection, utc_now())
                _, care = decide(connector_config(source), seen, care)
                found = report_of(source, seen, care)
                if looks <= 0 or found.trouble or found.lag_s >= 0:
                    return found
                await asyncio.sleep(1)
    except ConnectAway as error:
        return Report(source.name, "unknown", f"Kafka Connect: {error}")
    except DATABASE_AWAY as error:
        return Report(source.name, "unknown", f"database: {type(error).__name__}: {error}")


async def register(connect_url: str, watched: Sequence[Source]) -> None:
    """Register every source now, as the watcher would. Raises ConnectAway."""
    async with httpx.AsyncClient() as client:
        connect = Connect(connect_url, client)
        for source in watched:
            await connect.register(source.connector, connector_config(source))


async def copy_anew(connect_url: str, watched: Sequence[Source], then: Callable[[], Awaitable[None]]) -> None:
    """Take every connector and slot away, do what is to be done `then`, while nothing is captured, and leave it to the
    watcher to register them again, whereupon everything is copied. Raises ConnectAway, DATABASE_AWAY and what `then`
    raises; `then` is not done unless all are away, for what is not copied anew must not be forgotten."""
    async with AsyncExitStack() as resources:
        for source in watched:
            connection = await resources.enter_async_context(connected(source))
            for _ in range(_CHARGE_TURNS):
                # The watcher looks for a moment every few seconds; whoever has the charge keeps it out.
                charge = AsyncExitStack()
                if await charge.enter_async_context(in_charge(connection, source)):
                    resources.push_async_exit(charge)
                    break
                await charge.aclose()
                await asyncio.sleep(_CHARGE_S)
            else:
                raise ConnectAway(f"{source.name} is being cared for by somebody else")
        await remove(connect_url, watched)
        await then()


async def remove(connect_url: str, watched: Sequence[Source]) -> None:
    """Unregister the connectors and drop their slots, so that no WAL is held for a reader who never comes; what is
    registered afterwards starts with a new copy. Raises ConnectAway, kit.postgres.UNREACHABLE."""
    async with httpx.AsyncClient() as client:
        connect = Connect(connect_url, client)
        for source in watched:
            await connect.remove(source.connector)
    for source in watched:
        async with connected(source) as connection:
            for _ in range(50):
                try:
                    await drop_slot(connection, source)
                    break
                except asyncpg.ObjectInUseError:
                    await asyncio.sleep(0.2)
            else:
                await drop_slot(connection, source)
