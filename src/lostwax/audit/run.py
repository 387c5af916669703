"""One audit: read everything, look again at what seemed wrong while it may still be under way, then say."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.audit import sources
from lostwax.audit.journal import Acknowledged
from lostwax.audit.sources import Databases, Parked
from lostwax.audit.verdict import Finding, Kind, judge, judge_quote
from lostwax.contracts import topics
from lostwax.contracts.limits import LIMITS
from lostwax.contracts.orders import Status
from lostwax.kit.dead import Letter

_LOOK_AGAIN_S = 0.5
_OUTBOX_LIMIT = timedelta(minutes=2)
_ARRIVAL_LIMIT = timedelta(minutes=2)
_RELEASE_LIMIT = timedelta(minutes=2)


class Report(msgspec.Struct, frozen=True):
    """What an audit found. `orders`, `quotes`: how many are in Orders; `acknowledged`: how many clients were told of;
    `requested`: how many came through channels, `by_channel`: through which;
    `announced`: how many channels have announced to Orders; `expected`: how many of those have not arrived.
    `reported`: how many reports have; None when they were not asked, `not_compared` says why."""

    at: datetime
    seconds: float
    acknowledged: int
    requested: int
    by_channel: dict[str, int]
    announced: int
    expected: int
    orders: int
    by_status: dict[str, int]
    findings: list[Finding]
    quotes: int = 0
    reported: int | None = None
    not_compared: str | None = None

    @property
    def clean(self) -> bool:
        return not self.findings


async def audit(
    databases: Databases,
    bootstrap: str,
    journal: Iterable[Acknowledged],
    *,
    now: Callable[[], datetime],
    limits: Mapping[Status, timedelta] = LIMITS,
    settle_s: float = 10,
    reports_s: float = 120,
) -> Report:
    """Audit every order and every quote. What seems wrong is looked at again for up to `settle_s` seconds, since orders
    move on while the databases are read one after the other; what only reports lack, up to `reports_s`, since change
    capture follows at its own pace. Raises the database's or the broker's own error when one is away."""
    started = time.monotonic()
    acknowledged: dict[UUID, Acknowledged] = {}
    findings: list[Finding] = []
    by_submission: dict[tuple[UUID, str], UUID] = {}
    for entry in journal:
        acknowledged[entry.order_id] = entry
        first = by_submission.setdefault((entry.account, entry.submission), entry.order_id)
        if first != entry.order_id:
            detail = f"one submission of a client was acknowledged twice, also as {first}"
            findings.append(Finding(Kind.DOUBLED, entry.order_id, detail))
    for submission, ids in await sources.doubled_submissions(databases):
        findings += [Finding(Kind.DOUBLED, i, f"one of {len(ids)} orders for submission {submission}") for i in ids]
    try:
        await sources.reports_answer(databases)
    except sources.ReportsAway as error:
        findings.append(Finding(Kind.UNREPORTED, None, f"Reporting does not answer: {error}"))
        reports = sources.Reports(why_not="it does not answer")
        databases = msgspec.structs.replace(databases, reports=reports)
    statuses: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    requested = reported = 0
    unreported: set[UUID] = set()
    suspects: dict[UUID, list[Finding]] = {}
    async for known in sources.known_orders(databases, acknowledged):
        requested += known.requested
        channels.update(known.channels)
        reported += known.reported is not None
        if known.in_orders:
            statuses[known.in_orders[0].status.value] += 1
        if wrong := judge(known, now(), limits):
            suspects[known.order_id] = wrong
            if known.compared and known.reported is None:
                unreported.add(known.order_id)
    while suspects and time.monotonic() - started < (reports_s if _only_unreported(suspects) else settle_s):
        await asyncio.sleep(_LOOK_AGAIN_S)
        again: dict[UUID, list[Finding]] = {}
        async for known in sources.known_orders(databases, acknowledged, list(suspects)):
            if known.reported is not None and known.order_id in unreported:
                unreported.remove(known.order_id)
                reported += 1
            if wrong := judge(known, now(), limits):
                again[known.order_id] = wrong
        suspects = again
    findings += [finding for wrong in suspects.values() for finding in wrong]
    # After the orders' turn, of whose time to settle it must take none.
    quotes, wrong_quotes = await _quotes(databases, now, limits.get(Status.SUBMITTED), settle_s)
    findings += wrong_quotes
    for name, (rows, oldest) in (await sources.unpublished(databases)).items():
        if now() - oldest > _OUTBOX_LIMIT:
            findings.append(Finding(Kind.STUCK, None, f"{rows} messages wait in the outbox of {name} since {oldest}"))
    # Read before the letters: what is released while they are read is then still known as held up by one.
    parked = await sources.parked(databases)
    letters = await asyncio.to_thread(sources.dead_letters, bootstrap, topics.ALL)
    findings += _dead(letters, parked, acknowledged, now())
    announced = await sources.announcements(databases)
    if announced.oldest is not None and now() - announced.oldest > _ARRIVAL_LIMIT:
        detail = f"{announced.expected} announced requests have not arrived at Orders, the oldest since"
        findings.append(Finding(Kind.STUCK, None, f"{detail} {announced.oldest}"))
    return Report(
        at=now(),
        seconds=round(time.monotonic() - started, 3),
        acknowledged=len(acknowledged),
        requested=requested,
        by_channel=dict(sorted(channels.items())),
        announced=announced.announced,
        expected=announced.expected,
        orders=sum(statuses.values()),
        by_status=dict(sorted(statuses.items())),
        quotes=quotes,
        findings=findings,
        reported=reported if databases.reports.url else None,
        not_compared=None if databases.reports.url else databases.reports.why_not,
    )


async def _quotes(
    databases: Databases, now: Callable[[], datetime], limit: timedelta | None, settle_s: float
) -> tuple[int, list[Finding]]:
    """How many quotes Orders has, and what is wrong with quotes, looked at again for up to `settle_s` seconds."""
    started, count = time.monotonic(), 0
    suspects: dict[UUID, list[Finding]] = {}
    async for known in sources.known_quotes(databases):
        count += bool(known.in_orders)
        if wrong := judge_quote(known, now(), limit):
            suspects[known.quote_id] = wrong
    while suspects and time.monotonic() - started < settle_s:
        await asyncio.sleep(_LOOK_AGAIN_S)
        again = sources.known_quotes(databases, list(suspects))
        suspects = {known.quote_id: wrong async for known in again if (wrong := judge_quote(known, now(), limit))}
    return count, [finding for wrong in suspects.values() for finding in wrong]


def _only_unreported(suspects: Mapping[UUID, Sequence[Finding]]) -> bool:
    return all(finding.kind is Kind.UNREPORTED for wrong in suspects.values() for finding in wrong)


def _dead(
    letters: Sequence[Letter], parked: Sequence[Parked], acknowledged: Mapping[UUID, Acknowledged], now: datetime
) -> list[Finding]:
    """Unsettled dead letters, with who waits behind them; and orders held up by a letter that is settled."""
    held_up = {mark.place: mark for mark in parked}
    findings: list[Finding] = []
    for letter in letters:
        detail = f"{letter.topic} offset {letter.offset}, key {letter.subject}: {letter.reason}: {letter.detail}"
        mark = held_up.pop(letter.source, None)
        if mark is None:
            findings.append(Finding(Kind.DEAD, _order_of(letter.subject, acknowledged), detail))
            continue
        waiting = f"{mark.waiting} later commands of the order wait behind it"
        findings.append(Finding(Kind.DEAD, mark.order_id, f"{detail}; {waiting}"))
    for mark in held_up.values():
        if now - mark.since > _RELEASE_LIMIT:
            detail = f"{mark.waiting} commands wait behind {mark.place}, which is in no open dead letter"
            findings.append(Finding(Kind.STUCK, mark.order_id, f"{detail}, since {mark.since}"))
    return findings


def _order_of(key: str, acknowledged: Mapping[UUID, Acknowledged]) -> UUID | None:
    try:
        order_id = UUID(key)
    except ValueError:
        return None
    return order_id if order_id in acknowledged else None
