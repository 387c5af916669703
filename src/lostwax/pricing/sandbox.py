"""Measures files that nobody vouches for, where they can hurt nobody.

A single-threaded process, `python -m lostwax.pricing.sandbox`, loads and warms the kernels once. For each job it forks
a child with limits on memory, time, file size and open files, which maps the file, measures it and writes one JSON line
into a pipe. A child that runs away or dies costs its job a typed failure; the process itself dying costs a restart.

This module is imported by the service, so it must not import numba: only `_serve` does.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import os
import resource
import selectors
import signal
import sys
import time
import traceback
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import NoReturn

import msgspec

from lostwax.contracts.orders import Geometry, PriceFailure
from lostwax.pricing.measure import ModelUnreadable

MEGABYTE = 1 << 20
_LONGEST_ANSWER = 32 * 1024
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "NUMBA_CACHE_DIR")
"""The only environment variables the sandbox sees: a hostile file must find no secrets there."""

_CRASHED = PriceFailure(
    "crashed", "The model made our measuring program stop. We have kept it and are looking into it.", "operator"
)
_TOO_COMPLEX = PriceFailure(
    "too_complex",
    "Measuring the model takes more time or memory than we allow. Please reduce its triangles and export it again.",
    "customer",
)


class Limits(msgspec.Struct, frozen=True):
    """Of one job. Address space: what the warm process has, plus `file_times` the file, plus `extra_mb`."""

    cpu_s: int = 30
    wall_s: float = 120.0
    extra_mb: int = 512
    file_times: int = 4
    written_bytes: int = 1 * MEGABYTE
    open_files: int = 64


class _Job(msgspec.Struct, frozen=True):
    """`path` None: nobody waits for that job any more."""

    job: int
    path: str | None = None
    nice: int = 0


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Neither geometry nor failure, as job 0: ready for work."""

    job: int
    geometry: Geometry | None = None
    failure: PriceFailure | None = None


class _Died(Exception):
    """The warm process ended while a job was in its hands."""


