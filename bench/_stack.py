"""A stack for one benchmark: fresh, as production is set, gone afterwards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lostwax.local.places import STACKS
from lostwax.local.stack import Stack

_AS_IN_PRODUCTION = {"LOSTWAX_TRACES_SHARE": "0.1"}


@contextmanager
def fresh_stack(*services: str) -> Iterator[Stack]:
    """All servers, and these services (none named: all of them)."""
    folder = STACKS / f"bench-{os.getpid()}"
    with Stack.start(folder, owned=True, fresh=True, services=services or None, overrides=_AS_IN_PRODUCTION) as stack:
        try:
            yield stack
        finally:
            stack.down(remove=True)
