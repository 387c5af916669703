"""The MES, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from lostwax.kit import telemetry
from lostwax.kit.auth import KeyCache, ServiceSigner
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.one_database import Plumbing, open_database
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.mes import api, handlers, pages, store, worker
from lostwax.mes.clients import Lists
from lostwax.mes.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_mes(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("mes", settings))
        pool = await open_database("mes", settings, MIGRATIONS, resources)
        lists = Lists(settings.redis_url, settings.database_url, pool, handlers.STANDINGS)
        resources.push_async_callback(lists.close)
        workshop = handlers.Workshop(pool, lists, now=utc_now)
        orders = api.OrdersClient(settings.orders_url, ServiceSigner("mes", settings.service_key))
        resources.push_async_callback(orders.close)

        async def look_up(digest: bytes) -> store.Operator | None:
            async with pool.acquire() as connection:
                return await store.operator_of_badge(connection, digest)

        badges = api.Badges(KeyCache(look_up))
        plumbing = Plumbing("mes", settings, pool, worker.routes(workshop))
        app = build_app(
            "mes",
            [
                *api.operations(workshop, badges, orders),
                *plumbing.operations(),
                *rebuild_operations(lists, plumbing.verifier),
            ],
            checks=plumbing.checks(),
            extra_routes=pages.routes(badges, utc_now),
            description="The workshop's queue, for operators.",
        )
        await serve(
            "mes",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[("lists", lists.run()), *plumbing.background()],
        )


def main() -> None:
    run(serve_mes(read_settings(Settings, os.environ)))