class Sandbox:
    """The service's end. One event loop; any number of callers. `jobs` are measured at once, the rest wait their turn.

    Starts itself again, at the next job, when the warm process has died.
    """

    def __init__(self, jobs: int = 2, limits: Limits | None = None) -> None:
        self._turn = asyncio.Semaphore(jobs)
        self._limits = limits or Limits()
        self._starting = asyncio.Lock()
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._last_job = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the warm process, or None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Returns when the kernels are warm: 0.5 s, or 30 s when they have to be compiled first.

        Raises RuntimeError when the process ends instead.
        """
        async with self._starting:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            if self._process is not None:
                return
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lostwax.pricing.sandbox",
                msgspec.json.encode(self._limits).decode(),
                stdin=PIPE,
                stdout=PIPE,
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},
            )
            assert process.stdout
            try:
                ready = await process.stdout.readline()
            except asyncio.CancelledError:
                process.kill()
                raise
            if not ready:
                raise RuntimeError(f"the pricing sandbox did not start (exit status {await process.wait()})")
            self._process = process
            self._reader = asyncio.create_task(self._read(process), name="pricing sandbox")

    async def measure(self, path: str | os.PathLike[str], *, nice: int = 0) -> Geometry:
        """Geometry of the file at `path`, as drawn; `nice` 0 .. 19 lowers the priority at which it is measured.

        Raises ModelUnreadable: what is wrong with the file, or code `too_complex` (it exceeded its limits) or `crashed`
        (measuring it died, twice if it took the process along)."""
        async with self._turn:
            for _ in range(2):
                await self.start()
                try:
                    answer = await self._ask(os.path.abspath(path), nice)
                except _Died:
                    continue
                if answer.geometry is not None:
                    return answer.geometry
                failure = answer.failure or _CRASHED
                raise ModelUnreadable(failure.code, failure.detail, failure.mended_by)
            raise ModelUnreadable(_CRASHED.code, _CRASHED.detail, _CRASHED.mended_by)

    async def close(self) -> None:
        """Ends the warm process and its children. Jobs still waiting raise ModelUnreadable or RuntimeError."""
        async with self._starting:
            self._closed = True
            if self._process is None or self._reader is None:
                return
            process, reader = self._process, self._reader
            assert process.stdin
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()
            await reader

    async def _ask(self, path: str, nice: int) -> _Answer:
        process = self._process
        if process is None:
            raise _Died
        assert process.stdin
        self._last_job += 1
        job = self._last_job
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[job] = future
        try:
            process.stdin.write(msgspec.json.encode(_Job(job, path, nice)) + b"\n")
            return await future
        except asyncio.CancelledError:
            if process.returncode is None and not process.stdin.is_closing():
                process.stdin.write(msgspec.json.encode(_Job(job)) + b"\n")
            raise
        finally:
            del self._waiting[job]

    async def _read(self, process: Process) -> None:
        assert process.stdout
        while line := await process.stdout.readline():
            answer = msgspec.json.decode(line, type=_Answer)
            future = self._waiting.get(answer.job)
            if future is not None and not future.done():
                future.set_result(answer)
        self._process = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_Died())
        await process.wait()


class _Child(msgspec.Struct):
    job: int
    pid: int
    kill_at: float
    answer: bytes = b""


def _serve(limits: Limits) -> None:
    """Forks a child for each job line on stdin, writes its answer to stdout; ends with its children at end of stdin."""
    from lostwax.pricing import mesh

    answers = os.dup(1)
    # Whatever a library may print must not be taken for an answer.
    os.dup2(2, 1)
    # Compiling leaves 150 MB behind that every fork would have to carry: a child compiles into numba's cache, and this
    # process only loads from there.
    if (compiler := os.fork()) == 0:
        mesh.warm()
        os._exit(0)
    os.waitpid(compiler, 0)
    mesh.warm()
    # Children share these pages; a collection in one of them would copy them all.
    gc.disable()
    gc.freeze()
    base = _address_space()
    children: dict[int, _Child] = {}
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        os.write(answers, msgspec.json.encode(_Answer(0)) + b"\n")
        while True:
            now = time.monotonic()
            nearest = min((child.kill_at for child in children.values()), default=None)
            for key, _ in selector.select(None if nearest is None else max(0.0, nearest - now)):
                fd = key.fd
                if fd == 0:
                    received = os.read(0, 65536)
                    if not received:
                        _end_all(children)
                        return
                    *lines, pending = (pending + received).split(b"\n")
                    for line in lines:
                        asked = msgspec.json.decode(line, type=_Job)
                        if asked.path is None:
                            _kill([child for child in children.values() if child.job == asked.job])
                        else:
                            reading, child = _fork(asked, base, limits, answers)
                            children[reading] = child
                            selector.register(reading, selectors.EVENT_READ)
                    continue
                child = children[fd]
                received = os.read(fd, 65536)
                child.answer += received
                if received and len(child.answer) <= _LONGEST_ANSWER:
                    continue
                selector.unregister(fd)
                os.close(fd)
                del children[fd]
                os.write(answers, msgspec.json.encode(_verdict(child)) + b"\n")
            _kill([child for child in children.values() if child.kill_at <= time.monotonic()])


def _fork(asked: _Job, base: int, limits: Limits, answers: int) -> tuple[int, _Child]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.close(answers)
        os.close(0)
        _work(asked, base, limits, writing)
    os.close(writing)
    return reading, _Child(asked.job, pid, time.monotonic() + limits.wall_s)


def _work(asked: _Job, base: int, limits: Limits, writing: int) -> NoReturn:
    """The child: measures one file within its limits and exits, 0 when it could answer."""
    status = 1
    try:
        from lostwax.pricing import mesh

        _die_with_parent()
        job, path = asked.job, str(asked.path)
        os.nice(asked.nice)
        try:
            size = Path(path).stat().st_size
            if base:
                room = base + limits.file_times * size + limits.extra_mb * MEGABYTE
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
            resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.written_bytes, limits.written_bytes))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits.open_files, limits.open_files))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            answer = _Answer(job, geometry=mesh.measure_file(path))
        except ModelUnreadable as unreadable:
            answer = _Answer(job, failure=unreadable.failure)
        except MemoryError:
            answer = _Answer(job, failure=_TOO_COMPLEX)
        except OSError as error:
            unopened = PriceFailure("not_found", f"The model's file cannot be opened: {error.strerror}", "operator")
            answer = _Answer(job, failure=_TOO_COMPLEX if error.errno == errno.ENOMEM else unopened)
        os.write(writing, msgspec.json.encode(answer))
        status = 0
    finally:
        if status:
            traceback.print_exc()
        # Never back into the code of the process that was forked.
        os._exit(status)


def _verdict(child: _Child) -> _Answer:
    """Reaps a child that has closed its pipe (or talks too much) and says what became of its job."""
    if len(child.answer) > _LONGEST_ANSWER:
        _kill([child])
    _, status = os.waitpid(child.pid, 0)
    if os.WIFSIGNALED(status):
        # SIGKILL: by us for its time, or by the kernel for its memory.
        spent = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return _Answer(child.job, failure=_TOO_COMPLEX if spent else _CRASHED)
    if os.WEXITSTATUS(status) == 0:
        with contextlib.suppress(msgspec.DecodeError):
            answer = msgspec.json.decode(child.answer, type=_Answer)
            return _Answer(child.job, answer.geometry, answer.failure)
    return _Answer(child.job, failure=_CRASHED)


def _kill(children: list[_Child]) -> None:
    for child in children:
        os.kill(child.pid, signal.SIGKILL)


def _end_all(children: dict[int, _Child]) -> None:
    _kill(list(children.values()))
    for child in children.values():
        os.waitpid(child.pid, 0)


def _address_space() -> int:
    """Bytes of address space in use, or 0 where the system does not say: then its limit is not set either."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[0]) * resource.getpagesize()


def _die_with_parent() -> None:
    """On Linux, has the kernel kill this child should the warm process die."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    # A group of its own: a Ctrl-C is for the service, which then closes its sandbox. But not a session, for among
    # sessions the kernel may share out the processor anew.
    os.setpgid(0, 0)
    _serve(msgspec.json.decode(sys.argv[1], type=Limits) if len(sys.argv) > 1 else Limits())
