"""W3C trace context, and spans: the `traceparent` that follows one order across HTTP, outbox, Kafka, S3 and database.

Whether a trace is sampled follows from its id alone, so that every service decides alike and nobody outside decides for
us. A span of a sampled trace is recorded; one that ends in an error is, sampled or not.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Literal

SUBJECT = "lostwax.subject"
"""Attribute of a span: the id of what it is about, an order first of all."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]

# Trace ids need to be unique, not secret: a generator seeded from the system, without a system call for each.
_random = random.Random(int.from_bytes(os.urandom(32)))
_VALID = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
_SHARE_BITS = 56
_threshold = 0
_sink: "Callable[[Span], None] | None" = None

current: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The traceparent of what is being worked on now, for logs and for messages put into the outbox."""

_subjects: ContextVar[Mapping[str, str] | None] = ContextVar("subjects", default=None)


class Span:
    """A finished piece of work. Times are nanoseconds since 1970; ids are hex digits as in a traceparent."""

    __slots__ = ("attributes", "ended_ns", "error", "kind", "links", "name", "parent_id", "span_id", "started_ns",
                 "trace_id")  # fmt: skip

    def __init__(
        self,
        name: str,
        kind: Kind,
        traceparent: str,
        parent: str | None,
        started_ns: int,
        ended_ns: int,
        attributes: Mapping[str, str | int | float],
        error: str | None = None,
        links: Iterable[str] = (),
    ) -> None:
        self.name, self.kind, self.started_ns, self.ended_ns = name, kind, started_ns, ended_ns
        self.trace_id, self.span_id = traceparent[3:35], traceparent[36:52]
        self.parent_id = parent[36:52] if parent and parent[3:35] == self.trace_id else ""
        self.attributes, self.error, self.links = attributes, error, tuple(links)


def configure(share: float, sink: "Callable[[Span], None] | None") -> None:
    """Sample this share (0 to 1) of all traces; `sink` takes finished spans and must not block."""
    global _threshold, _sink
    _threshold = round(share * (1 << _SHARE_BITS))
    _sink = sink


def _flags(trace_id: str) -> str:
    return "01" if int(trace_id[-14:], 16) < _threshold else "00"


def sampled(traceparent: str | None) -> bool:
    return traceparent is not None and traceparent.endswith("-01")


def new_traceparent() -> str:
    """A fresh trace with a fresh span."""
    bits = _random.getrandbits(192)
    trace_id = f"{bits >> 64:032x}"
    return f"00-{trace_id}-{bits & 0xFFFFFFFFFFFFFFFF:016x}-{_flags(trace_id)}"


def child_of(traceparent: str | None) -> str:
    """A new span in the given trace, or a new trace when it is absent or malformed."""
    if traceparent is None or not _VALID.match(traceparent):
        return new_traceparent()
    return f"{traceparent[:36]}{_random.getrandbits(64):016x}-{_flags(traceparent[3:35])}"


def trace_id() -> str | None:
    """The 32 hex digits of the current trace, or None outside any."""
    traceparent = current.get()
    return traceparent[3:35] if traceparent else None


def of(subject: str) -> str | None:
    """The traceparent of what is being worked on for this subject: of its own message in a batch, else the current."""
    subjects = _subjects.get()
    return (subjects.get(subject) if subjects else None) or current.get()


def record(span: Span) -> None:
    """Hand a finished span to the exporter, if there is one."""
    if _sink is not None:
        _sink(span)


class span:
    """`with span("measure", kind="internal", lane="quick"):` times a piece of work within the current trace.

    Everything inside is its child. Outside any trace nothing is recorded.
    """

    __slots__ = ("_attributes", "_kind", "_name", "_own", "_parent", "_started_ns", "_token")

    def __init__(self, name: str, kind: Kind = "internal", **attributes: str | int | float) -> None:
        self._name, self._kind, self._attributes = name, kind, attributes

    def __enter__(self) -> "span":
        self._parent = current.get()
        self._started_ns = time.time_ns()
        self._token = None
        self._own: str | None = None
        if self._parent is not None and self._parent.endswith("-01"):
            self._own = child_of(self._parent)
            self._token = current.set(self._own)
        return self

    def note(self, **attributes: str | int | float) -> None:
        """Attributes that are known only now."""
        self._attributes = {**self._attributes, **attributes}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.reset(self._token)
        own = self._own
        if error is not None and own is None and self._parent is not None and isinstance(error, Exception):
            own = child_of(self._parent)
        if own is not None:
            what = None if error is None else f"{type(error).__name__}: {error}"[:500]
            record(
                Span(
                    self._name, self._kind, own, self._parent, self._started_ns, time.time_ns(), self._attributes, what
                )
            )


class Batch:
    """Messages that are handled together, each in its own trace.

    While it is entered, `of(subject)` gives each message's own traceparent, and `current` the first one's. `finish`
    records a consumer's span for each message of a sampled trace, linked to the first one's, whose trace holds what
    the batch did together. A batch of none records nothing.
    """

    def __init__(self, messages: Iterable[tuple[str, str | None]]) -> None:
        """`messages`: subject and traceparent of each."""
        self._parents: list[tuple[str, str | None]] = []
        subjects: dict[str, str] = {}
        self._own: list[str] = []
        for subject, parent in messages:
            own = parent if parent is not None and not parent.endswith("-01") else child_of(parent)
            self._parents.append((subject, parent))
            self._own.append(own)
            subjects[subject] = own
        self._subjects = subjects
        self._started_ns = time.time_ns()

    def enter(self) -> None:
        """From now on, in this task."""
        current.set(self._own[0] if self._own else None)
        _subjects.set(self._subjects)

    def finish(self, name: str, error: BaseException | None = None, **attributes: str | int | float) -> None:
        """Record the spans. With an error the first message's is recorded, sampled or not."""
        if not self._own:
            return
        ended_ns = time.time_ns()
        what = None if error is None else f"{type(error).__name__}: {error}"[:500]
        first = self._own[0]
        for (subject, parent), own in zip(self._parents, self._own, strict=True):
            if own.endswith("-01"):
                links = (first,) if own is not first else ()
                about = {**attributes, SUBJECT: subject}
                record(Span(name, "consumer", own, parent, self._started_ns, ended_ns, about, what, links))
            elif what is not None and own is first:
                failed = child_of(own)
                record(Span(name, "consumer", failed, parent, self._started_ns, ended_ns, attributes, what))
