"""Toxiproxy before every server of a stack that asks for it: connections can then be slowed, cut or left hanging.

The proxy listens on each server's usual port; the server itself on another, `<name>-behind`. Whoever uses a server by
its usual port goes through the proxy and needs to know nothing of it. Services keep their port, for people come by
that; other services are given the proxy's, `<name>-http`.
"""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial

from lostwax.local import places, setup
from lostwax.local.processes import Program

NAME = "toxiproxy"
SERVER = "server"  # what `go install` calls the program
BINARY = places.HOME / "toxiproxy" / SERVER
VERSION, OLD_VERSION = "v2.12.0", "v2.5.0"
NEWER_NEEDS = (1, 22)


def behind(server: str) -> str:
    """The name of the port that a server listens on when the proxy has its usual one."""
    return f"{server}-behind"


def before(service: str) -> str:
    """The name of the port, and of the proxy, by which other services come to a service."""
    return f"{service}-http"


def ports(proxied: Sequence[str], called: Sequence[str]) -> tuple[str, ...]:
    """Names of the ports that a proxied stack has beyond another's."""
    return (NAME, *(behind(name) for name in proxied), *(before(name) for name in called))


def install() -> None:
    """Build the proxy under .lostwax/ unless it is there. Raises setup.SetupFailed: neither Go nor a way to get it."""
    places.HOME.mkdir(exist_ok=True)
    if not BINARY.exists():
        (setup.STAMPS / NAME).unlink(missing_ok=True)
    setup.step("Toxiproxy", NAME, setup.digest(VERSION, str(BINARY)), _build)


def _build() -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        setup.install_packages(["golang-go"])
        go = shutil.which("go")
    if go is None:
        raise setup.SetupFailed("network faults need Toxiproxy, which is built by Go: put Go 1.19 or newer on the PATH")
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    newer = found is not None and (int(found[1]), int(found[2])) >= NEWER_NEEDS
    version = VERSION if newer else OLD_VERSION
    source = f"github.com/Shopify/toxiproxy/v2/cmd/{SERVER}@{version}"
    setup.run(["env", f"GOBIN={BINARY.parent}", go, "install", source], what=f"building Toxiproxy {version}")


def program(chosen: Mapping[str, int], proxied: Sequence[str], called: Sequence[str]) -> Program:
    """The one proxy of a stack. Raises places.Missing when it has not been built."""
    if not BINARY.exists():
        raise places.Missing("no Toxiproxy: `./lostwax chaos` builds it")
    port = chosen[NAME]
    proxies = {name: (chosen[name], chosen[behind(name)]) for name in proxied}
    proxies |= {before(name): (chosen[before(name)], chosen[name]) for name in called}
    return Program(
        name=NAME,
        kind="server",
        port=port,
        url=f"http://127.0.0.1:{port}",
        command=[str(BINARY), "-host", "127.0.0.1", "-port", str(port)],
        environment={"LOG_LEVEL": "warn"},  # it says several lines of every connection
        settle=partial(_populate, port, proxies),
        check=partial(_connect, port),
    )


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _populate(port: int, proxies: Mapping[str, tuple[int, int]]) -> None:
    """Have it listen on the first port of each name and lead to the second."""
    wanted = [
        {
            "name": name,
            "listen": f"127.0.0.1:{listen}",
            "upstream": f"127.0.0.1:{upstream}",
            "enabled": True,
        }
        for name, (listen, upstream) in proxies.items()
    ]
    body = json.dumps(wanted).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST /populate HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    if answer.split(b" ", 2)[1:2] not in ([b"200"], [b"201"]):
        raise ConnectionError(f"toxiproxy answers {answer.decode(errors='replace')[-300:]}")
