"""A local stack as the command line, the demo, tests and benchmarks hold it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from lostwax.kit.auth import ServiceSigner
from lostwax.local import credentials, places, ports, servers, services, state
from lostwax.local.credentials import SERVICES
from lostwax.local.processes import is_alive, send, wait_gone
from lostwax.local.servers import seaweedfs
from lostwax.local.state import Answer, Command, ProcessStatus, StackState
from lostwax.local.supervisor import ALREADY_RUNNING, remove_data

START_LIMIT_S, STOP_LIMIT_S = 180.0, 60.0
HOPELESS_RESTARTS = 4
POLL_S = 0.03
AS_IN_PRODUCTION = {"LOSTWAX_TRACES_SHARE": "0.1"}
"""Overrides for what is measured: a local stack keeps every trace, for whoever wants to look at one."""


class StackFailed(Exception):
    """The stack did not start, or does not do what it is asked; the text ends with the tail of the log concerned."""


class NotRunning(Exception):
    """No supervisor runs in the folder."""


class Stack:
    """A running stack. As a context manager it is taken down at the end. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        """For a stack that runs already; use `start` or `attach`."""
        self.folder = folder.resolve()

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        owned: bool,
        fresh: bool,
        services: Sequence[str] | None = None,
        without: Sequence[str] = (),
        overrides: Mapping[str, str] | None = None,
        preferred_ports: bool = False,
        proxied: bool = False,
        limit_s: float = START_LIMIT_S,
    ) -> "Stack":
        """Start servers and `services` (all of them by default), those named in `without` excepted, and wait until they
        are ready; what stands aside (OpenSearch, Connect) is started, and not waited for.

        `owned`: it ends with this process, however that ends; otherwise it lives until `down`, and one that runs
        already is attached to, data and ports as they are, and what it lacks of `services` started. `fresh`: forget
        what was stored. `overrides`: environment of the services, `NAME` for each, `service.NAME` for one. `proxied`:
        Toxiproxy stands before every server, for whoever wants to disturb connections. Raises StackFailed, having ended
        what it started.
        """
        stack = cls(folder)
        unknown = sorted(set(services or ()) - set(SERVICES))
        if unknown:
            raise ValueError(f"no service {', '.join(unknown)}: there are {', '.join(SERVICES)}")
        chosen = [name for name in SERVICES if (services is None or name in services) and name not in without]
        left_out = {*without, *SERVICES} - set(chosen) | servers.of_none(chosen)
        stack.folder.mkdir(parents=True, exist_ok=True)
        (stack.folder / "logs").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "lostwax.local.supervisor", "--folder", str(stack.folder)]
        command += ["--owner-pid", str(os.getpid())] if owned else []
        command += ["--fresh"] if fresh else []
        command += ["--preferred-ports"] if preferred_ports else []
        command += ["--proxied"] if proxied else []
        command += ["--without", ",".join(sorted(left_out))]
        for name, value in (overrides or {}).items():
            command += ["--set", f"{name}={value}"]
        with (stack.folder / "logs" / "supervisor.log").open("ab") as out:
            supervisor = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            stack._wait_started(supervisor, chosen, owned=owned, limit_s=limit_s)
        except BaseException:
            if supervisor.poll() is None:
                supervisor.send_signal(signal.SIGTERM)
                try:
                    supervisor.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    supervisor.kill()  # which ends all its children
                    supervisor.wait()
            raise
        return stack

    @classmethod
    def attach(cls, folder: Path) -> "Stack":
        """The stack that runs in `folder`. Raises NotRunning."""
        stack = cls(folder)
        stack.state()
        return stack

    def _wait_started(
        self, supervisor: "subprocess.Popen[bytes]", services: Sequence[str], *, owned: bool, limit_s: float
    ) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            code = supervisor.poll()
            if code == ALREADY_RUNNING and not owned:
                self._start_missing(services, deadline - time.monotonic())
                return
            if code == ALREADY_RUNNING:
                raise StackFailed(f"a stack runs in {self.folder} already")
            if code is not None:
                raise StackFailed(f"the supervisor ended with exit code {code}:\n{self.log_tail('supervisor')}")
            now = state.read(self.folder)
            if now is not None and now.pid == supervisor.pid:
                if now.phase == "ready":
                    return
                for process in now.processes:
                    if process.restarts >= HOPELESS_RESTARTS and not process.aside:
                        raise StackFailed(self._why(process))
                if time.monotonic() > deadline:
                    late = [p for p in now.processes if p.state not in ("ready", "stopped") and not p.aside]
                    raise StackFailed(f"not ready after {limit_s:.0f} s:\n" + "\n".join(map(self._why, late)))
            elif time.monotonic() > deadline:
                raise StackFailed(f"not ready after {limit_s:.0f} s:\n{self.log_tail('supervisor')}")
            time.sleep(POLL_S)

    def _start_missing(self, services: Sequence[str], limit_s: float) -> None:
        for process in self.status():
            if process.kind == "server" and not process.aside:
                self.wait_ready(process.name, limit_s)
        for name in services:
            if self.process(name).state == "stopped":
                self._ask(Command("start", name))
        for name in services:
            self.wait_ready(name, limit_s)

    def _why(self, process: ProcessStatus) -> str:
        return f"{process.name} is {process.state}: {process.trouble}\n{self.log_tail(process.name)}"

    def log_path(self, name: str) -> Path:
        """The log of a process, or of the `supervisor`."""
        return self.folder / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 25) -> str:
        """The last lines of a log, indented."""
        try:
            with self.log_path(name).open(errors="replace") as log:
                return "".join(f"    {line}" for line in deque(log, lines))
        except FileNotFoundError:
            return "    (no log)"

    def _ask(self, command: Command, limit_s: float = 60) -> StackState:
        """Have the supervisor carry out a command. Raises NotRunning, KeyError for an unknown name."""
        known = state.read(self.folder)
        if known is None or known.phase == "down":
            raise NotRunning(f"no stack runs in {self.folder}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(limit_s)
            try:
                connection.connect(known.socket)
                connection.sendall(msgspec.json.encode(command) + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline()
            except (FileNotFoundError, ConnectionError) as error:
                raise NotRunning(f"no stack runs in {self.folder}: {error}") from error
        if not line:
            raise NotRunning(f"the stack in {self.folder} has just ended")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.state is None:
            raise KeyError(answer.error)
        return answer.state

    def state(self) -> StackState:
        """Everything the supervisor knows, now. Raises NotRunning."""
        return self._ask(Command("status"))

    def status(self) -> list[ProcessStatus]:
        """Every server and service, running or not. Raises NotRunning."""
        return self.state().processes

    def process(self, name: str) -> ProcessStatus:
        """One server or service. Raises NotRunning, KeyError."""
        for process in self.status():
            if process.name == name:
                return process
        raise KeyError(f"no process {name}: there are {', '.join(p.name for p in self.status())}")

    def url(self, name: str) -> str:
        """Where a service (or server) answers, without a slash at the end."""
        return self.process(name).url

    def pid(self, name: str) -> int:
        """Raises NotRunning when that process does not run now."""
        pid = self.process(name).pid
        if pid is None:
            raise NotRunning(f"{name} does not run")
        return pid

    def env(self, service: str) -> dict[str, str]:
        """The environment that a service is given, without what it inherits. Raises KeyError."""
        overrides = self.state().overrides
        return services.environment(service, self._ports(), credentials.load(self.folder), overrides, self.folder)

    def console_token(self, audience: str) -> str:
        """A signed call to a service, as the command line makes it; good for a minute."""
        key = credentials.load(self.folder).service_keys[credentials.CONSOLE]
        return ServiceSigner(credentials.CONSOLE, json.dumps(key)).token(audience)

    @property
    def audit_dsns(self) -> dict[str, str]:
        """partner_api, mes, crm, shard-0, shard-1: read-only access to each database."""
        return services.audit_dsns(self._ports(), credentials.load(self.folder))

    def _ports(self) -> dict[str, int]:
        return ports.remembered(self.folder)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal one process behind the supervisor's back; SIGKILL returns when it is dead. Raises NotRunning."""
        process = self.process(name)
        if process.pid is None or process.ticks is None or not send(process.pid, process.ticks, number):
            raise NotRunning(f"{name} does not run")
        if number == signal.SIGKILL:
            wait_gone(process.pid, process.ticks, 10)

    def stop(self, name: str) -> None:
        """Stop one process in order and leave it stopped; returns when it is gone."""
        self._ask(Command("stop", name))

    def start_one(self, name: str, *, limit_s: float = START_LIMIT_S) -> None:
        """Start one process and wait until it is ready. Raises StackFailed."""
        self._ask(Command("start", name))
        self.wait_ready(name, limit_s)

    def restart(self, name: str, *, limit_s: float = START_LIMIT_S) -> None:
        """Stop one process in order, start it, and wait until it is ready. Raises StackFailed."""
        self._ask(Command("restart", name))
        self.wait_ready(name, limit_s)

    def wait_ready(self, name: str, timeout: float = START_LIMIT_S) -> None:
        """Wait until a process is ready, through restarts. Raises StackFailed after `timeout` seconds.

        Just after `kill` the supervisor may not have noticed: a process that is dead does not count as ready.
        """
        deadline = time.monotonic() + timeout
        while True:
            process = self.process(name)
            alive = process.pid is not None and process.ticks is not None and is_alive(process.pid, process.ticks)
            if process.state == "ready" and alive:
                return
            if time.monotonic() > deadline:
                raise StackFailed(f"not ready after {timeout:.0f} s: {self._why(process)}")
            time.sleep(POLL_S)

    def down(self, *, remove: bool = False) -> None:
        """Stop everything and wait for it; nothing to stop is fine. `remove`: and forget everything that was stored."""
        known = state.read(self.folder)
        if known is not None and known.boot == state.boot_id():
            with contextlib.suppress(NotRunning):
                self._ask(Command("down"))
            if not wait_gone(known.pid, known.ticks, STOP_LIMIT_S):
                raise StackFailed(f"the supervisor, process {known.pid}, does not end:\n{self.log_tail('supervisor')}")
        if remove:
            remove_data(self.folder)
            places.remove_sockets(self.folder)
            if known_ports := self._ports():
                seaweedfs.remove_sockets(known_ports)

    def __enter__(self) -> "Stack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
