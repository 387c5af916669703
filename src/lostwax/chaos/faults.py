"""What can be broken, for how long, and which of it is broken in a run. Pure."""

import random
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

KILLS = 3
SERVER_STOPPED_S, SERVICE_STOPPED_S = 60.0, 20.0
SLOW_S, CUT_S, HALF_OPEN_S, FULL_S = 30.0, 30.0, 30.0, 20.0

AROUND_A_FAULT_S, AROUND_AT_LEAST_S = 15.0, 3.0
"""About how long waiting before and recovering after a fault takes, in seconds, for planning only; after a short one it
is less."""

SHORTEST_HOLD_S = 1.0
"""Held for less, a fault may not be felt."""


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
    Kind.FULL: "its disk has no byte left, until somebody was answered 503",
}


class Fault(msgspec.Struct, frozen=True):
    """One thing done to one process, held for `seconds` (a kill: not at all)."""

    kind: Kind
    target: str
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}"


def matrix(
    services: Sequence[str], servers: Sequence[str], proxied: Sequence[str], small_disks: Sequence[str]
) -> list[Fault]:
    """Everything that a whole run does. `proxied`: what connections can be disturbed to, `small_disks`: the servers
    whose disk can be full."""
    everything = (*services, *servers)
    faults = [Fault(Kind.KILL, name, 0) for name in everything for _ in range(KILLS)]
    faults += [Fault(Kind.STOP, name, SERVICE_STOPPED_S) for name in services]
    faults += [Fault(Kind.STOP, name, SERVER_STOPPED_S) for name in servers]
    for kind, seconds in ((Kind.SLOW, SLOW_S), (Kind.CUT, CUT_S), (Kind.HALF_OPEN, HALF_OPEN_S)):
        faults += [Fault(kind, name, seconds) for name in proxied]
    faults += [Fault(Kind.FULL, name, FULL_S) for name in small_disks]
    return faults


def only(faults: Iterable[Fault], wanted: Sequence[str]) -> list[Fault]:
    """Those whose name contains one of `wanted`; all when nothing is wanted."""
    return [fault for fault in faults if not wanted or any(word in fault.name for word in wanted)]


def shortened(faults: Iterable[Fault], longest_s: float) -> list[Fault]:
    """The same, none held for more than `longest_s` seconds."""
    return [msgspec.structs.replace(fault, seconds=min(fault.seconds, longest_s)) for fault in faults]


def around_s(hold_s: float | None) -> float:
    """About how long waiting and recovering take beside a fault that is held for at most `hold_s` seconds."""
    return AROUND_A_FAULT_S if hold_s is None else min(AROUND_A_FAULT_S, AROUND_AT_LEAST_S + hold_s)


def hold_that_fits(faults: Sequence[Fault], seconds: float) -> float | None:
    """The longest that faults may be held so that one of each kind fits into so many seconds, whichever the seed
    takes; None when they fit as they are. Less than SHORTEST_HOLD_S: they do not fit."""
    longest: dict[Kind, float] = {}
    for fault in faults:
        longest[fault.kind] = max(longest.get(fault.kind, 0.0), fault.seconds)
    if sum(longest.values()) + len(longest) * AROUND_A_FAULT_S <= seconds:
        return None
    for tenths in range(int(10 * max(longest.values())), 0, -1):
        hold_s = tenths / 10
        if sum(min(s, hold_s) for s in longest.values()) + len(longest) * around_s(hold_s) <= seconds:
            return hold_s
    return 0.0


def plan(faults: Sequence[Fault], seed: int, seconds: float | None, around: float = AROUND_A_FAULT_S) -> list[Fault]:
    """`faults` in an order of the seed's. With `seconds`: one of each kind first, then as many as about fit, and never
    none; each is reckoned with `around` seconds beside its own."""
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
        cost = fault.seconds + around
        if planned and cost > left:
            continue
        planned.append(fault)
        left -= cost
    return planned
