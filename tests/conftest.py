"""One local stack for the whole test session: the real servers and all services, started when first asked for."""

import asyncio
import os
import shutil
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, async_playwright
from xdist.scheduler import LoadScopeScheduling

from lostwax.contracts.ids import new_id
from lostwax.kit.postgres import migrate
from lostwax.local.places import POSTGRES_SUPERUSER, PROJECT, STACKS
from lostwax.local.stack import Stack

if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))  # `from tests.builders import ..`, however pytest was started

from tests.browser.visitors import Visitors, a_browser
from tests.builders import Operator, Partner, a_partner, an_operator, wait_all_read

FAILED = pytest.StashKey[bool]()

TASKS_END_WITHIN_S = 20.0


def end_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio does at the end of a loop, but not for ever: a task that a test left and that missed its
    cancellation (it came just when what it waited for was done) is cancelled again. Raises for those that never end,
    with where they stand; the whole run hung on one, once."""
    left = asyncio.all_tasks(loop)
    deadline = time.monotonic() + TASKS_END_WITHIN_S
    tried = 0
    while left and time.monotonic() < deadline:
        for task in left:
            task.cancel()
            if tried == 1:
                warnings.warn(f"missed its cancellation: {task.get_coro()}", stacklevel=1)
        tried += 1
        loop.run_until_complete(asyncio.wait(left, timeout=1))
        left = {task for task in left if not task.done()}
    assert not left, f"tasks that do not end: {[(task.get_coro(), task.get_stack()) for task in left]}"


asyncio.runners._cancel_all_tasks = end_all_tasks  # type: ignore[attr-defined]

LOOK_ON = ("opensearch", "connect")
"""Servers that no order needs: tests of telemetry and reporting start them in stacks of their own; everything else is
tested with them away."""

WITHOUT_SERVERS = ("architecture", "bench", "chaos", "cli", "contracts", "pricing", "samples")
"""Folders of tests that need no server, but for those few that ask for the stack."""

ONE_STACK_FOR_ALL = ("e2e", "telemetry")

NewDatabase = Callable[..., Awaitable[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `./lostwax test` runs beside the others."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in WITHOUT_SERVERS and "stack" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.pure)


class TwoAtATime(LoadScopeScheduling):
    """Shares the tests out among processes, each with a stack of its own: a file stays in one, and a whole folder
    where a dear stack serves several files. The first folders take longest."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return folder if folder in ONE_STACK_FOR_ALL else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoAtATime:
    """For `pytest -n 2`."""
    return TwoAtATime(config, log)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """All servers and services, empty at the start of the session and gone after it, whatever happens; their logs stay
    in the folder when a test has failed."""
    folder = STACKS / f"test-{os.getpid()}"
    started = Stack.start(folder, owned=True, fresh=True, without=LOOK_ON)
    try:
        wait_all_read(started)
        yield started
    finally:
        started.down(remove=True)
        if not request.session.testsfailed:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
async def new_database(stack: Stack) -> AsyncIterator[NewDatabase]:
    """`await new_database(migrations)` makes an empty database that no service knows, migrates it, and returns its DSN
    as superuser. `migrations=None`: the kit's only. `migrated=False`: none at all. Gone at the end of the module."""
    server = stack.url("pg-main").replace("//", f"//postgres:{POSTGRES_SUPERUSER.read_text().strip()}@")
    made: list[str] = []

    async def make(migrations: Path | None = None, *, migrated: bool = True) -> str:
        name = f"test_{new_id().hex}"
        connection = await asyncpg.connect(f"{server}/postgres", timeout=5)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        made.append(name)
        if migrated:
            await migrate(f"{server}/{name}", migrations)
        return f"{server}/{name}"

    yield make
    connection = await asyncpg.connect(f"{server}/postgres", timeout=5)
    try:
        for name in made:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    """A partner of the test's own, without limits."""
    async with await a_partner(stack) as client:
        yield client


@pytest.fixture
async def ada(stack: Stack) -> AsyncIterator[Operator]:
    """An operator of the test's own."""
    async with await an_operator(stack, "Ada") as client:
        yield client


@pytest.fixture
async def ben(stack: Stack) -> AsyncIterator[Operator]:
    """Another operator."""
    async with await an_operator(stack, "Ben") as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[Any]") -> Generator[None, Any, Any]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or bool(report.failed)
    return report


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for all tests of pages."""
    async with async_playwright() as playwright:
        browser = await a_browser(playwright)
        yield browser
        await browser.close()


@pytest.fixture
async def visitors(request: pytest.FixtureRequest, chromium: Browser, tmp_path: Path) -> AsyncIterator[Visitors]:
    """People with browsers of their own. What a page does wrong meanwhile fails the test; what was to be seen when a
    test failed is kept as pictures."""
    people = Visitors(chromium)
    yield people
    if request.node.stash.get(FAILED, False):
        for picture in await people.pictures(tmp_path):
            request.config.get_terminal_writer().line(f"\nseen when it failed: {picture}")
    await people.leave()
    assert not people.wrong, "\n".join(people.wrong)
