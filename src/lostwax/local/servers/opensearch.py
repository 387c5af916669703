"""OpenSearch: one node for telemetry, small, beside everything else: nothing waits for it.

Fetched when it is first wanted. It needs a newer Java than Kafka; where there is none the stack has no OpenSearch, and
telemetry says so. Started by `java` itself: its script starts two more Javas first, to work out what is fixed here.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.local import places, setup
from lostwax.local.processes import Program

NAME = "opensearch"
OTHER_PORTS = ("opensearch-transport",)
LOWEST_JAVA = 21
VERSION = "3.6.0"
ARTIFACT = f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip"
MISSING = f"no Java {LOWEST_JAVA} or newer, which OpenSearch needs: install one and start the stack again"

SETTINGS = """\
cluster.name: lostwax
node.name: local
discovery.type: single-node
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport_port}
path.data: {home}/data
path.logs: {home}/logs
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: false
"""

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1.} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def program(folder: Path, ports: Mapping[str, int]) -> Program:
    """The one node of a stack."""
    java = places.java(LOWEST_JAVA)
    home, program_home = places.account_home(folder, NAME), installed_at()
    account = places.postgres_account()
    options = [
        "-Xms256m",
        "-Xmx512m",
        "-Xss1m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Djava.io.tmpdir={home}/tmp",
        f"-javaagent:{program_home}/agent/opensearch-agent.jar",
        "-Djna.nosys=true",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        f"-Dopensearch.path.home={program_home}",
        f"-Dopensearch.path.conf={home}/config",
        "-Dopensearch.distribution.type=zip",
        "-Dopensearch.bundled_jdk=false",
    ]
    return Program(
        name=NAME,
        kind="server",
        port=ports[NAME],
        url=f"http://127.0.0.1:{ports[NAME]}",
        command=[java or "java", *options, "-cp", f"{program_home}/lib/*", "org.opensearch.bootstrap.OpenSearch"],
        prepare=partial(_prepare, home, ports),
        settle=partial(_healthy, ports[NAME]),
        check=partial(_healthy, ports[NAME]),
        account=None if account is None else (account.pw_uid, account.pw_gid),
        stop_limit_s=20,
        aside=True,
        nice=7,
    )


def installed_at() -> Path:
    """The folder of the program, of this version."""
    return places.account_home(places.HOME, NAME) / VERSION


def install() -> None:
    """Fetch it, unless it is there. Raises setup.SetupFailed, places.Missing where no Java could run it."""
    if places.java(LOWEST_JAVA) is None:
        raise places.Missing(MISSING)
    home = installed_at()
    # One at a time: two stacks that start at once would take it away from under each other, again and again.
    with (places.HOME / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            (setup.STAMPS / NAME).unlink(missing_ok=True)
        setup.step("OpenSearch", NAME, setup.digest(ARTIFACT, str(home)), partial(_fetch, home))


def _fetch(home: Path) -> None:
    arrived = home.with_name("arriving")
    shutil.rmtree(arrived, ignore_errors=True)
    arrived.mkdir(parents=True)
    command = ["mvn", "-B", "-q", "dependency:unpack", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={arrived}"]
    # Maven marks in the present folder that it has unpacked something, and then does not do so again.
    setup.run(command, what="fetching OpenSearch", at=arrived)
    shutil.rmtree(home, ignore_errors=True)
    (arrived / f"opensearch-{VERSION}").rename(home)
    shutil.rmtree(arrived)


def _prepare(home: Path, ports: Mapping[str, int]) -> None:
    install()
    for name in ("config", "data", "logs", "tmp"):
        (home / name).mkdir(parents=True, exist_ok=True)
    settings = SETTINGS.format(port=ports[NAME], transport_port=ports[OTHER_PORTS[0]], home=home)
    (home / "config" / "opensearch.yml").write_text(settings)
    (home / "config" / "log4j2.properties").write_text(LOGGING)
    account = places.postgres_account()
    if account is not None:
        for path in (home, *home.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)


async def _healthy(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /_cluster/health?wait_for_status=yellow&timeout=1s HTTP/1.0\r\n\r\n")
        status = await reader.readline()
        if status.split(b" ")[1:2] != [b"200"]:
            raise ConnectionError(f"OpenSearch answers {status.decode(errors='replace').strip()!r}")
    finally:
        writer.close()
