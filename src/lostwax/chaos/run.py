"""One run: a stack under load, faults one after the other, recovery measured, everything audited at the end."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec

from lostwax.audit.journal import Journal, read_journal
from lostwax.audit.run import Report, audit
from lostwax.audit.sources import Databases
from lostwax.audit.verdict import LIMITS
from lostwax.chaos import eyes
from lostwax.chaos.disk import SmallDisk
from lostwax.chaos.faults import Fault, Kind
from lostwax.chaos.injection import suffer
from lostwax.chaos.load import Felt, Load
from lostwax.contracts.orders import Status
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack, StackFailed

UNFINISHED_AT_LEAST = 50
UNFINISHED_WITHIN_S = 60.0
RECOVERED_WITHIN_S = 120.0
CALM_WITHIN_S = 90.0
CALM_S = 2.0
SETTLED_WITHIN_S = 180.0
LOOK_EVERY_S = 0.25

NOTHING_UNPRICED = {**LIMITS, Status.SUBMITTED: timedelta(0)}


class Wound(msgspec.Struct, frozen=True):
    """One fault and what came of it.

    `unfinished`: orders that were accepted and neither shipped nor cancelled when it began, `unpriced` those of them
    that had no price yet. `recovered_s`: from its end (a kill: from the kill) until a new order of every shard stood
    approved before the operators; None: not within RECOVERED_WITHIN_S. `felt`: by partners from its beginning until
    then.
    """

    fault: Fault
    at: datetime
    unfinished: int
    unpriced: int
    recovered_s: float | None
    felt: Felt
    trouble: str = ""


class Result(msgspec.Struct, frozen=True):
    """A whole run. `seconds` of load, `accepted` orders in them; `complaints`: answers that no client should get."""

    seed: int
    rate: float
    seconds: float
    accepted: int
    wounds: list[Wound]
    complaints: list[str]
    left_out: list[str]
    audit: Report

    def shortfalls(self) -> list[str]:
        """What keeps this run from being a proof, in words; empty when nothing does."""
        said = []
        if not self.audit.clean:
            said.append(f"the audit has {len(self.audit.findings)} findings")
        said += [
            f"{wound.fault.name}: only {wound.unfinished} orders were unfinished"
            for wound in self.wounds
            if wound.unfinished < UNFINISHED_AT_LEAST
        ]
        said += [
            f"{wound.fault.name}: no new order came through within {RECOVERED_WITHIN_S:.0f} s"
            for wound in self.wounds
            if wound.recovered_s is None
        ]
        said += [f"{wound.fault.name}: {wound.trouble}" for wound in self.wounds if wound.trouble]
        if self.complaints:
            said.append(f"robots were told {len(self.complaints)} things they should never hear")
        if not self.wounds:
            said.append("nothing was broken")
        return said


async def run(
    stack: Stack,
    databases: Databases,
    faults: Sequence[Fault],
    folder: Path,
    *,
    rate: float,
    seed: int,
    disk: SmallDisk | None,
    left_out: list[str],
    show: Callable[[str], None],
) -> Result:
    """Break `faults` one after the other under `rate` orders/s, and audit. `show` is told how it goes, in lines."""
    folder.mkdir(parents=True, exist_ok=True)
    journal_path = folder / "journal.jsonl"
    journal_path.unlink(missing_ok=True)
    journal = Journal(journal_path)
    load = Load(rate, seed)
    wounds = []
    async with AsyncExitStack() as resources:
        resources.callback(journal.close)
        resources.push_async_callback(load.end)
        await load.begin(stack, folder, journal, resources)
        began = time.monotonic()
        for number, fault in enumerate(faults, 1):
            wound = await _wound(stack, databases, fault, load, disk)
            wounds.append(wound)
            show(f"{number}/{len(faults)} {line(wound)}")
            await _calm(databases, load, CALM_WITHIN_S)
        await load.stop_placing(limit_s=30)
        seconds, accepted = time.monotonic() - began, load.accepted
        show(f"{accepted} orders accepted in {seconds:.0f} s; settling")
        await _settled(databases, load)
        await load.end()
        for complaint in load.complaints[:20]:
            show(f"a robot was told: {complaint}")
    report = await audit(
        databases,
        stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"],
        read_journal(journal_path),
        now=utc_now,
        limits=NOTHING_UNPRICED,
        settle_s=60,
    )
    return Result(seed, rate, round(seconds, 1), accepted, wounds, load.complaints, left_out, report)


def line(wound: Wound) -> str:
    """One wound for a person who watches."""
    back = "NOT RECOVERED" if wound.recovered_s is None else f"recovered in {wound.recovered_s:.1f} s"
    return (
        f"{wound.fault.name} ({wound.fault.seconds:.0f} s): {wound.unfinished} unfinished, {wound.unpriced} unpriced;"
        f" {back}; accepted {wound.felt.accepted}, longest 202 {wound.felt.longest_s:.2f} s,"
        f" 503 {wound.felt.not_now}, unanswered {wound.felt.unanswered} {wound.trouble}"
    )


async def _wound(stack: Stack, databases: Databases, fault: Fault, load: Load, disk: SmallDisk | None) -> Wound:
    unfinished, unpriced = await _enough_unfinished(databases, load)
    felt = load.felt = Felt()
    at = utc_now()
    mended = await suffer(stack, fault, disk)
    recovered = None
    while time.time() - mended < RECOVERED_WITHIN_S:
        if await eyes.comes_through(databases, mended):
            recovered = round(time.time() - mended, 2)
            break
        await asyncio.sleep(LOOK_EVERY_S)
    trouble = ""
    try:
        await asyncio.to_thread(stack.wait_ready, fault.target, 60)
    except StackFailed as error:
        trouble = str(error).splitlines()[0]
    if fault.kind is Kind.KILL and recovered is not None:
        # Not every process is on an order's way to the operators: one that is dead is not recovered.
        started = stack.process(fault.target).started_at or mended
        recovered = max(recovered, round(started - mended, 2))
    load.felt = Felt()
    return Wound(fault, at, unfinished, unpriced, recovered, felt, trouble)


async def _counted(databases: Databases) -> eyes.Counted | None:
    try:
        return await eyes.count(databases.shards)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


async def _enough_unfinished(databases: Databases, load: Load) -> tuple[int, int]:
    deadline = time.monotonic() + UNFINISHED_WITHIN_S
    unfinished = unpriced = 0
    while True:
        accepted = load.accepted
        if (now := await _counted(databases)) is not None:
            unfinished = accepted - now.finished
            unpriced = max(0, accepted - now.known) + now.unpriced
        if unfinished >= UNFINISHED_AT_LEAST or time.monotonic() > deadline:
            return unfinished, unpriced
        await asyncio.sleep(LOOK_EVERY_S)


async def _calm(databases: Databases, load: Load, limit_s: float) -> None:
    """Wait until no more than CALM_S seconds' worth of orders is without a price, for at most `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        accepted = load.accepted
        now = await _counted(databases)
        if now is not None and accepted - now.known + now.unpriced <= max(20, CALM_S * load.rate):
            return
        await asyncio.sleep(2 * LOOK_EVERY_S)


async def _settled(databases: Databases, load: Load) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        now = await _counted(databases)
        if now is not None and now.known >= load.accepted and now.unpriced == 0:
            return
        await asyncio.sleep(2 * LOOK_EVERY_S)
