"""The partner API, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from lostwax.contracts import topics
from lostwax.kit import logs
from lostwax.kit.auth import KeyCache, ServiceVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.objects import Bucket
from lostwax.kit.postgres import UNREACHABLE, migrate, open_pool
from lostwax.kit.publishing import PublishingLimits
from lostwax.kit.relay import Relay
from lostwax.kit.service import run, serve
from lostwax.kit.service_calls import publishing_operations
from lostwax.kit.settings import read_settings
from lostwax.partner_api import api, handlers, store, worker
from lostwax.partner_api.settings import Settings

WRITES = tuple(topic for topic in topics.ALL if "partner_api" in topic.written_by)
MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_partner_api(settings: Settings) -> None:
    logs.configure("partner_api", settings.log_level)
    async with AsyncExitStack() as resources:
        await migrate(settings.database_url, MIGRATIONS)
        pool = await resources.enter_async_context(await open_pool(settings.database_url, name="partner_api", size=16))
        door = handlers.Door(
            pool,
            Bucket(settings.s3, settings.staging_bucket),
            now=utc_now,
            largest_model_bytes=settings.largest_model_bytes,
        )

        async def look_up(digest: bytes) -> store.Client | None:
            async with pool.acquire() as connection:
                return await store.client_of_key(connection, digest)

        limits = PublishingLimits(settings.database_url)
        relay = Relay(
            settings.database_url,
            service="partner_api",
            topics=WRITES,
            publisher=Publisher(settings.kafka_bootstrap, client_id="partner_api-relay"),
            limits=limits,
        )
        runner = Runner(
            settings.kafka_bootstrap,
            group="partner_api",
            routes=worker.routes(door),
            publisher=Publisher(settings.kafka_bootstrap, client_id="partner_api-dead"),
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

        verifier = ServiceVerifier("partner_api", settings.service_keys)
        app = build_app(
            "partner_api",
            [
                *api.operations(door, KeyCache(look_up)),
                api.resend_operation(door, verifier),
                *publishing_operations(WRITES, limits, pool, verifier),
            ],
            checks={"database": database_answers, "kafka": consumes},
            description="Order pieces from 3D models, as a partner of the workshop.",
        )
        await serve(
            "partner_api",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[
                ("publishing limits", limits.run()),
                ("relay", relay.run()),
                ("consumer", runner.run()),
            ],
        )


def main() -> None:
    run(serve_partner_api(read_settings(Settings, os.environ)))
