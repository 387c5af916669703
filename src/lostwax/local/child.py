"""One program kept running: started, watched, started again when it dies, stopped when asked."""

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lostwax.local import places, setup
from lostwax.local.processes import Program, end_group, send, stand_back, started_ticks
from lostwax.local.state import ProcessState, ProcessStatus

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 10.0
HEALTHY_AFTER_S = 30.0
SETTLE_EVERY_S, CHECK_EVERY_S = 0.05, 1.0
SETTLE_LIMIT_S, CHECK_LIMIT_S = 30.0, 3.0
LARGEST_LOG = 50 * 1024 * 1024


class Child:
    """Keeps one program in the state that was asked for last. All methods belong to the event loop's thread.

    That thread must be the process's main thread and live as long as it: the kernel ends the child with the thread.
    """

    def __init__(self, program: Program, logs: Path, changed: Callable[[], None]) -> None:
        self.program = program
        self.log_path = logs / f"{program.name}.log"
        self._changed = changed
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._unwanted.set()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._status = ProcessStatus(
            name=program.name,
            kind=program.kind,
            state="stopped",
            port=program.port,
            url=program.url,
            aside=program.aside,
        )
        if self.log_path.exists() and self.log_path.stat().st_size > LARGEST_LOG:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))

    @property
    def status(self) -> ProcessStatus:
        return self._status

    def start(self) -> None:
        """Ask for it to run; returns at once."""
        self._stopped.clear()
        self._unwanted.clear()
        self._wanted.set()

    async def ready(self) -> None:
        """Wait until it is ready, through as many restarts as that takes."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Stop it, with SIGKILL for it and its process group past the limit; returns when it is gone."""
        self._wanted.clear()
        self._unwanted.set()
        self._signal(self.program.stop_signal)
        try:
            async with asyncio.timeout(self.program.stop_limit_s):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("%s does not stop, killing it", self.program.name)
            if self._process is not None:
                end_group(self._process.pid)
            await self._stopped.wait()

    async def keep(self) -> None:
        """The life of the child; runs until cancelled, which leaves the program as it is."""
        delay = FIRST_DELAY_S
        while True:
            if self._unwanted.is_set():
                self._note("stopped", pid=None, ticks=None)
                self._stopped.set()
                await self._wanted.wait()
                delay = FIRST_DELAY_S
                continue  # it may have been unwanted again meanwhile
            healthy_s, trouble = await self._live_once()
            if self._unwanted.is_set():
                continue
            if healthy_s > HEALTHY_AFTER_S:
                delay = FIRST_DELAY_S
            log.warning("%s %s; again in %.1f s", self.program.name, trouble, delay)
            restarts = self._status.restarts + 1
            self._note("waiting", pid=None, ticks=None, restarts=restarts, trouble=trouble)
            try:
                async with asyncio.timeout(delay):
                    await self._unwanted.wait()
            except TimeoutError:
                delay = min(delay * 2, LONGEST_DELAY_S)

    async def _live_once(self) -> tuple[float, str]:
        """From start to death: for how long it was ready, in seconds, and why it is no more."""
        self._note("starting", pid=None, ticks=None)
        try:
            await asyncio.to_thread(self.program.prepare)
            with self.log_path.open("ab") as out:
                process = await asyncio.create_subprocess_exec(
                    *self.program.argv(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self.program.environment},
                    start_new_session=True,
                )
        except (OSError, subprocess.SubprocessError, places.Missing, setup.SetupFailed) as error:
            return 0.0, f"cannot start: {error}"
        self._process = process
        self._note("starting", pid=process.pid, ticks=started_ticks(process.pid), started_at=time.time())
        if self._unwanted.is_set():  # stop() came while there was no process to signal
            self._signal(self.program.stop_signal)
        watching = asyncio.create_task(self._watch(process))
        standing_back = asyncio.create_task(stand_back(process.pid, self.program.nice))
        code = await process.wait()
        watching.cancel()
        standing_back.cancel()
        seen, _ = await asyncio.gather(watching, standing_back, return_exceptions=True)
        if isinstance(seen, Exception):
            raise seen
        self._process = None
        self._ready.clear()
        end_group(process.pid)
        ready_since = self._ready_since
        self._ready_since = None
        healthy_s = 0.0 if ready_since is None else time.monotonic() - ready_since
        return healthy_s, f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    _ready_since: float | None = None

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Settle it, then ask every second whether it still answers. Not answering is shown, never a reason to kill.

        Ends with the process even where a library loses the cancellation (asyncio.wait_for of Python 3.11 does).
        """
        last = ""
        while not self._ready.is_set() and process.returncode is None:
            try:
                async with asyncio.timeout(SETTLE_LIMIT_S):
                    await self.program.settle()
            except Exception as error:  # noqa: BLE001 - whatever keeps it from being ready is shown, and tried again
                trouble = f"not ready: {type(error).__name__}: {error}"
                if trouble != last:
                    last = trouble
                    self._note("starting", trouble=trouble)
                await asyncio.sleep(SETTLE_EVERY_S)
            else:
                self._ready_since = time.monotonic()
                self._ready.set()
                self._note("ready", trouble="")
        while process.returncode is None:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                async with asyncio.timeout(CHECK_LIMIT_S):
                    await self.program.check()
            except Exception as error:  # noqa: BLE001 - as above
                self._note("unready", trouble=f"{type(error).__name__}: {error}")
            else:
                self._note("ready", trouble="")

    def _signal(self, number: int) -> None:
        status = self._status
        if self._process is not None and status.pid is not None and status.ticks is not None:
            send(status.pid, status.ticks, number)

    def _note(self, state: ProcessState, **changes: object) -> None:
        import msgspec

        status = msgspec.structs.replace(self._status, state=state, **changes)
        if status != self._status:
            self._status = status
            self._changed()
