"""A disk for one shard that can be made full: a tmpfs in a mount namespace of this process' own.

Whatever this thread starts afterwards sees the disk; nobody else on the machine does, and it is gone with the last of
them. Only root may do so.
"""

import ctypes
import os
import subprocess
from pathlib import Path

from lostwax.local import places

LARGEST = 3 * 1024**3
"""In bytes; memory is taken for what is stored only."""

_CLONE_NEWNS, _MS_REMOUNT, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 32, 16384, 1 << 18, 2


class SmallDisk:
    """The disk of one PostgreSQL instance of a stack that has not been started yet. All methods in one thread."""

    def __init__(self, folder: Path, instance: str) -> None:
        """Mount it, with an empty cluster on it. Raises OSError where that is not permitted; then nothing is changed
        but, perhaps, this thread's view of the mounts."""
        self.instance = instance
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._try(self._libc.unshare(_CLONE_NEWNS), "a mount namespace")
        self._mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        home = places.postgres_home(folder)
        self._path = home / instance
        self._path.mkdir(mode=0o700, exist_ok=True)
        account = places.postgres_account()
        owner = "" if account is None else f",uid={account.pw_uid},gid={account.pw_gid}"
        self._mount(b"tmpfs", bytes(self._path), b"tmpfs", 0, f"size={LARGEST},mode=0700{owner}".encode())
        template = places.postgres_home(places.HOME) / "template"
        subprocess.run(["cp", "-a", f"{template}/.", str(self._path)], check=True)

    def fill(self) -> None:
        """Leave no free byte on it. Raises OSError."""
        for attempt in range(20):
            seen = os.statvfs(self._path)
            used = (seen.f_blocks - seen.f_bfree) * seen.f_frsize
            try:
                self._resize(used)
            except OSError:  # more was written meanwhile
                if attempt == 19:
                    raise
            else:
                return

    def empty(self) -> None:
        """Give it back its room."""
        self._resize(LARGEST)

    def remove(self) -> None:
        """Unmount it, with all that is on it."""
        self._try(self._libc.umount2(bytes(self._path), _MNT_DETACH), f"unmounting {self._path}")

    def _resize(self, size: int) -> None:
        self._mount(b"tmpfs", bytes(self._path), b"tmpfs", _MS_REMOUNT, f"size={size}".encode())

    def _mount(self, source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
        self._try(self._libc.mount(source, target, kind, ctypes.c_ulong(flags), data), f"mounting {target.decode()}")

    def _try(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")
