"""The supervisor on the real servers: nothing it starts outlives it, and nothing that dies stays dead."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import msgspec
import obstore
import pytest
from obstore.store import S3Store

from lostwax.local import ports, state
from lostwax.local.child import Child
from lostwax.local.places import STACKS, postgres_home
from lostwax.local.processes import Program, is_alive, started_ticks
from lostwax.local.servers.seaweedfs import MODELS, STAGING
from lostwax.local.stack import NotRunning, Stack, StackFailed

SERVERS = {"pg-main", "pg-shard-0", "pg-shard-1", "redis", "kafka", "s3", "mail"}
SLOW = ("kafka",)
"""Takes longest to start; left out where it is not what a test is about."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A stack folder of our own; whatever runs there afterwards is taken down and forgotten."""
    path = STACKS / f"test-supervisor-{os.getpid()}"
    Stack.start(path, owned=True, fresh=True, services=()).down()
    yield path
    Stack(path).down(remove=True)
    subprocess.run(["rm", "-rf", str(path)], check=True)


def running(stack: Stack) -> dict[str, tuple[int, int]]:
    """Who runs: number and start of each process, by name."""
    return {p.name: (p.pid, p.ticks) for p in stack.status() if p.pid is not None and p.ticks is not None}


def niceness(pid: int) -> tuple[int, int]:
    """Of a process in its session, and of its session among the others where the kernel lets us say so."""
    own, session = os.getpriority(os.PRIO_PROCESS, pid), Path(f"/proc/{pid}/autogroup")
    return own, int(session.read_text().split()[-1]) if os.access(session, os.W_OK) else own


