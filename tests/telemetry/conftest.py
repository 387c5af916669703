"""One stack with OpenSearch and the telemetry service for the tests of this package."""

import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.builders import wait_all_read
from tests.telemetry.receiver import Receiver

from lostwax.local.places import STACKS
from lostwax.local.services import SPINE
from lostwax.local.stack import Stack
from lostwax.telemetry import indices
from lostwax.telemetry.clients import OpenSearch

OPENSEARCH_START_S = 180.0


@pytest.fixture(scope="package")
def pager() -> Iterator[Receiver]:
    """Whom the stack tells of alerts."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="package")
def seen(request: pytest.FixtureRequest, pager: Receiver) -> Iterator[Stack]:
    """All that an order passes through, with telemetry and OpenSearch looking on."""
    folder = STACKS / f"test-seen-{os.getpid()}"
    told = {"URL": pager.url, "SECRET": pager.secret, "EVERY_S": "1"}
    told = {f"telemetry.LOSTWAX_ALERTS_{name}": value for name, value in told.items()}
    started = Stack.start(folder, owned=True, fresh=True, services=[*SPINE, "telemetry"], overrides=told)
    try:
        started.wait_ready("opensearch", OPENSEARCH_START_S)
        wait_all_read(started)
        _wait_prepared(started.url("opensearch"))
        yield started
    finally:
        started.down(remove=True)
        if not request.session.testsfailed:
            shutil.rmtree(folder, ignore_errors=True)


def _wait_prepared(url: str) -> None:
    """Until the telemetry service has made its streams."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/{indices.METRICS.name}").status_code != 200:
        assert time.monotonic() < deadline, "no streams"
        time.sleep(0.2)


@pytest.fixture
async def search(seen: Stack) -> AsyncIterator[OpenSearch]:
    """The stack's OpenSearch."""
    client = OpenSearch(seen.url("opensearch"))
    yield client
    await client.close()
