"""The MES, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from lostwax.contracts import topics
from lostwax.kit import logs
from lostwax.kit.auth import KeyCache, ServiceSigner, ServiceVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.postgres import UNREACHABLE, migrate, open_pool
from lostwax.kit.publishing import PublishingLimits
from lostwax.kit.relay import Relay
from lostwax.kit.service import run, serve
from lostwax.kit.service_calls import publishing_operations
from lostwax.kit.settings import read_settings
from lostwax.mes import api, handlers, pages, store, worker
from lostwax.mes.clients import Lists
from lostwax.mes.settings import Settings

WRITES = tuple(topic for topic in topics.ALL if "mes" in topic.written_by)
MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_mes(settings: Settings) -> None:
    logs.configure("mes", settings.log_level)
    async with AsyncExitStack() as resources:
        await migrate(settings.database_url, MIGRATIONS)
        pool = await resources.enter_async_context(await open_pool(settings.database_url, name="mes", size=16))
        lists = Lists(settings.redis_url, handlers.snapshot_of(pool))
        resources.push_async_callback(lists.close)
        workshop = handlers.Workshop(pool, lists, now=utc_now)
        orders = api.OrdersClient(settings.orders_url, ServiceSigner("mes", settings.service_key))
        resources.push_async_callback(orders.close)

        async def look_up(digest: bytes) -> store.Operator | None:
            async with pool.acquire() as connection:
                return await store.operator_of_badge(connection, digest)

        limits = PublishingLimits(settings.database_url)
        relay = Relay(
            settings.database_url,
            service="mes",
            topics=WRITES,
            publisher=Publisher(settings.kafka_bootstrap, client_id="mes-relay"),
            limits=limits,
        )
        runner = Runner(
            settings.kafka_bootstrap,
            group="mes",
            routes=worker.routes(workshop),
            publisher=Publisher(settings.kafka_bootstrap, client_id="mes-dead"),
            instance=settings.instance,
            later=UNREACHABLE,
        )

        async def database_answers() -> str | None:
            try:
                await pool.fetchval("SELECT 1")
            except UNREACHABLE as error:
                return repr(error)
            return None

        async def consumes() -> str | None:
            return runner.readiness

        verifier = ServiceVerifier("mes", settings.service_keys)
        badges = api.Badges(KeyCache(look_up))
        app = build_app(
            "mes",
            [
                *api.operations(workshop, badges, orders),
                *publishing_operations(WRITES, limits, pool, verifier),
            ],
            checks={"database": database_answers, "kafka": consumes},
            extra_routes=pages.routes(badges, utc_now),
            description="The workshop's queue, for operators.",
        )
        await serve(
            "mes",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[
                ("publishing limits", limits.run()),
                ("relay", relay.run()),
                ("lists", lists.run()),
                ("consumer", runner.run()),
            ],
        )


def main() -> None:
    run(serve_mes(read_settings(Settings, os.environ)))
