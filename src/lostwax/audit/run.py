"""One audit: read everything, look again at what seemed wrong while it may still be under way, then say."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.audit import sources
from lostwax.audit.journal import Acknowledged
from lostwax.audit.sources import Databases
from lostwax.audit.verdict import LIMITS, Finding, Kind, judge
from lostwax.contracts import topics
from lostwax.contracts.orders import Status

_LOOK_AGAIN_S = 0.5
_OUTBOX_LIMIT = timedelta(minutes=2)
_ARRIVAL_LIMIT = timedelta(minutes=2)


class Report(msgspec.Struct, frozen=True):
    """What an audit found. `orders`: how many are in Orders; `acknowledged`: how many clients were told of;
    `announced`: how many channels have announced to Orders; `expected`: how many of those have not arrived."""

    at: datetime
    seconds: float
    acknowledged: int
    requested: int
    announced: int
    expected: int
    orders: int
    by_status: dict[str, int]
    findings: list[Finding]

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
) -> Report:
    """Audit every order. What seems wrong is looked at again for up to `settle_s` seconds, since orders move on while
    the databases are read one after the other. Raises the database's or the broker's own error when one is away."""
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
    statuses: Counter[str] = Counter()
    requested = 0
    suspects: dict[UUID, list[Finding]] = {}
    async for known in sources.known_orders(databases, acknowledged):
        requested += known.requested
        if known.in_orders:
            statuses[known.in_orders[0].status.value] += 1
        if wrong := judge(known, now(), limits):
            suspects[known.order_id] = wrong
    while suspects and time.monotonic() - started < settle_s:
        await asyncio.sleep(_LOOK_AGAIN_S)
        again: dict[UUID, list[Finding]] = {}
        async for known in sources.known_orders(databases, acknowledged, list(suspects)):
            if wrong := judge(known, now(), limits):
                again[known.order_id] = wrong
        suspects = again
    findings += [finding for wrong in suspects.values() for finding in wrong]
    for name, (rows, oldest) in (await sources.unpublished(databases)).items():
        if now() - oldest > _OUTBOX_LIMIT:
            findings.append(Finding(Kind.STUCK, None, f"{rows} messages wait in the outbox of {name} since {oldest}"))
    for dead in await asyncio.to_thread(sources.dead_letters, bootstrap, topics.ALL):
        detail = f"{dead.topic} offset {dead.offset}, key {dead.key}: {dead.reason}: {dead.detail}"
        findings.append(Finding(Kind.DEAD, _order_of(dead.key, acknowledged), detail))
    announced = await sources.announcements(databases)
    if announced.oldest is not None and now() - announced.oldest > _ARRIVAL_LIMIT:
        detail = f"{announced.expected} announced requests have not arrived at Orders, the oldest since"
        findings.append(Finding(Kind.STUCK, None, f"{detail} {announced.oldest}"))
    return Report(
        at=now(),
        seconds=round(time.monotonic() - started, 3),
        acknowledged=len(acknowledged),
        requested=requested,
        announced=announced.announced,
        expected=announced.expected,
        orders=sum(statuses.values()),
        by_status=dict(sorted(statuses.items())),
        findings=findings,
    )


def _order_of(key: str, acknowledged: Mapping[UUID, Acknowledged]) -> UUID | None:
    try:
        order_id = UUID(key)
    except ValueError:
        return None
    return order_id if order_id in acknowledged else None
