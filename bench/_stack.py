"""A stack for one benchmark: fresh, as production is set, gone afterwards."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lostwax.local.places import STACKS
from lostwax.local.stack import AS_IN_PRODUCTION, Stack, StackFailed

_ASIDE_WITHIN_S = 120


@contextmanager
def fresh_stack(*services: str, settled: bool = True) -> Iterator[Stack]:
    """All servers, and these services (none named: all of them). `settled`: what nothing waits for (OpenSearch,
    Connect) has started, too, so that its start takes no part in what is measured."""
    folder = STACKS / f"bench-{os.getpid()}"
    with Stack.start(folder, owned=True, fresh=True, services=services or None, overrides=AS_IN_PRODUCTION) as stack:
        try:
            if settled:
                _settle(stack)
            yield stack
        finally:
            stack.down(remove=True)


def _settle(stack: Stack) -> None:
    for process in stack.status():
        if process.aside and process.state != "stopped":
            try:
                stack.wait_ready(process.name, _ASIDE_WITHIN_S)
            except StackFailed as error:
                print(f"without {process.name}: {str(error).splitlines()[0]}", file=sys.stderr)
