"""Coalescing: while one flush runs, arrivals queue and go together in the next. No timer, so a lone row waits for
nobody."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from lostwax.contracts.metrics import FLUSH_ROWS
from lostwax.kit import metrics, tracing

log = logging.getLogger(__name__)

_flush_rows = metrics.histogram(FLUSH_ROWS)

Row = TypeVar("Row")
Answer = TypeVar("Answer")


class Overloaded(Exception):
    """The queue is full. Nothing was written; try again after `retry_after_s`."""

    retry_after_s = 1


class Coalescer(Generic[Row, Answer]):
    """Collects rows of concurrent callers into flushes of at most `max_rows`, at most `max_waiting` rows waiting.

    `flush` writes its rows in one transaction and returns one answer for each row, in their order; it must sort what
    it writes by key (unsorted batches deadlock). When a flush of several rows fails, each is tried alone, so that a
    bad row hurts only itself. `finish` is done between a flush and its answers; the next flush does not wait for it. It
    must not fail.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Row]], Awaitable[Sequence[Answer]]],
        *,
        finish: Callable[[Sequence[Row], Sequence[Answer]], Awaitable[None]] | None = None,
        max_rows: int = 256,
        max_waiting: int = 2048,
        flushers: int = 2,
    ) -> None:
        self._flush = flush
        self._finish = finish
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._idle_flushers = flushers
        self._waiting: list[tuple[Row, asyncio.Future[Answer]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, row: Row) -> Answer:
        """Write one row and return its answer. Raises Overloaded at once when too many wait, or the row's own error."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._idle_flushers:
            self._idle_flushers -= 1
            self._start(self._run())
        with tracing.span("store together"):
            return await future

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until everything submitted so far has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        # A flusher lives only while there is work, so an idle service has no task to wake.
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[: self._max_rows], self._waiting[self._max_rows :]
                await self._settle(taken)
        finally:
            self._idle_flushers += 1

    async def _settle(self, taken: Sequence[tuple[Row, asyncio.Future[Answer]]]) -> None:
        _flush_rows.record(len(taken))
        try:
            answers = await self._flush([row for row, _ in taken])
        except Exception as error:  # noqa: BLE001 - handed to the callers whose rows these are
            if len(taken) == 1:
                _fail(taken[0][1], error)
                return
            log.warning("flush failed, trying its rows alone", extra={"rows": len(taken), "error": repr(error)})
            for pair in taken:
                await self._settle([pair])
            return
        if self._finish is None:
            _answer(taken, answers)
        else:
            self._start(self._finish_and_answer(taken, answers))

    async def _finish_and_answer(
        self, taken: Sequence[tuple[Row, "asyncio.Future[Answer]"]], answers: Sequence[Answer]
    ) -> None:
        assert self._finish is not None
        try:
            await self._finish([row for row, _ in taken], answers)
        except Exception:
            # The rows are written: whoever waits must hear so all the same.
            log.exception("could not finish a flush")
        _answer(taken, answers)


def _answer(taken: Sequence[tuple[Row, "asyncio.Future[Answer]"]], answers: Sequence[Answer]) -> None:
    for (_, future), answer in zip(taken, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _fail(future: "asyncio.Future[Answer]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
