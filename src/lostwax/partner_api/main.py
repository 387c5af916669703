"""The partner API, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from lostwax.kit import telemetry
from lostwax.kit.announcing import Announcer
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.objects import Bucket
from lostwax.kit.one_database import Plumbing, open_database
from lostwax.kit.postgres import open_pool
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.partner_api import api, handlers, hooks_api, keys_api, models_api, price_jobs_api, quotes_api, worker
from lostwax.partner_api.callers import Callers
from lostwax.partner_api.clients import OrderViews
from lostwax.partner_api.hooks_delivery import Deliverer
from lostwax.partner_api.hooks_sender import Sender
from lostwax.partner_api.models import Models
from lostwax.partner_api.orders_client import OrdersClient
from lostwax.partner_api.settings import Settings
from lostwax.partner_api.staging import Janitor

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_partner_api(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("partner_api", settings))
        pool = await open_database("partner_api", settings, MIGRATIONS, resources)
        janitor = Janitor(staging_days=settings.staging_days)
        models = Models(
            pool,
            Bucket(settings.s3, settings.staging_bucket),
            largest_model_bytes=settings.largest_model_bytes,
            to_clear=janitor.look,
        )
        views = OrderViews(
            settings.redis_url,
            settings.database_url,
            pool,
            handlers.REQUESTS,
            cached=timedelta(days=settings.cache_days),
            now=utc_now,
        )
        resources.push_async_callback(views.close)
        door = handlers.Door(pool, models, views, now=utc_now)
        limiter = RateLimiter(settings.redis_url, "rate:")
        resources.push_async_callback(limiter.close)
        callers = Callers(pool, limiter, Limit(settings.client_rate_per_s, settings.client_burst), now=utc_now)
        plumbing = Plumbing("partner_api", settings, pool, worker.routes(door))
        signer = ServiceSigner("partner_api", settings.service_key)
        orders = OrdersClient(settings.orders_url, signer)
        resources.push_async_callback(orders.close)
        announcer = Announcer(
            pool,
            settings.database_url,
            settings.orders_url,
            signer,
            plumbing.limits,
            next_batch=handlers.next_announcement,
            move=handlers.announced,
        )
        sender = Sender(to_loopback=settings.hooks_to_loopback)
        resources.push_async_callback(sender.close)
        deliverer = Deliverer(
            await resources.enter_async_context(await open_pool(settings.database_url, name="web hooks", size=4)),
            settings.database_url,
            settings.orders_url,
            signer,
            sender,
            render=hooks_api.render,
            now=utc_now,
        )
        app = build_app(
            "partner_api",
            [
                *callers.guarded(
                    [
                        *api.operations(door),
                        *models_api.operations(models, orders),
                        *quotes_api.operations(door),
                        *price_jobs_api.operations(door, orders),
                        *hooks_api.operations(pool, sender),
                        *keys_api.operations(pool, utc_now),
                    ]
                ),
                api.resend_operation(door, plumbing.verifier),
                *plumbing.operations(),
                *rebuild_operations(views, plumbing.verifier),
            ],
            checks=plumbing.checks(),
            description="Order pieces from 3D models, as a partner of the workshop.",
        )
        await serve(
            "partner_api",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[
                ("orders in Redis", views.run()),
                *plumbing.background(),
                ("announcer", announcer.run()),
                ("web hooks", deliverer.run()),
                ("models", models.follow_changes(settings.database_url)),
                ("staging", janitor.run(models)),
                ("callers", callers.follow_changes(settings.database_url)),
                ("use of keys", callers.tell_use()),
            ],
        )


def main() -> None:
    run(serve_partner_api(read_settings(Settings, os.environ)))
