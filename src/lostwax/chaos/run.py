"""One run: a stack under load, faults one after the other, recovery measured, everything audited at the end."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec

from lostwax.audit.journal import Journal, read_journal
from lostwax.audit.run import Report, audit
from lostwax.audit.sources import Databases
from lostwax.chaos import eyes
from lostwax.chaos.disk import SmallDisk
from lostwax.chaos.faults import FULL_S, Fault, Kind
from lostwax.chaos.injection import suffer
from lostwax.chaos.load import Felt, Load
from lostwax.chaos.probe import Probe
from lostwax.contracts.limits import LIMITS
from lostwax.contracts.orders import Status
from lostwax.kit.clock import utc_now
from lostwax.local.credentials import SERVICES
from lostwax.local.servers import toxiproxy
from lostwax.local.servers.postgres import SHARDS
from lostwax.local.services import SPINE
from lostwax.local.stack import Stack

UNFINISHED_AT_LEAST = 50
UNFINISHED_WITHIN_S = 60.0
UNAPPROVED_WITHIN_S = 8.0
"""A fault waits so long for as many un-approved orders as there should be unfinished ones; then it comes anyhow."""

RECOVERED_WITHIN_S, READY_WITHIN_S = 120.0, 180.0
ASIDE_WATCHED_S = 900.0
"""Who only looks on stands back while orders want the processor, and may be later than READY_WITHIN_S. That is a
shortfall of the run; but it goes on meanwhile, comes back to them before they are hurt again and at its end, and tells
how late they were."""

CALM_WITHIN_S = 90.0
CALM_S = 2.0
SETTLED_WITHIN_S = 180.0
LOOK_EVERY_S = 0.25

ASIDE = frozenset(SERVICES) - frozenset(SPINE)
"""Services that stand in no order's way."""

NOTHING_UNPRICED = {**LIMITS, Status.SUBMITTED: timedelta(0)}


class Wound(msgspec.Struct, frozen=True):
    """One fault and what came of it.

    `unfinished`: orders that were accepted and neither shipped nor cancelled when it began, `unapproved` and `unpriced`
    those of them that were not approved and had no price yet. `recovered_s`: from its end (a kill: from the kill) until
    a new order of every shard stood approved before the operators; None: not within RECOVERED_WITHIN_S. `felt`: by
    partners from its beginning until then. `aside`: what it hurt stands in no order's way. `back_s`: from its end until
    what it hurt was seen ready, which is looked for after the recovery; None: a network, or not in time. `answers`:
    what the APIs said while a disk was full, counted. `mended`: when it ended (a kill: when it was made), in seconds
    since 1970.
    """

    fault: Fault
    at: datetime
    unfinished: int
    unpriced: int
    recovered_s: float | None
    felt: Felt
    trouble: str = ""
    unapproved: int = 0
    aside: bool = False
    back_s: float | None = None
    answers: dict[str, int] = {}
    mended: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """A whole run. `seconds` of load, `accepted` orders in them; `complaints`: answers that no client should get;
    `covered`: the processes that there were to hurt."""

    seed: int
    rate: float
    seconds: float
    accepted: int
    wounds: list[Wound]
    complaints: list[str]
    left_out: list[str]
    audit: Report
    covered: list[str] = []

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
        said += [
            f"{wound.fault.name}: partners were answered {wound.felt.broken} times that something broke"
            for wound in self.wounds
            if wound.felt.broken
        ]
        said += [
            f"{wound.fault.name}: stands in no order's way, and partners felt it"
            for wound in self.wounds
            if wound.aside and (wound.felt.not_now or wound.felt.unanswered)
        ]
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
    disks: Mapping[str, SmallDisk],
    left_out: list[str],
    show: Callable[[str], None],
) -> Result:
    """Break `faults` one after the other under `rate` orders/s, and audit. `disks`: those that can be full, by server.
    `show` is told how it goes, in lines. Raises NotRunning when the stack has gone."""
    folder.mkdir(parents=True, exist_ok=True)
    journal_path = folder / "journal.jsonl"
    journal_path.unlink(missing_ok=True)
    journal = Journal(journal_path)
    load = Load(rate, seed)
    wounds: list[Wound] = []
    returning: dict[str, asyncio.Task[None]] = {}
    async with AsyncExitStack() as resources:
        resources.callback(journal.close)
        resources.push_async_callback(load.end)
        await load.begin(stack, folder, journal, resources)
        began = time.monotonic()
        for number, fault in enumerate(faults, 1):
            if (late := returning.pop(fault.target, None)) is not None:
                await late
            wounds.append(await _wound(stack, databases, fault, load, disks))
            back = asyncio.create_task(_back(stack, wounds, len(wounds) - 1))
            if wounds[-1].aside:
                returning[fault.target] = back
            else:
                await back
            show(f"{number}/{len(faults)} {line(wounds[-1])}")
            await _calm(stack, databases, load, CALM_WITHIN_S)
        await load.stop_placing(limit_s=30)
        seconds, accepted = time.monotonic() - began, load.accepted
        show(f"{accepted} orders accepted in {seconds:.0f} s; settling")
        await _settled(stack, databases, load)
        await asyncio.gather(*returning.values())
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
    covered = [process.name for process in stack.status() if process.name != toxiproxy.NAME]
    return Result(seed, rate, round(seconds, 1), accepted, wounds, load.complaints, left_out, report, covered)


