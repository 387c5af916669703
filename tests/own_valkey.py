"""A Valkey of a test's own, which may be killed, stopped and brought back from an old snapshot while others go on."""

import contextlib
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

from lostwax.local import places


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnValkey:
    """Runs in `folder` from `start` to `end`, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = a_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """From what stands in its folder: nothing, or the snapshot that was put there."""
        command = [places.valkey_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self._folder), "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
                client.ping()
                return
            assert time.monotonic() < deadline, "Valkey does not start"
            time.sleep(0.02)

    def save(self) -> None:
        """Write a snapshot, from which the next `start` begins."""
        with redis.Redis.from_url(self.url) as client:
            client.save()

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()
