"""What is said of a process: how to start it, and who it is, in a way that a later process with its number is not."""

import asyncio
import errno
import logging
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

Kind = Literal["server", "service"]


@dataclass(frozen=True)
class Program:
    """How one server or service is started, known to be ready, and stopped.

    `prepare` is called before each start, in a thread; it may take seconds. Raises OSError,
    SubprocessError, places.Missing or setup.SetupFailed, and is then tried again like a program that died.
    `settle` is called again and again after the start: it raises while the program does not answer yet, and leaves it
    in the state that its users need (databases, topics, buckets). It is idempotent; afterwards it is `check`'s turn.
    `death_signal` is what the kernel sends when the supervisor dies. `aside`: the stack is ready without it.
    `nice`, 0 .. 19: who stands back when all want the processor at once (docs/decisions/0051-who-goes-first.md).
    """

    name: str
    kind: Kind
    port: int
    url: str
    command: Sequence[str]
    settle: Callable[[], Awaitable[None]]
    check: Callable[[], Awaitable[None]]
    prepare: Callable[[], None] = lambda: None
    account: tuple[int, int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_limit_s: float = 10.0
    death_signal: str = "KILL"
    aside: bool = False
    nice: int = 0

    def argv(self) -> list[str]:
        """The command, bound to the life of the thread that starts it, as the account it runs as.

        setpriv and not preexec_fn: changing the account clears a death signal that was set before it.
        """
        account = []
        if self.account is not None:
            account = [f"--reuid={self.account[0]}", f"--regid={self.account[1]}", "--clear-groups"]
        bound = ["setpriv", *account, "--pdeathsig", self.death_signal, "--"]
        return [*bound, "nice", "-n", str(self.nice), *self.command]


async def stand_back(leader: int, nice: int) -> None:
    """Let the session of `leader` stand back by `nice`, 0 .. 19, where the kernel shares the processor out among
    sessions first (sched(7), autogroup): there a niceness counts only within its own session. OSError is logged: all
    then goes on, only with equal shares."""
    for _ in range(20):
        try:
            Path(f"/proc/{leader}/autogroup").write_text(str(nice))
        except BlockingIOError:  # who is not root may ask once in a tenth of a second
            await asyncio.sleep(0.1)
        except (FileNotFoundError, ProcessLookupError):  # no such kernel, or the process is gone
            return
        except OSError as error:
            log.warning("process %d keeps an equal share of the processor: %s", leader, error)
            return
        else:
            return


def started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or only waits to be reaped."""
    try:
        # the command name, in brackets, may hold spaces and brackets
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the very process that had this number and start lives on."""
    return started_ticks(pid) == ticks


def send(pid: int, ticks: int, number: int) -> bool:
    """Signal a process if it is still the one that started at `ticks`; whether it was."""
    if not is_alive(pid, ticks):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end(pid: int, ticks: int, first: int, *, limit_s: float) -> None:
    """End a process: `first` a signal, SIGKILL after `limit_s`; returns when it is gone. Raises TimeoutError."""
    send(pid, ticks, first)
    if not wait_gone(pid, ticks, limit_s):
        send(pid, ticks, signal.SIGKILL)
        if not wait_gone(pid, ticks, 10):
            raise TimeoutError(f"process {pid} does not die")


def wait_gone(pid: int, ticks: int, limit_s: float) -> bool:
    """Wait at most `limit_s` for a process to be gone; whether it is."""
    deadline = time.monotonic() + limit_s
    while is_alive(pid, ticks):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end_group(leader: int) -> None:
    """SIGKILL what is left of the process group of a leader that has died."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with owners and modes; `target` appears whole or not at all, and is left alone when it is there."""
    if target.exists():
        return
    partial = target.with_name(target.name + ".partial")
    subprocess.run(["rm", "-rf", str(partial)], check=True)
    subprocess.run(["cp", "-a", str(source), str(partial)], check=True)
    partial.rename(target)
