"""A stack of its own for tests that kill services and tamper with databases."""

import os
from collections.abc import Iterator

import pytest
from tests.builders import wait_all_read

from lostwax.audit.sources import Databases
from lostwax.cli.audit import databases_of
from lostwax.local.places import STACKS
from lostwax.local.stack import Stack


@pytest.fixture(scope="package")
def rough_stack() -> Iterator[Stack]:
    """All services and servers but OpenSearch, for rough treatment; gone afterwards."""
    without = ("opensearch",)
    started = Stack.start(STACKS / f"test-rough-{os.getpid()}", owned=True, fresh=True, without=without)
    try:
        wait_all_read(started)
        yield started
    finally:
        started.down(remove=True)


@pytest.fixture(scope="package")
def databases(rough_stack: Stack) -> Databases:
    return databases_of(rough_stack)
