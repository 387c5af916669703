"""The desk of a shard: publishes its price jobs, so that a giant or a burst delays nobody else.

At most a window of each lane is out at once; a free place goes to the account that has the fewest out. What is not
answered in time is published again and counted, and in the end its price fails. One desk at a time works on a shard, by
a session's advisory lock; others wait for the lock. At rest it only listens: new jobs and freed places wake it.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import asyncpg

from lostwax.contracts import topics
from lostwax.contracts.metrics import PRICE_JOBS
from lostwax.contracts.orders import PriceFailure
from lostwax.contracts.pricing import NotPriced, PriceRequest, PriceResult, Tariff
from lostwax.contracts.topics import Topic
from lostwax.kit import metrics, outbox
from lostwax.kit.postgres import UNREACHABLE, OwnConnection, let_go
from lostwax.kit.shards import NotOwner, Shard
from lostwax.orders import changes, handlers, price_jobs
from lostwax.orders.changes import Orders
from lostwax.orders.price_jobs import Lane, PriceJob, Terms

log = logging.getLogger(__name__)
_counted = metrics.counter(PRICE_JOBS)

MOST_ATTEMPTS = 5
TOPICS: Mapping[Lane, Topic] = {Lane.QUICK: topics.PRICING_QUICK, Lane.HEAVY: topics.PRICING_HEAVY}

_LOCK = 7_300_021
_SAFETY_LOOK_S = 30.0
# A shard that was away at the start has no tables yet.
_AWAY: tuple[type[BaseException], ...] = (*UNREACHABLE, NotOwner, asyncpg.UndefinedTableError)
_tariff = lru_cache(maxsize=8)(changes.load_tariff)

NOT_ANSWERED = PriceFailure(
    code="price_not_answered",
    detail=f"Pricing has not answered, asked {MOST_ATTEMPTS} times. We are looking into it; ask for the price again.",
    mended_by="operator",
)


class Desk:
    """`run()` until cancelled. `published` counts the jobs sent, those sent again included."""

    def __init__(self, orders: Orders, shard: Shard, terms: Mapping[Lane, Terms]) -> None:
        self._orders = orders
        self._shard = shard
        self._terms = terms
        self._wake = asyncio.Event()
        self.published = 0
        self.active = False

    async def run(self) -> None:
        """Publish until cancelled; the database may come and go."""
        pause = 0.1
        while True:
            try:
                await self._hold_lock_and_publish()
            except _AWAY as error:
                log.warning("desk: shard away", extra={"shard": self._shard.number, "error": repr(error)})
            pause = 0.1 if self.active else min(pause * 2, 2.0)
            self.active = False
            await asyncio.sleep(pause)

    async def _hold_lock_and_publish(self) -> None:
        connection = await asyncpg.connect(
            self._shard.dsn,
            timeout=5,
            server_settings={"application_name": f"desk shard {self._shard.number}", "jit": "off"},
        )
        try:
            await connection.add_listener("price_jobs", lambda *_: self._wake.set())
            connection.add_termination_listener(lambda *_: self._wake.set())
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            self.active = True
            while True:
                self._wake.clear()
                await self._sleep(await self.publish(connection))
        finally:
            await let_go(connection)

    async def _sleep(self, seconds: float) -> None:
        # Not wait_for: in Python 3.11 it may lose a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def publish(self, connection: OwnConnection) -> float:
        """Publish what there is place for and what was lost; returns the seconds until a job may count as lost.

        Only the holder of the lock adds to what is out, so what was counted before the transaction still holds in it.
        """
        out, due_in_s = await price_jobs.out(connection)
        waiting = await price_jobs.anyone_waits(connection)
        free = {lane: terms.window - out[lane] for lane, terms in self._terms.items() if lane in waiting}
        if due_in_s == 0 or any(places > 0 for places in free.values()):
            due_in_s = min(terms.patience_s for terms in self._terms.values()) if due_in_s is None else due_in_s
            jobs, given_up = await self._publish(connection, free, lost=due_in_s == 0)
            self.published += len(jobs)
            if given_up:
                await self._give_up(given_up)
            if due_in_s == 0:
                due_in_s = (await price_jobs.out(connection))[1]
        return _SAFETY_LOOK_S if due_in_s is None else min(_SAFETY_LOOK_S, due_in_s + 0.01)

    async def _publish(
        self, connection: OwnConnection, free: Mapping[Lane, int], *, lost: bool
    ) -> tuple[list[PriceJob], list[PriceJob]]:
        """One transaction: returns the jobs that were published, and those that have been published often enough."""
        jobs: list[PriceJob] = []
        given_up: list[PriceJob] = []
        counts: Counter[tuple[str, str]] = Counter()
        async with connection.transaction():
            # A crash may cost the last transactions, whole ones: their jobs wait still, or are published twice.
            await connection.execute("SET LOCAL synchronous_commit = off")
            for lane, terms in self._terms.items():
                if lost:
                    again, too_often = await price_jobs.publish_lost(
                        connection, lane, TOPICS[lane].name, terms.patience_s, MOST_ATTEMPTS
                    )
                    jobs += again
                    given_up += too_often
                    counts[lane.value, "again"] += len(again)
                    counts[lane.value, "given_up"] += len(too_often)
                    if again:
                        log.warning("not answered, asked again", extra={"lane": lane.value, "jobs": len(again)})
                if free.get(lane, 0) > 0:
                    fresh = await price_jobs.publish_next(connection, lane, free[lane], terms.window, terms.patience_s)
                    jobs += fresh
                    counts[lane.value, "published"] += len(fresh)
            await outbox.add(connection, [_request(job) for job in jobs])
        for (lane_name, outcome), count in counts.items():
            if count:
                _counted.add(count, lane_name, outcome)
        return jobs, given_up

    async def _give_up(self, jobs: Sequence[PriceJob]) -> None:
        """Fail the prices of these jobs, as pricing itself would."""
        log.error("prices not answered", extra={"shard": self._shard.number, "jobs": len(jobs)})
        await handlers.take_prices(
            self._orders,
            self._shard,
            [
                PriceResult(
                    job_id=job.job_id,
                    subject_id=job.subject_id,
                    currency=_tariff(job.tariff).currency,
                    tariff_version=job.tariff,
                    result=NotPriced(NOT_ANSWERED),
                )
                for job in jobs
            ],
        )


def _request(job: PriceJob) -> outbox.Message:
    tariff: Tariff = _tariff(job.tariff)
    request = PriceRequest(
        job_id=job.job_id,
        subject_id=job.subject_id,
        account=job.account,
        specification=job.specification,
        tariff=tariff,
    )
    return outbox.message(TOPICS[job.lane], job.job_id, request, placed_by=job.subject_id, traceparent=job.traceparent)
