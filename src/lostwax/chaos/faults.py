"""What can be broken, for how long, and which of it is broken in a run. Pure."""

import random
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

KILLS = 3
SERVER_STOPPED_S, SERVICE_STOPPED_S = 60.0, 20.0
SLOW_S, CUT_S, HALF_OPEN_S, FULL_S = 30.0, 30.0, 30.0, 20.0

AROUND_A_FAULT_S = 15.0
"""About how long waiting before and recovering after a fault takes, in seconds, for planning only."""


class Kind(StrEnum):
    """A way to hurt something."""

    KILL = "kill"
    STOP = "stop"
    SLOW = "slow"
    CUT = "cut"
    HALF_OPEN = "half-open"
    FULL = "full"


MEANING = {
    Kind.KILL: "kill -9; the supervisor starts it again",
    Kind.STOP: "SIGSTOP for it and all its children, then SIGCONT",
    Kind.SLOW: "500 ms later in each direction on every connection to it",
    Kind.CUT: "connections to it closed, new ones refused",
    Kind.HALF_OPEN: "connections to it stay, and nothing comes through in either direction",
    Kind.FULL: "its disk has no byte left",
}


class Fault(msgspec.Struct, frozen=True):
    """One thing done to one process, held for `seconds` (a kill: not at all)."""

    kind: Kind
    target: str
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}"


def matrix(services: Sequence[str], servers: Sequence[str], small_disk: str | None) -> list[Fault]:
    """Everything that a whole run does. `small_disk`: the server whose disk can be full, None when none can be."""
    everything = (*services, *servers)
    faults = [Fault(Kind.KILL, name, 0) for name in everything for _ in range(KILLS)]
    faults += [Fault(Kind.STOP, name, SERVICE_STOPPED_S) for name in services]
    faults += [Fault(Kind.STOP, name, SERVER_STOPPED_S) for name in servers]
    for kind, seconds in ((Kind.SLOW, SLOW_S), (Kind.CUT, CUT_S), (Kind.HALF_OPEN, HALF_OPEN_S)):
        faults += [Fault(kind, name, seconds) for name in servers]
    if small_disk is not None:
        faults.append(Fault(Kind.FULL, small_disk, FULL_S))
    return faults


def only(faults: Iterable[Fault], wanted: Sequence[str]) -> list[Fault]:
    """Those whose name contains one of `wanted`; all when nothing is wanted."""
    return [fault for fault in faults if not wanted or any(word in fault.name for word in wanted)]


def shortened(faults: Iterable[Fault], longest_s: float) -> list[Fault]:
    """The same, none held for more than `longest_s` seconds."""
    return [msgspec.structs.replace(fault, seconds=min(fault.seconds, longest_s)) for fault in faults]


def plan(faults: Sequence[Fault], seed: int, seconds: float | None, around_s: float = AROUND_A_FAULT_S) -> list[Fault]:
    """`faults` in an order of the seed's. With `seconds`: one of each kind first, then as many as about fit, and never
    none; each is reckoned with `around_s` seconds beside its own."""
    order = list(faults)
    random.Random(seed).shuffle(order)
    if seconds is None:
        return order
    first: dict[Kind, Fault] = {}
    for fault in order:
        first.setdefault(fault.kind, fault)
    rest = list(order)
    for fault in first.values():
        rest.remove(fault)
    planned: list[Fault] = []
    left = seconds
    for fault in (*sorted(first.values(), key=lambda f: f.seconds), *rest):
        cost = fault.seconds + around_s
        if planned and cost > left:
            continue
        planned.append(fault)
        left -= cost
    return planned
