"""The one process that starts, watches and ends everything of a local stack.

    python -m lostwax.local.supervisor --folder F [--owner-pid P] [--fresh] [--without orders,..] [--set NAME=VALUE]..
        [--proxied]

It ends everything when it is told to, when it gets SIGINT or SIGTERM, and when its owner dies; when it is killed
itself, the kernel ends its children. At its start it first ends what a killed predecessor may have left.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lostwax.local import credentials, places, ports, servers, services, state
from lostwax.local.child import Child
from lostwax.local.processes import Program, end, started_ticks
from lostwax.local.servers import connect, opensearch
from lostwax.local.state import Answer, Command, Phase, StackState

log = logging.getLogger(__name__)

ALREADY_RUNNING = 3
"""Exit code when another supervisor has the folder."""

DATA = ("postgres", "redis", "kafka", "s3", "warehouse", "mail")


class Supervisor:
    """A stack, from the choice of its ports to its end."""

    def __init__(
        self, folder: Path, *, without: Sequence[str], overrides: dict[str, str], preferred_ports: bool, proxied: bool
    ) -> None:
        """Raises places.Missing when set-up has not been run."""
        self._folder = folder
        self._without = without
        self._overrides = overrides
        self._phase: Phase = "starting"
        self._stop = asyncio.Event()
        self._ticks = started_ticks(os.getpid()) or 0
        self._boot = state.boot_id()
        self._socket = places.socket_folder(folder) / "control.sock"
        chosen = ports.choose(
            folder,
            (*services.PREFERRED_PORTS, *(servers.PORTS_WHEN_PROXIED if proxied else servers.PORTS)),
            services.PREFERRED_PORTS if preferred_ports else {},
        )
        secret = credentials.load(folder)
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)

        def children(programs: Sequence[Program]) -> list[Child]:
            return [Child(program, logs, self._changed) for program in programs]

        self._servers = children(servers.all_servers(folder, chosen, secret, proxied=proxied))
        self._services = children(services.all_services(chosen, secret, overrides, folder))
        self._by_name = {child.program.name: child for child in (*self._servers, *self._services)}

    async def run(self, owner_pid: int | None) -> None:
        """Start everything, keep it running until told to stop, stop everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        if owner_pid is not None:
            self._stop_with(owner_pid)
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        control = await asyncio.start_unix_server(self._converse, self._socket)
        self._socket.chmod(0o600)
        self._changed()
        lives = [asyncio.create_task(child.keep()) for child in self._by_name.values()]
        for life in lives:
            life.add_done_callback(self._life_ended)
        starting = asyncio.create_task(self._start_all())
        await self._stop.wait()
        self._phase = "stopping"
        self._changed()
        starting.cancel()
        await asyncio.gather(*(child.stop() for child in self._services))
        # Connect before its broker, which it would otherwise wait for
        await asyncio.gather(*(child.stop() for child in self._servers if child.program.name == connect.NAME))
        await asyncio.gather(*(child.stop() for child in self._servers))
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        self._phase = "down"
        self._changed()
        control.close()
        self._socket.unlink(missing_ok=True)

    async def _start_all(self) -> None:
        for children in (self._servers, self._services):
            wanted = [child for child in children if child.program.name not in self._without]
            for child in wanted:
                child.start()
            await asyncio.gather(*(child.ready() for child in wanted if not child.program.aside))
        self._phase = "ready"
        self._changed()

    def _stop_with(self, owner_pid: int) -> None:
        try:
            owner = os.pidfd_open(owner_pid)
        except ProcessLookupError:
            self._stop.set()
            return
        loop = asyncio.get_running_loop()

        def owner_died() -> None:
            loop.remove_reader(owner)
            log.info("the owner, process %d, is gone", owner_pid)
            self._stop.set()

        loop.add_reader(owner, owner_died)

    def _life_ended(self, life: "asyncio.Task[None]") -> None:
        """A defect in the supervision itself must not look like a quiet process."""
        if not life.cancelled() and (error := life.exception()) is not None:
            log.error("supervision failed", exc_info=error)
            self._stop.set()

    def _state(self) -> StackState:
        return StackState(
            phase=self._phase,
            pid=os.getpid(),
            ticks=self._ticks,
            boot=self._boot,
            socket=str(self._socket),
            overrides=self._overrides,
            processes=[child.status for child in self._by_name.values()],
        )

    def _changed(self) -> None:
        state.write(self._folder, self._state())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: a command a line, answered in order, each when it is carried out."""
        with contextlib.suppress(ConnectionError):  # the client went away; what it asked for is done all the same
            while line := await reader.readline():
                try:
                    answer = await self._carry_out(msgspec.json.decode(line, type=Command))
                except msgspec.ValidationError as error:
                    answer = Answer(error=str(error))
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        writer.close()

    async def _carry_out(self, command: Command) -> Answer:
        if command.do == "down":
            self._stop.set()
        elif command.do != "status":
            child = self._by_name.get(command.name)
            if child is None:
                return Answer(error=f"no process {command.name}: there are {', '.join(self._by_name)}")
            if self._stop.is_set():
                return Answer(error="the stack is stopping")
            if command.do in ("stop", "restart"):
                await child.stop()
            if command.do in ("start", "restart"):
                child.start()
        return Answer(state=self._state())


def end_leftovers(folder: Path) -> None:
    """End the processes of a killed predecessor that outlived it, if they are still the ones it recorded."""
    before = state.read(folder)
    if before is None or before.boot != state.boot_id():
        return
    for process in before.processes:
        if process.pid is not None and process.ticks is not None:
            first = signal.SIGQUIT if process.name.startswith("pg-") else signal.SIGKILL
            end(process.pid, process.ticks, first, limit_s=10)


def remove_data(folder: Path) -> None:
    """Forget everything a stack has stored; its ports and logs stay."""
    elsewhere = (places.account_home(folder, opensearch.NAME), places.postgres_home(folder))
    for path in (*(folder / name for name in DATA), *elsewhere):
        if path.exists():
            shutil.rmtree(path)
    for name in ("secrets.json", "state.json"):
        (folder / name).unlink(missing_ok=True)


def main() -> None:
    """Exit code 3 when another supervisor has the folder, 1 when something that set-up brings is missing."""
    parser = argparse.ArgumentParser(prog="lostwax.local.supervisor")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--owner-pid", type=int)
    parser.add_argument("--fresh", action="store_true", help="forget what was stored before")
    parser.add_argument("--without", default="", help="what not to start, by comma")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for the services")
    parser.add_argument("--preferred-ports", action="store_true", help="services on 8101 to 8104 when free")
    parser.add_argument("--proxied", action="store_true", help="every server behind Toxiproxy")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(ALREADY_RUNNING)
        try:
            end_leftovers(folder)
            if arguments.fresh:
                remove_data(folder)
            asyncio.run(_run(folder, arguments))
        except places.Missing as missing:
            sys.exit(f"lostwax: {missing}")
        except subprocess.CalledProcessError as error:
            sys.exit(f"lostwax: {error}")


async def _run(folder: Path, arguments: argparse.Namespace) -> None:
    supervisor = Supervisor(
        folder,
        without=[name for name in arguments.without.split(",") if name],
        overrides=dict(pair.split("=", 1) for pair in arguments.set),
        preferred_ports=arguments.preferred_ports,
        proxied=arguments.proxied,
    )
    await supervisor.run(arguments.owner_pid)


if __name__ == "__main__":
    main()