def line(wound: Wound) -> str:
    """One wound for a person who watches."""
    back = "NOT RECOVERED" if wound.recovered_s is None else f"recovered in {wound.recovered_s:.1f} s"
    return (
        f"{wound.fault.name} ({wound.fault.seconds:.0f} s): {wound.unfinished} unfinished, {wound.unapproved}"
        f" un-approved, {wound.unpriced} unpriced;"
        f" {back}; accepted {wound.felt.accepted}, longest 202 {wound.felt.longest_s:.2f} s,"
        f" 503 {wound.felt.not_now}, unanswered {wound.felt.unanswered} {wound.trouble}"
        + "".join(f"; {answer} x {n}" for answer, n in wound.answers.items())
    )


async def _wound(stack: Stack, databases: Databases, fault: Fault, load: Load, disks: Mapping[str, SmallDisk]) -> Wound:
    unfinished, unapproved, unpriced = await _enough_unfinished(stack, databases, load)
    felt = load.felt = Felt()
    at = utc_now()
    answers: dict[str, int] = {}
    trouble = ""
    if fault.kind is Kind.FULL:
        probe = _probe(stack, databases, load, fault.target)
        async with probe.asking():
            mended = await suffer(stack, fault, disks, probe.felt if fault.seconds >= FULL_S else None)
        answers, trouble = dict(sorted(probe.answers.items())), _of_answers(fault, probe)
    else:
        mended = await suffer(stack, fault, disks)
    recovered = None
    while time.time() - mended < RECOVERED_WITHIN_S:
        if await eyes.comes_through(databases, mended):
            recovered = round(time.time() - mended, 2)
            break
        _ = stack.state()  # raises when nothing is left that could recover
        await asyncio.sleep(LOOK_EVERY_S)
    load.felt = Felt()
    aside = any(p.name == fault.target and (p.aside or p.name in ASIDE) for p in stack.status())
    return Wound(fault, at, unfinished, unpriced, recovered, felt, trouble, unapproved, aside, None, answers, mended)


