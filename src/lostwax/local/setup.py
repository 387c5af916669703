"""Brings what a machine lacks: Debian packages, the virtual environment, Kafka's jars, and templates for quick starts.

Run by ./lostwax as `python -m lostwax.local.setup` with the machine's own Python, before the virtual environment
exists: standard library only. Each step has a stamp under `.lostwax/stamps/`, keyed by a hash of what it depends on and
written only when the step is through, so a repeat does nothing and an interrupted set-up goes on where it stopped.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from lostwax.local import places
from lostwax.local.places import (
    CONNECT_LIBS,
    HOME,
    KAFKA_ARCHIVE,
    KAFKA_FORMATTED,
    KAFKA_LIBS,
    KAFKA_SOURCE,
    NUMBA_CACHE,
    PROJECT,
    VENV,
)

STAMPS = HOME / "stamps"
CREATECLUSTER = Path("/etc/postgresql-common/createcluster.conf")


class SetupFailed(Exception):
    """A step did not succeed. The text is for the person at the terminal."""


def run(command: Sequence[str], *, what: str, outlives_us: bool = False, at: Path | None = None) -> str:
    """Run to the end, in the folder `at` if given, and return its output. Raises SetupFailed with its last lines.

    The child dies with us unless it `outlives_us` (a killed apt-get would leave packages half configured). It inherits
    the set-up lock, so that what it has started may finish before another set-up begins.
    """
    bound = [] if outlives_us or not shutil.which("setpriv") else ["setpriv", "--pdeathsig", "KILL", "--"]
    done = subprocess.run(
        [*bound, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        close_fds=False,
        cwd=at,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise SetupFailed(f"{what} failed ({command[0]}, exit {done.returncode}):\n{tail}")
    return done.stdout


def digest(*parts: str | Path) -> str:
    """Hash of texts and of the contents of files."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        whole.update(b"\0")
    return whole.hexdigest()


_printing = threading.Lock()


