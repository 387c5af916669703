"""Orders at a steady rate, by the demo's robots, and what their clients felt meanwhile."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from lostwax.audit.journal import Journal
from lostwax.demo.robots import Partner, RobotFailed
from lostwax.demo.run import Cast, admit_cast
from lostwax.local.stack import Stack
from lostwax.samples import Sample, generate

MODELS = 8
STANDING_SHARE = 0.5
"""The other orders wait for their partner to accept the price: so some are un-approved at any time."""

UNDER_WAY_AT_MOST = 200
"""So many orders wait for their 202 at once; a door that is shut longer gets no more, as from sensible partners."""

LOOK_EVERY_S = 2.0
OPERATORS, REST_S = 2, 0.5


class Felt(msgspec.Struct):
    """What partners felt in a span of time: orders accepted, 503 answers, requests without an answer, the longest that
    one request took to be answered with 202, in seconds, and answers that say that something broke (5xx but 503)."""

    accepted: int = 0
    not_now: int = 0
    unanswered: int = 0
    longest_s: float = 0.0
    broken: int = 0


class Load:
    """Robots that go on whatever they are told; what they should never hear is kept in `complaints`."""

    def __init__(self, rate: float, seed: int) -> None:
        self.rate = rate
        self._chance = random.Random(seed)
        self._seed = seed
        self._under_way: set[asyncio.Task[None]] = set()
        self.felt = Felt()
        self.complaints: list[str] = []
        self._cast: Cast | None = None
        self._placing: asyncio.Task[None] | None = None
        self._playing: list[asyncio.Task[None]] = []

    async def begin(self, stack: Stack, folder: Path, journal: Journal, resources: AsyncExitStack) -> None:
        """Let everybody in and begin."""
        samples = await asyncio.to_thread(generate, folder / "models", MODELS, self._seed)
        cast = self._cast = await admit_cast(
            stack, journal, resources, self._seed, rework_share=0.03, standing_share=STANDING_SHARE, witness=self._see
        )
        self._placing = asyncio.create_task(self._place(cast.partners, samples))
        works: list[Callable[[], Awaitable[None]]] = [
            *(lambda p=p: p.look_after_orders(LOOK_EVERY_S) for p in cast.partners),
            *(lambda o=o: o.work(REST_S, REST_S) for o in cast.operators[:OPERATORS]),
            lambda: cast.seller.work(LOOK_EVERY_S),
        ]
        self._playing = [asyncio.create_task(self._persist(work)) for work in works]

    @property
    def accepted(self) -> int:
        """Orders that were acknowledged so far."""
        return 0 if self._cast is None else sum(len(partner.accepted) for partner in self._cast.partners)

    @property
    def key(self) -> str:
        """A partner's key, for whoever asks beside the robots."""
        assert self._cast is not None
        return self._cast.key

    async def stop_placing(self, limit_s: float) -> None:
        """Place no more; what is under way gets `limit_s` seconds to be answered."""
        if self._placing is not None:
            self._placing.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=limit_s)
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def end(self) -> None:
        """Send everybody home."""
        for task in (*self._playing, *([] if self._placing is None else [self._placing])):
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    def _see(self, method: str, path: str, status: int | None, seconds: float) -> None:
        if status is None:
            self.felt.unanswered += 1
        elif status == 503:
            self.felt.not_now += 1
        elif status >= 500:
            self.felt.broken += 1
        if (method, path, status) == ("POST", "/v1/orders", 202):
            self.felt.accepted += 1
            self.felt.longest_s = max(self.felt.longest_s, seconds)

    async def _place(self, partners: list[Partner], samples: list[Sample]) -> None:
        next_at = time.monotonic()
        number = 0
        while True:
            next_at += 1 / self.rate
            await asyncio.sleep(next_at - time.monotonic())
            if len(self._under_way) >= UNDER_WAY_AT_MOST:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                next_at = time.monotonic()
            partner, sample = partners[number % len(partners)], samples[number % len(samples)]
            work = self._order(partner, sample, f"chaos-{self._seed}-{number}", random.Random(self._chance.random()))
            task = asyncio.create_task(work)
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            number += 1

    async def _order(self, partner: Partner, sample: Sample, submission: str, chance: random.Random) -> None:
        try:
            await partner.order(sample, submission, chance)
        except RobotFailed as told:
            self.complaints.append(str(told))

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except RobotFailed as told:
                self.complaints.append(str(told))
                await asyncio.sleep(LOOK_EVERY_S)
