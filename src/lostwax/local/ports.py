"""Free loopback ports, the same ones at every start of a stack as long as nobody else took them."""

import contextlib
import fcntl
import json
import random
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from lostwax.local.places import HOME

# Below Linux' own range for outgoing connections (32768 and up), which would take a port between two starts.
LOWEST, HIGHEST = 20000, 29999


def is_free(port: int) -> bool:
    """Whether nothing listens on the port; one that merely lingers in TIME_WAIT is free."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def remembered(folder: Path) -> dict[str, int]:
    """The ports a stack had when it was last started; empty when it never was."""
    path = folder / "ports.json"
    if not path.exists():
        return {}
    ports: dict[str, int] = json.loads(path.read_text())
    return ports


def choose(folder: Path, names: Iterable[str], preferred: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name: the one remembered in `folder/ports.json`, else the preferred, else any; remembered.

    Stacks of this project that start at the same moment keep out of each other's way by `.lostwax/ports.json`.
    """
    before = remembered(folder)
    HOME.mkdir(exist_ok=True)
    with (HOME / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        register = HOME / "ports.json"
        claimed: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            claimed = json.loads(register.read_text())
        claimed = {where: taken for where, taken in claimed.items() if Path(where, "ports.json").exists()}
        claimed.pop(str(folder), None)
        taken = {port for theirs in claimed.values() for port in theirs}
        chosen: dict[str, int] = {}
        for name in names:
            chosen[name] = _first_free([before.get(name), preferred.get(name)], taken)
            taken.add(chosen[name])
        fresh = folder / "ports.json.new"
        fresh.write_text(json.dumps(chosen, indent=1))
        fresh.replace(folder / "ports.json")
        claimed[str(folder)] = list(chosen.values())
        register.write_text(json.dumps(claimed))
    return chosen


def _first_free(wishes: Iterable[int | None], taken: set[int]) -> int:
    for port in wishes:
        if port is not None and port not in taken and is_free(port):
            return port
    for _ in range(10_000):
        port = random.randint(LOWEST, HIGHEST)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port in {LOWEST}..{HIGHEST}")
