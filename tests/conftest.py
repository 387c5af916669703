"""One local stack for the whole test session: the real servers and all four services, started when first asked for."""

import os
from collections.abc import Iterator

import pytest

from lostwax.local.places import STACKS
from lostwax.local.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """All servers and services, empty at the start of the session and gone after it, whatever happens."""
    folder = STACKS / f"test-{os.getpid()}"
    started = Stack.start(folder, owned=True, fresh=True)
    try:
        yield started
    finally:
        started.down(remove=True)
