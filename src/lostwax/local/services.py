"""The services of a local stack: the environment each is given, and how each is started."""

import asyncio
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.contracts import capture, topics
from lostwax.local import places
from lostwax.local.credentials import SERVICES, Credentials
from lostwax.local.processes import Program
from lostwax.local.servers import connect, mailbox, postgres, seaweedfs, toxiproxy, valkey

PREFERRED_PORTS = {
    "partner_api": 8101,
    "orders": 8102,
    "pricing": 8103,
    "mes": 8104,
    "crm": 8105,
    "telemetry": 8106,
    "reporting": 8107,
    "shop": 8108,
}

SPINE = ("partner_api", "shop", "orders", "pricing", "mes", "crm")
"""What an order passes through. The other services look on: with all of them down, orders flow."""

ONE_DATABASE = ("partner_api", "shop", "mes", "crm")
"""Services with a database of their own, of the same name, that call Orders."""

NICE = {"pricing": 3, "telemetry": 5, "reporting": 7}
"""The path of an order goes first: the doors, Orders, the workshop and the databases behind them, at 0."""

WRITE_LETTERS = ("shop", "crm")

REDIS_DATABASES = {"partner_api": 0, "orders": 1, "mes": 2, "shop": 3, "crm": 4}


def environment(
    service: str, ports: Mapping[str, int], credentials: Credentials, overrides: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """The LOSTWAX_* variables that a service of the stack is given, and nothing that it has no use for.

    `overrides` come last: `NAME` holds for every service, `service.NAME` for one. Raises KeyError for no such service.
    """
    if service not in SERVICES:
        raise KeyError(f"no service {service}: there are {', '.join(SERVICES)}")
    given = {
        "LOSTWAX_HTTP_HOST": "127.0.0.1",
        "LOSTWAX_HTTP_PORT": str(ports[service]),
        "LOSTWAX_INSTANCE": "local",
        "LOSTWAX_TRACES_SHARE": "1",
        "LOSTWAX_KAFKA_BOOTSTRAP": f"127.0.0.1:{ports['kafka']}",
        "LOSTWAX_SERVICE_KEY": json.dumps(credentials.service_keys[service]),
        "LOSTWAX_SERVICE_KEYS": credentials.public_keys(),
        "NUMBA_CACHE_DIR": str(places.NUMBA_CACHE),
    }
    if service in REDIS_DATABASES:
        given["LOSTWAX_REDIS_URL"] = valkey.url(REDIS_DATABASES[service], ports["redis"], credentials)
    if service in ONE_DATABASE:
        given["LOSTWAX_DATABASE_URL"] = postgres.dsn(service, service, ports["pg-main"], credentials)
        given["LOSTWAX_ORDERS_URL"] = f"http://127.0.0.1:{ports.get(toxiproxy.before('orders'), ports['orders'])}"
    if service in WRITE_LETTERS:
        given["LOSTWAX_SMTP_URL"] = f"smtp://127.0.0.1:{ports[mailbox.SMTP]}"
        given["LOSTWAX_SMTP_SENDER"] = f"Lostwax <{service}@lostwax.example>"
        given["LOSTWAX_PUBLIC_URL"] = f"http://127.0.0.1:{ports[service]}"
    if service == "crm":
        given["LOSTWAX_SELLERS_ADDRESS"] = "sellers@lostwax.example"
    if service == "partner_api":
        given["LOSTWAX_HOOKS_TO_LOOPBACK"] = "true"
    if service == "shop":  # robots and tests all come from one address, and nobody guesses
        given |= {"LOSTWAX_ENTRIES_PER_MINUTE": "60000", "LOSTWAX_ENTRIES_BURST": "1000"}
        given["LOSTWAX_PASSWORD_COST"] = "11"
    if service in ("shop", "mes", "telemetry", "reporting"):
        given["LOSTWAX_CRM_URL"] = f"http://127.0.0.1:{ports['crm']}"
    if service == "orders":
        given["LOSTWAX_CHANNEL_URLS"] = ",".join(
            f"{channel}=http://127.0.0.1:{ports[channel]}" for channel in topics.ORDER_REQUESTS.written_by
        )
        shards = [postgres.dsn("orders", "orders", ports[name], credentials) for name in postgres.SHARDS]
        given["LOSTWAX_SHARD_URLS"] = ",".join(shards)
        control = postgres.dsn("orders_control", "orders_control", ports["pg-main"], credentials)
        given["LOSTWAX_CONTROL_URL"] = control
    if service == "reporting":
        given["LOSTWAX_WAREHOUSE"] = f"duckdb://{folder / 'warehouse' / 'reports.duckdb'}"
        given["LOSTWAX_CONNECT_URL"] = f"http://127.0.0.1:{ports['connect']}"
        given["LOSTWAX_CAPTURE_URLS"] = ",".join(
            f"{source}={postgres.dsn(capture.ROLE, database, ports[instance], credentials)}"
            for source, (instance, database) in connect.sources().items()
        )
    if service in seaweedfs.MAY:
        given["LOSTWAX_S3_ENDPOINT"] = f"http://127.0.0.1:{ports['s3']}"
        given["LOSTWAX_S3_ACCESS_KEY"] = credentials.s3[service].access_key
        given["LOSTWAX_S3_SECRET_KEY"] = credentials.s3[service].secret_key
        if service in seaweedfs.STAGING_OF:
            given["LOSTWAX_STAGING_BUCKET"] = seaweedfs.STAGING_OF[service]
        if seaweedfs.MODELS in seaweedfs.MAY[service]:
            given["LOSTWAX_MODELS_BUCKET"] = seaweedfs.MODELS
    if service == "telemetry":
        given["LOSTWAX_OPENSEARCH_URL"] = f"http://127.0.0.1:{ports['opensearch']}"
    given |= {name: value for name, value in overrides.items() if "." not in name}
    own = f"{service}."
    given |= {name.removeprefix(own): value for name, value in overrides.items() if name.startswith(own)}
    return given


def audit_dsns(ports: Mapping[str, int], credentials: Credentials) -> dict[str, str]:
    """Where the read-only role reads what the audit compares."""
    dsns = {database: postgres.dsn("audit", database, ports["pg-main"], credentials) for database in ONE_DATABASE}
    for number, name in enumerate(postgres.SHARDS):
        dsns[f"shard-{number}"] = postgres.dsn("audit", "orders", ports[name], credentials)
    return dsns


def all_services(
    ports: Mapping[str, int], credentials: Credentials, overrides: Mapping[str, str], folder: Path
) -> list[Program]:
    """The programs of all services; they expect the servers to be ready."""
    return [
        Program(
            name=name,
            kind="service",
            port=ports[name],
            url=f"http://127.0.0.1:{ports[name]}",
            command=[sys.executable, "-m", "lostwax", "run", name],
            prepare=partial(Path.mkdir, places.NUMBA_CACHE, parents=True, exist_ok=True),
            environment=environment(name, ports, credentials, overrides, folder),
            settle=partial(_ready, ports[name]),
            check=partial(_ready, ports[name]),
            stop_limit_s=20,
            nice=NICE.get(name, 0),
        )
        for name in SERVICES
    ]


async def _ready(port: int) -> None:
    """GET /health/ready answers 200; raises ConnectionError when it answers something else."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        if status.split(b" ")[1:2] != [b"200"]:
            raise ConnectionError(f"/health/ready answers {status.decode(errors='replace').strip()!r}")
    finally:
        writer.close()