def step(name: str, stamp: str, inputs: str, act: Callable[[], None]) -> None:
    """Do `act` unless the stamp says that it was done for the same inputs; say what is done and how long it took."""
    path = STAMPS / stamp
    if path.exists() and path.read_text() == inputs:
        return
    path.unlink(missing_ok=True)
    with _printing:
        print(f"  {name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    act()
    STAMPS.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(inputs)
    fresh.replace(path)
    with _printing:
        print(f"  {name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def apt_packages() -> list[str]:
    """Debian packages that this machine needs and lacks."""
    lacking = []
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        lacking.append("python3-venv")
    if places.postgres_bin() is None:
        lacking.append("postgresql")
    if places.java() is None:
        lacking.append("default-jdk-headless")
    if shutil.which("mvn") is None:
        lacking.append("maven")
    if shutil.which("setpriv") is None:
        lacking.append("util-linux")
    return lacking


def install_packages(lacking: Sequence[str]) -> None:
    """Install by apt-get, through sudo when not root. Raises SetupFailed with what to install by hand elsewhere."""
    if shutil.which("apt-get") is None:
        raise SetupFailed(
            f"this machine lacks what Debian calls {', '.join(lacking)}, and has no apt-get: "
            "install them by its own means"
        )
    rise = [] if os.geteuid() == 0 else ["sudo"]
    if rise and shutil.which("sudo") is None:
        raise SetupFailed(f"neither root nor sudo: have somebody run `apt-get install {' '.join(lacking)}`")
    apt = [*rise, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends"]
    run([*apt, "update"], what="apt-get update", outlives_us=True)
    what = f"installing {', '.join(lacking)}"
    if "postgresql" in lacking:
        run([*apt, "install", "postgresql-common"], what="installing postgresql-common", outlives_us=True)
        with no_main_cluster(rise):
            run([*apt, "install", *lacking], what=what, outlives_us=True)
    else:
        run([*apt, "install", *lacking], what=what, outlives_us=True)


def bring_browser() -> None:
    """Chromium, which only tests of pages need: `./lostwax test` asks for it, so that nobody else waits for it. Raises
    SetupFailed."""
    if places.chromium() is None:
        with locked():
            step("Debian package chromium", "chromium", "", lambda: install_packages(["chromium"]))
            (STAMPS / "chromium").unlink()  # as with the others, it is looked up each time


@contextlib.contextmanager
def no_main_cluster(rise: Sequence[str]) -> Iterator[None]:
    """While this lasts, Debian's postgresql package does not create and start a cluster of its own."""
    kept = CREATECLUSTER.with_name("createcluster.conf.lostwax-kept")
    run([*rise, "cp", "-p", str(CREATECLUSTER), str(kept)], what="keeping createcluster.conf")
    line = f"echo 'create_main_cluster = false' >> {CREATECLUSTER}"
    run([*rise, "sh", "-c", line], what="changing createcluster.conf")
    try:
        yield
    finally:
        run([*rise, "mv", str(kept), str(CREATECLUSTER)], what="restoring createcluster.conf")


def virtual_environment() -> None:
    """The virtual environment with everything in requirements.lock, and this project in it, editable.

    A virtual environment whose last change was interrupted is made anew, since pip may have left half a package in it.
    """
    unfinished = HOME / "venv.unfinished"
    python = VENV / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if unfinished.exists() or not works:
        shutil.rmtree(VENV, ignore_errors=True)
        unfinished.touch()
        run([sys.executable, "-m", "venv", str(VENV)], what="making the virtual environment")
    unfinished.touch()
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    run([*pip, "install", "-r", str(PROJECT / "requirements.lock")], what="installing requirements.lock")
    run([*pip, "install", "--no-deps", "-e", str(PROJECT)], what="installing lostwax itself")
    unfinished.unlink()


def compile_kernels() -> None:
    """What pricing would compile at its first start, for half a minute of a core: later changes it compiles then."""
    NUMBA_CACHE.mkdir(parents=True, exist_ok=True)
    warm = [str(VENV / "bin" / "python"), "-P", "-c", "from lostwax.pricing import mesh; mesh.warm()"]
    run(["env", f"NUMBA_CACHE_DIR={NUMBA_CACHE}", *warm], what="compiling pricing's kernels")


def fetch_jars(pom: Path, libs: Path) -> None:
    """The jars that a pom asks for, from Maven Central."""
    partial = libs.with_name(f"{libs.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    run([*command, f"-DoutputDirectory={partial}"], what=f"fetching the jars of {pom.name}")
    shutil.rmtree(libs, ignore_errors=True)
    partial.rename(libs)


def kafka_command(*, archive: str, libs: Path = KAFKA_LIBS) -> list[str]:
    """`java` with the options and the explicit list of jars under which the class archive is both made and used."""
    java = places.java()
    if java is None:
        raise places.Missing("no Java >= 17: run ./lostwax once, it installs one")
    jars = ":".join(str(jar) for jar in sorted(libs.glob("*.jar")))
    return [
        java,
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={KAFKA_SOURCE / 'log4j2.properties'}",
        *([archive] if archive else []),
        "-cp",
        jars,
    ]


def broker_properties(*, port: int, controller_port: int, data: Path) -> str:
    """The broker's settings with ports and folder filled in."""
    text = (KAFKA_SOURCE / "broker.properties").read_text()
    for word, value in (("PORT", port), ("CONTROLLER_PORT", controller_port), ("DATA", data)):
        text = text.replace(f"@{word}@", str(value))
    return text


def kafka_templates() -> None:
    """A formatted, empty data folder for stacks to start from, and an archive of the broker's classes (AppCDS)."""
    work = HOME / "kafka" / "rehearsal"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, controller_port = one.getsockname()[1], two.getsockname()[1]
    properties = work / "broker.properties"
    properties.write_text(broker_properties(port=port, controller_port=controller_port, data=work / "data"))
    cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
    storage = [*kafka_command(archive=""), "kafka.tools.StorageTool", "format", "-t", cluster_id]
    run([*storage, "-c", str(properties), "--standalone"], what="formatting Kafka's storage")
    shutil.rmtree(KAFKA_FORMATTED, ignore_errors=True)
    shutil.copytree(work / "data", KAFKA_FORMATTED)
    KAFKA_ARCHIVE.unlink(missing_ok=True)
    archive = work / "broker.jsa"
    dying_with_us = ["setpriv", "--pdeathsig", "KILL", "--"]
    command = [
        *dying_with_us,
        *kafka_command(archive=f"-XX:ArchiveClassesAtExit={archive}"),
        "kafka.Kafka",
        str(properties),
    ]
    log = work / "log"
    with log.open("wb") as out:
        broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while b"Kafka Server started" not in log.read_bytes():
                if broker.poll() is not None or time.monotonic() > deadline:
                    raise SetupFailed(f"the Kafka broker did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            broker.send_signal(signal.SIGTERM)
            broker.wait(60)
        finally:
            if broker.poll() is None:
                broker.kill()
                broker.wait()
    if archive.exists():  # a Java without class archives starts the broker a second later, and that is all
        archive.rename(KAFKA_ARCHIVE)
    shutil.rmtree(work)


def postgres_template() -> None:
    """An empty PostgreSQL cluster that every instance is copied from: passwords over TCP only, one superuser."""
    binaries = places.postgres_bin()
    if binaries is None:
        raise places.Missing("no PostgreSQL server: run ./lostwax once, it installs one")
    home = places.postgres_home(HOME)
    if not places.POSTGRES_SUPERUSER.exists():
        write_private(places.POSTGRES_SUPERUSER, secrets.token_urlsafe(24))
    partial, template = home / "template.partial", home / "template"
    password = home / "superuser"
    shutil.rmtree(partial, ignore_errors=True)
    write_private(password, places.POSTGRES_SUPERUSER.read_text())
    try:
        account = places.postgres_account()
        if account is not None:
            os.chown(password, account.pw_uid, account.pw_gid)
        command = [*places.as_postgres(), str(binaries / "initdb"), "-D", str(partial), "-U", "postgres"]
        command += ["-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8"]
        run([*command, "--no-sync", "--no-instructions"], what="initdb")
    finally:
        password.unlink()
    shutil.rmtree(template, ignore_errors=True)
    partial.rename(template)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    fresh.replace(path)


def set_up() -> None:
    """Every step, those that do not need each other side by side. Raises SetupFailed or Missing."""
    lacking = apt_packages()
    if lacking:
        step(f"Debian packages {', '.join(lacking)}", "packages", ",".join(lacking), lambda: install_packages(lacking))
        (STAMPS / "packages").unlink()  # what is lacking is looked up each time: a package may be removed again

    def python_side() -> None:
        inputs = digest(PROJECT / "requirements.lock", PROJECT / "pyproject.toml", str(VENV))
        if not (VENV / "bin" / "python").exists():
            (STAMPS / "venv").unlink(missing_ok=True)
        step("Python packages", "venv", inputs, virtual_environment)
        step("pricing's kernels", "kernels", inputs, compile_kernels)

    def kafka_side() -> None:
        pom = digest(KAFKA_SOURCE / "pom.xml", str(KAFKA_LIBS))
        if not KAFKA_LIBS.exists():
            (STAMPS / "kafka-jars").unlink(missing_ok=True)
        step("Kafka's jars", "kafka-jars", pom, lambda: fetch_jars(KAFKA_SOURCE / "pom.xml", KAFKA_LIBS))
        connect = digest(KAFKA_SOURCE / "connect-pom.xml", str(CONNECT_LIBS))
        if not CONNECT_LIBS.exists():
            (STAMPS / "connect-jars").unlink(missing_ok=True)
        step(
            "Connect's and Debezium's jars",
            "connect-jars",
            connect,
            lambda: fetch_jars(KAFKA_SOURCE / "connect-pom.xml", CONNECT_LIBS),
        )
        java = places.java() or ""
        inputs = digest(
            pom, str(Path(java).resolve()), str(places.java_version(java)), KAFKA_SOURCE / "broker.properties"
        )
        if not KAFKA_FORMATTED.exists():
            (STAMPS / "kafka-templates").unlink(missing_ok=True)
        step("Kafka's storage and class archive", "kafka-templates", inputs, kafka_templates)
        binaries = places.postgres_bin()
        home = places.postgres_home(HOME)
        if not (home / "template").exists():
            (STAMPS / "postgres-template").unlink(missing_ok=True)
        step("PostgreSQL's empty cluster", "postgres-template", digest(str(binaries), str(home)), postgres_template)

    pool = ThreadPoolExecutor(2)
    for done in [pool.submit(python_side), pool.submit(kafka_side)]:
        done.result()


def give_up(why: str) -> NoReturn:
    """Say why and end at once; the other side's step is not waited for: its child dies with us, without a stamp."""
    print(f"lostwax: {why}", file=sys.stderr, flush=True)
    os._exit(1)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One set-up at a time: another waits until this one is through."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "setup.lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("lostwax: another set-up is running here, waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Set up under a lock (a second set-up waits for the first), then write the stamp that ./lostwax compares."""
    arguments = argparse.ArgumentParser(prog="lostwax.local.setup", description=__doc__)
    arguments.add_argument("--stamp", default="", help="what .lostwax/stamps/ready shall hold afterwards")
    stamp = arguments.parse_args().stamp
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("set-up ended from outside; run it again to go on"))
    with locked():
        ready = STAMPS / "ready"
        if stamp and ready.exists() and ready.read_text().strip() == stamp and VENV.exists():
            return
        print("lostwax: setting up under .lostwax/ (once)", file=sys.stderr)
        began = time.monotonic()
        try:
            set_up()
        except (SetupFailed, places.Missing, SystemExit) as failure:
            give_up(str(failure))
        except KeyboardInterrupt:
            give_up("interrupted; run it again to go on")
        STAMPS.mkdir(parents=True, exist_ok=True)
        ready.write_text(stamp + "\n")
        print(f"lostwax: set up in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
