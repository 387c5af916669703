"""What the supervisor says of its processes, in `state.json` and over its control socket."""

from pathlib import Path
from typing import Literal

import msgspec

from lostwax.local.processes import Kind
from lostwax.local.setup import write_private

ProcessState = Literal["stopped", "starting", "ready", "unready", "waiting"]
"""`unready`: runs, has been ready, and does not answer now. `waiting`: died, and will be started again."""

Phase = Literal["starting", "ready", "stopping", "down"]


class ProcessStatus(msgspec.Struct, frozen=True):
    """One process. `pid` and `ticks` (its start, in clock ticks since boot) are None while it does not run.

    `started_at` is in seconds since 1970, `restarts` counts those that nobody asked for, `trouble` is the last reason.
    `aside`: the stack is ready without it.
    """

    name: str
    kind: Kind
    state: ProcessState
    port: int
    url: str
    pid: int | None = None
    ticks: int | None = None
    started_at: float | None = None
    restarts: int = 0
    trouble: str = ""
    aside: bool = False


class StackState(msgspec.Struct, frozen=True):
    """A whole stack. `pid` and `ticks` are the supervisor's; `socket` is where it listens for commands."""

    phase: Phase
    pid: int
    ticks: int
    boot: str
    socket: str
    overrides: dict[str, str]
    processes: list[ProcessStatus]


class Command(msgspec.Struct, frozen=True):
    """A line sent to the control socket. `name` is a process, for the three that take one."""

    do: Literal["status", "stop", "start", "restart", "down"]
    name: str = ""


class Answer(msgspec.Struct, frozen=True):
    """The line that comes back, when the command is carried out: the state then, or what was wrong with the command."""

    state: StackState | None = None
    error: str = ""


def boot_id() -> str:
    """Which boot of the machine this is: process numbers and start ticks mean nothing in another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(folder: Path, state: StackState) -> None:
    """Replace `state.json`, whole or not at all."""
    write_private(folder / "state.json", msgspec.json.encode(state).decode())


def read(folder: Path) -> StackState | None:
    """The last state written; None when there is none, or none that this version understands."""
    try:
        return msgspec.json.decode((folder / "state.json").read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
