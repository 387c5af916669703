"""Reporting, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

from lostwax.contracts import capture
from lostwax.kit import telemetry
from lostwax.kit.auth import ServiceSigner, ServiceVerifier, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.service import run, serve
from lostwax.kit.settings import SettingsError, read_settings
from lostwax.kit.staff import StaffDoor
from lostwax.reporting import api, console_api, pages, worker
from lostwax.reporting.capture import Watcher
from lostwax.reporting.capture_domain import sources
from lostwax.reporting.captured_rows import Calendar
from lostwax.reporting.rebuilding import Rebuilding
from lostwax.reporting.settings import Settings
from lostwax.reporting.staff_known import StaffKnown
from lostwax.reporting.warehouse import Warehouse, WarehouseAway
from lostwax.reporting.warehouse_duckdb import DuckDbWarehouse


async def serve_reporting(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("reporting", settings))
        watched = sources(settings.capture_urls)
        watcher = Watcher(settings.connect_url, watched)
        warehouse = _warehouse(settings)
        resources.push_async_callback(warehouse.close)
        written = worker.Written()
        runner = Runner(
            settings.kafka_bootstrap,
            group="reporting",
            routes=worker.routes(warehouse, written),
            decoders=worker.decoders(Calendar(ZoneInfo(settings.time_zone)), utc_now),
            publisher=Publisher(settings.kafka_bootstrap, client_id="reporting-dead"),
            instance=settings.instance,
            batch=worker.BATCH,
            later=(WarehouseAway,),
        )

        async def kafka() -> str | None:
            return runner.readiness

        staff = StaffKnown(settings.kafka_bootstrap)
        crm = Neighbour("crm", settings.crm_url, ServiceSigner("reporting", settings.service_key))
        resources.push_async_callback(crm.close)
        services = ServiceVerifier("reporting", settings.service_keys)
        door = api.ReportsDoor(StaffDoor(StaffVerifier(settings.service_keys, issuer="crm"), staff.account), services)

        def delay_s() -> float:
            return max(runner.delay_s(topic) for topic in capture.TOPICS)

        rebuilding = Rebuilding(watched, watcher, warehouse, written, delay_s, utc_now)
        app = build_app(
            "reporting",
            [
                *api.operations(warehouse, door, ZoneInfo(settings.time_zone), utc_now),
                *console_api.operations(warehouse, rebuilding, services),
            ],
            extra_routes=pages.routes(door, crm),
            checks={"kafka": kafka},
            description="What the business did, from changes captured in every database. In no order's path.",
        )
        await serve(
            "reporting",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                ("capture", watcher.run()),
                ("consumer", runner.run()),
                ("staff", staff.run()),
                ("rebuilding", rebuilding.run()),
            ],
        )


def _warehouse(settings: Settings) -> Warehouse:
    """Not opened yet. Raises SettingsError when it is no address of one."""
    kind, _, path = settings.warehouse.partition("://")
    if kind in ("ydb", "ydbs"):
        # Its SDK is large, and of no use to an installation that has its reports in a file.
        from lostwax.reporting.warehouse_ydb import YdbWarehouse, address_of

        try:
            return YdbWarehouse(address_of(settings.warehouse))
        except ValueError as error:
            raise SettingsError(f"LOSTWAX_WAREHOUSE is no address of YDB: {error}") from None
    if kind != "duckdb" or not path:
        raise SettingsError(
            f"LOSTWAX_WAREHOUSE is {settings.warehouse!r}; it must be like duckdb:///var/lib/lostwax/reports.duckdb"
            " or ydb://host:2136/database"
        )
    return DuckDbWarehouse(Path(path), memory=settings.warehouse_memory, threads=settings.warehouse_threads)


def main() -> None:
    run(serve_reporting(read_settings(Settings, os.environ)))