async def _back(stack: Stack, wounds: list[Wound], number: int) -> None:
    """Wait until what this wound hurt is ready again, and note it there, or that it was not in time."""
    wound = wounds[number]
    name, limit_s = wound.fault.target, ASIDE_WATCHED_S if wound.aside else READY_WITHIN_S
    while (process := next((p for p in await asyncio.to_thread(stack.status) if p.name == name), None)) is not None:
        passed = time.time() - wound.mended
        if process.state == "ready":
            # Not every process is on an order's way to the operators: one that is dead is not recovered.
            started = (process.started_at or 0.0) - wound.mended if wound.fault.kind is Kind.KILL else 0.0
            recovered = None if wound.recovered_s is None else max(wound.recovered_s, round(started, 2))
            late = (
                f"{wound.trouble} ready again only after {passed:.0f} s" if passed > READY_WITHIN_S else wound.trouble
            )
            wounds[number] = msgspec.structs.replace(
                wound, back_s=round(passed, 1), recovered_s=recovered, trouble=late.strip()
            )
            return
        if passed > limit_s:
            trouble = f"{wound.trouble} not ready after {limit_s:.0f} s: {name} is {process.state}: {process.trouble}"
            wounds[number] = msgspec.structs.replace(wound, trouble=trouble.strip())
            return
        await asyncio.sleep(2 * LOOK_EVERY_S)


def _probe(stack: Stack, databases: Databases, load: Load, target: str) -> Probe:
    number = SHARDS.index(target) if target in SHARDS else None
    return Probe(
        databases.partner_api if number is None else databases.shards[number],
        databases.shards[-1 if number is None else number],
        {name: stack.url(name) for name in ("orders", "partner_api")},
        {"orders": stack.console_token("orders"), "partner_api": load.key},
    )


def _of_answers(fault: Fault, probe: Probe) -> str:
    """What is wrong with what the APIs said while a disk was full; empty when nothing is."""
    if probe.wrong:
        return f"{len(probe.wrong)} answers were no 503 problem, as: {probe.wrong[0]}"
    if fault.seconds >= FULL_S and not probe.felt.is_set():
        return "the database found room all the time, so its disk was not full"
    if fault.seconds >= FULL_S and fault.target not in SHARDS and not probe.refused:
        return "nobody was answered 503, though the partner API's database had no room"
    return ""


async def _counted(stack: Stack, databases: Databases) -> eyes.Counted | None:
    """None: a shard is away just now. Raises NotRunning when the whole stack has gone."""
    try:
        return await eyes.count(databases.shards)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        _ = stack.state()
        return None


async def _enough_unfinished(stack: Stack, databases: Databases, load: Load) -> tuple[int, int, int]:
    """Unfinished, un-approved and unpriced orders, once there are enough, or time is over."""
    wished = UNFINISHED_AT_LEAST if load.rate >= UNFINISHED_AT_LEAST else 0
    began = time.monotonic()
    unfinished = unapproved = unpriced = 0
    while True:
        accepted = load.accepted
        if (now := await _counted(stack, databases)) is not None:
            under_way = max(0, accepted - now.known)
            unfinished = accepted - now.finished
            unapproved, unpriced = under_way + now.unapproved, under_way + now.unpriced
        waited = time.monotonic() - began
        if (unfinished >= UNFINISHED_AT_LEAST and (unapproved >= wished or waited > UNAPPROVED_WITHIN_S)) or (
            waited > UNFINISHED_WITHIN_S
        ):
            return unfinished, unapproved, unpriced
        await asyncio.sleep(LOOK_EVERY_S)


async def _calm(stack: Stack, databases: Databases, load: Load, limit_s: float) -> None:
    """Wait until no more than CALM_S seconds' worth of orders is without a price, for at most `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        accepted = load.accepted
        now = await _counted(stack, databases)
        if now is not None and accepted - now.known + now.unpriced <= max(20, CALM_S * load.rate):
            return
        await asyncio.sleep(2 * LOOK_EVERY_S)


async def _settled(stack: Stack, databases: Databases, load: Load) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        now = await _counted(stack, databases)
        if now is not None and now.known >= load.accepted and now.unpriced == 0:
            return
        await asyncio.sleep(2 * LOOK_EVERY_S)