def eventually_gone(processes: dict[str, tuple[int, int]], within_s: float) -> list[str]:
    """Names of those that still live after `within_s`."""
    deadline = time.monotonic() + within_s
    while left := [name for name, (pid, ticks) in processes.items() if is_alive(pid, ticks)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def test_status_tells_what_runs_and_down_ends_it(folder: Path) -> None:
    with Stack.start(folder, owned=True, fresh=False, services=()) as stack:
        by_name = {process.name: process for process in stack.status()}
        assert {name for name, process in by_name.items() if process.state == "ready"} == SERVERS
        assert {p.state for p in by_name.values() if p.kind == "service"} == {"stopped"}
        processes = running(stack)
        assert set(processes) == SERVERS
        for name, (pid, ticks) in processes.items():
            assert started_ticks(pid) == ticks
            assert not ports.is_free(by_name[name].port)
        assert niceness(processes["pg-main"][0]) == (0, 0)
        assert niceness(processes["kafka"][0]) == (5, 5)
        assert niceness(processes["mail"][0]) == (7, 7)
    assert eventually_gone(processes, 0) == []
    with pytest.raises(NotRunning):
        stack.status()
    stack.down()  # nothing to stop is fine


async def look_into_databases(own: str, foreign: str, audit: str) -> None:
    """One's own database opens, another's does not, and the audit only reads."""
    await (await asyncpg.connect(own)).close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(foreign)
    reader = await asyncpg.connect(audit)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await reader.execute("CREATE TABLE smuggled ()")
    await reader.close()


def bucket(stack: Stack, service: str, name: str) -> S3Store:
    """A bucket as a service sees it."""
    given = stack.env(service)
    return S3Store(
        name,
        endpoint=given["LOSTWAX_S3_ENDPOINT"],
        access_key_id=given["LOSTWAX_S3_ACCESS_KEY"],
        secret_access_key=given["LOSTWAX_S3_SECRET_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def test_a_service_reaches_what_is_its_own_only_and_what_it_stored_survives_a_kill(folder: Path) -> None:
    with Stack.start(folder, owned=True, fresh=False, services=(), without=SLOW) as stack:
        own = stack.env("partner_api")["LOSTWAX_DATABASE_URL"]
        foreign = own.rpartition("/")[0] + "/mes"
        asyncio.run(look_into_databases(own, foreign, stack.audit_dsns["partner_api"]))
        obstore.put(bucket(stack, "partner_api", STAGING), "up/loaded", b"wax")
        staged = bucket(stack, "orders", STAGING)
        assert bytes(obstore.get(staged, "up/loaded").bytes()) == b"wax"
        with pytest.raises(obstore.exceptions.PermissionDeniedError):
            obstore.put(staged, "up/other", b"wax")
        obstore.put(bucket(stack, "orders", MODELS), "ab/cd", b"wax")
        stack.kill("s3")
        stack.wait_ready("s3", 20)
        model = bucket(stack, "pricing", MODELS)
        assert bytes(obstore.get(model, "ab/cd").bytes()) == b"wax"
        with pytest.raises(obstore.exceptions.PermissionDeniedError):
            obstore.put(model, "ab/cd", b"lead")
        obstore.delete(staged, "up/loaded")
        with pytest.raises(FileNotFoundError):
            obstore.get(staged, "up/loaded")


def test_a_killed_server_comes_back_and_a_stopped_one_does_not(folder: Path) -> None:
    with Stack.start(folder, owned=True, fresh=False, services=(), without=SLOW) as stack:
        for name in ("pg-shard-0", "redis"):
            before = stack.pid(name)
            stack.kill(name, signal.SIGKILL)
            stack.wait_ready(name, 20)
            assert stack.pid(name) != before
            assert stack.process(name).restarts == 1
        stack.stop("redis")
        time.sleep(0.5)
        assert stack.process("redis").state == "stopped"
        stack.start_one("redis")
        assert stack.process("redis").restarts == 1


def test_a_killed_supervisor_takes_everything_along_and_its_folder_serves_again(folder: Path) -> None:
    stack = Stack.start(folder, owned=False, fresh=False, services=())
    processes = running(stack)
    assert set(processes) == SERVERS
    os.kill(stack.state().pid, signal.SIGKILL)
    assert eventually_gone(processes, 8) == []
    with pytest.raises(NotRunning):
        stack.status()
    assert (folder / "state.json").exists()  # stale, and so are postmaster.pid and the socket
    with Stack.start(folder, owned=True, fresh=False, services=()) as again:
        assert set(running(again)) == SERVERS


def test_a_dead_owner_takes_the_stack_along(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lostwax.local.stack import Stack\n"
        f"Stack.start(Path({str(folder)!r}), owned=True, fresh=False, services=(), without={SLOW!r})\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    processes = running(Stack.attach(folder))
    owner.kill()
    owner.communicate()
    assert eventually_gone(processes, 15) == []


def test_leftovers_are_ended_and_strangers_are_not(folder: Path) -> None:
    """state.json of a killed supervisor names one of ours that lives on, and a number that is somebody else's now."""
    left, stranger = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    try:
        time.sleep(0.1)
        stale = state.read(folder)
        assert stale is not None
        left_ticks = started_ticks(left.pid)
        first, second, *rest = stale.processes
        replace = msgspec.structs.replace
        state.write(
            folder,
            replace(
                stale,
                processes=[
                    replace(first, pid=left.pid, ticks=left_ticks),
                    replace(second, pid=stranger.pid, ticks=1),
                    *rest,
                ],
            ),
        )
        pid_file = postgres_home(folder) / "pg-main" / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n")
        with Stack.start(folder, owned=True, fresh=False, services=(), without=SLOW) as stack:
            assert set(running(stack)) == SERVERS - set(SLOW)
            assert left.wait(1) < 0
            assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_a_taken_port_is_given_up_for_another(folder: Path) -> None:
    before = ports.remembered(folder)
    with socket.socket() as kafka, socket.socket() as s3:
        for taker, name in ((kafka, "kafka"), (s3, "s3")):
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taker.bind(("127.0.0.1", before[name]))
            taker.listen()
        with Stack.start(folder, owned=True, fresh=False, services=()) as stack:
            assert stack.process("kafka").port != before["kafka"]
            assert stack.process("s3").port != before["s3"]
            assert stack.process("pg-main").port == before["pg-main"]
            assert set(running(stack)) == SERVERS


async def test_a_child_stops_even_when_its_readiness_probe_is_deaf_to_cancellation(tmp_path: Path) -> None:
    async def deaf() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        raise ConnectionError("not yet")

    sleeper = Program(name="sleeper", kind="service", port=0, url="", command=["sleep", "60"], settle=deaf, check=deaf)
    child = Child(sleeper, tmp_path, lambda: None)
    life = asyncio.create_task(child.keep())
    child.start()
    await asyncio.sleep(0.3)
    assert child.status.pid is not None
    async with asyncio.timeout(5):
        await child.stop()
    assert child.status.state == "stopped"
    life.cancel()


def test_a_service_that_cannot_start_is_named_with_the_end_of_its_log(folder: Path) -> None:
    with pytest.raises(StackFailed) as failure:  # a Python without its standard library
        Stack.start(folder, owned=True, fresh=False, services=("pricing",), overrides={"PYTHONHOME": "/nowhere"})
    assert "ended with exit code 1" in str(failure.value)
    assert "encodings" in str(failure.value)
    with pytest.raises(NotRunning):
        Stack.attach(folder)
