"""The warehouse built anew: forgotten, then filled from new copies of every captured table.

New copies rather than the topics from their beginning: topics keep a week, the databases everything.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from lostwax.kit.rebuilding import RebuildView
from lostwax.reporting.capture import Watcher, copy_anew
from lostwax.reporting.capture_clients import DATABASE_AWAY, ConnectAway
from lostwax.reporting.capture_domain import Source
from lostwax.reporting.warehouse import Warehouse, WarehouseAway
from lostwax.reporting.worker import Written

log = logging.getLogger(__name__)

_AWAY: tuple[type[BaseException], ...] = (ConnectAway, WarehouseAway, *DATABASE_AWAY)
_AGAIN_S, _GIVEN_UP_S = 5.0, 60.0
_LOOK_S = 0.5
_QUIET_S = 6.0
"""A copy is over when nothing of it has come for so long: longer than the watcher takes to look anew."""


class NothingCaptured(Exception):
    """Nothing would come back."""


class Rebuilding:
    """Builds anew when asked, once at a time. What was asked is forgotten with the process: then it is asked again, and
    whatever had been done by then is no harm."""

    def __init__(
        self,
        watched: Sequence[Source],
        watcher: Watcher,
        warehouse: Warehouse,
        written: Written,
        delay_s: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._watched, self._watcher, self._warehouse = watched, watcher, warehouse
        self._written, self._delay_s, self._now = written, delay_s, now
        self._asked = asyncio.Event()
        self._began: float | None = None
        self._rows_before = 0
        self._built_at: datetime | None = None
        self._detail: str | None = None

    def ask(self) -> datetime:
        """When it was asked for: done once `view` tells of a `built_at` of then or later, given up when it is `idle`.
        Raises NothingCaptured."""
        if not self._watched:
            raise NothingCaptured
        asked_at = self._now()
        self._asked.set()
        return asked_at

    def view(self) -> RebuildView:
        if self._began is None and not self._asked.is_set():
            state = "idle" if self._built_at is None or self._detail else "done"
            return RebuildView(state, built_at=self._built_at, detail=self._detail)
        if self._began is None:
            return RebuildView("waiting", built_at=self._built_at, detail=self._detail)
        rows = self._written.rows - self._rows_before
        return RebuildView("building", rows, 0, time.monotonic() - self._began, self._built_at, f"{rows} rows so far")

    async def run(self) -> None:
        """Until cancelled."""
        first_try: float | None = None
        while True:
            await self._asked.wait()
            as_of = self._now()
            try:
                await copy_anew(self._watcher.connect_url, self._watched, self._warehouse.forget)
            except _AWAY as error:
                self._detail = f"not begun: {type(error).__name__}: {error}"
                if first_try is None:
                    first_try = time.monotonic()
                    log.warning("the warehouse cannot be built anew yet", extra={"error": repr(error)})
                if time.monotonic() - first_try > _GIVEN_UP_S:
                    first_try = None
                    self._asked.clear()
                await asyncio.sleep(_AGAIN_S)
                continue
            first_try = None
            # Whoever asks from here on wants a later copy.
            self._asked.clear()
            self._detail = None
            self._rows_before, self._began = self._written.rows, time.monotonic()
            log.warning("the warehouse was forgotten, and is filled from new copies")
            self._watcher.reports.clear()
            while not self._is_filled():  # noqa: ASYNC110 - what is waited for happens elsewhere
                await asyncio.sleep(_LOOK_S)
            rows = self._written.rows - self._rows_before
            log.warning("the warehouse is built anew", extra={"rows": rows, "s": time.monotonic() - self._began})
            self._began, self._built_at = None, as_of

    def _is_filled(self) -> bool:
        assert self._began is not None
        reports = [self._watcher.reports.get(source.name) for source in self._watched]
        stream = all(report is not None and report.state == "streaming" for report in reports)
        quiet_s = time.monotonic() - max(self._began, self._written.copied_at)
        return stream and quiet_s > _QUIET_S and self._delay_s() < _QUIET_S
