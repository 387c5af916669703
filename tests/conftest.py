"""One local stack for the whole test session: the real servers and all four services, started when first asked for."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from lostwax.contracts.ids import new_id
from lostwax.kit.postgres import migrate
from lostwax.local.places import POSTGRES_SUPERUSER, PROJECT, STACKS
from lostwax.local.stack import Stack

if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))  # `from tests.builders import ..`, however pytest was started

NewDatabase = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """All servers and services, empty at the start of the session and gone after it, whatever happens; their logs stay
    in the folder when a test has failed."""
    folder = STACKS / f"test-{os.getpid()}"
    started = Stack.start(folder, owned=True, fresh=True)
    try:
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
