"""W3C trace context: the `traceparent` that follows one order across HTTP, outbox and Kafka."""

import os
import random
import re
from contextvars import ContextVar

# Trace ids need to be unique, not secret: a generator seeded from the system, without a system call for each.
_random = random.Random(int.from_bytes(os.urandom(32)))
_VALID = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")

current: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The traceparent of what is being worked on now, for logs and for messages put into the outbox."""


def new_traceparent() -> str:
    """A fresh trace with a fresh span, not sampled."""
    bits = _random.getrandbits(192)
    return f"00-{bits >> 64:032x}-{bits & 0xFFFFFFFFFFFFFFFF:016x}-00"


def child_of(traceparent: str | None) -> str:
    """A new span in the given trace, or a new trace when it is absent or malformed."""
    if traceparent is None or not _VALID.match(traceparent):
        return new_traceparent()
    return f"{traceparent[:36]}{_random.getrandbits(64):016x}{traceparent[52:]}"


def trace_id() -> str | None:
    """The 32 hex digits of the current trace, or None outside any."""
    traceparent = current.get()
    return traceparent[3:35] if traceparent else None
