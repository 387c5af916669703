"""The partner API, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from lostwax.channel import api
from lostwax.channel.wiring import Channel, views_of
from lostwax.contracts.orders import ActorKind
from lostwax.kit import telemetry
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.one_database import open_database
from lostwax.kit.postgres import open_pool
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.partner_api import changes, hooks_api, keys_api, worker
from lostwax.partner_api.callers import AUTH, Callers
from lostwax.partner_api.hooks_delivery import Deliverer
from lostwax.partner_api.hooks_sender import Sender
from lostwax.partner_api.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_partner_api(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("partner_api", settings))
        pool = await open_database("partner_api", settings, MIGRATIONS, resources)
        views = views_of("partner_api", settings, pool, changes.REQUESTS, resources)
        channel = Channel("partner_api", ActorKind.PARTNER, settings, pool, views, worker.routes, resources)
        limiter = RateLimiter(settings.redis_url, "rate:")
        resources.push_async_callback(limiter.close)
        callers = Callers(pool, limiter, Limit(settings.client_rate_per_s, settings.client_burst), now=utc_now)
        sender = Sender(to_loopback=settings.hooks_to_loopback)
        resources.push_async_callback(sender.close)
        deliverer = Deliverer(
            await resources.enter_async_context(await open_pool(settings.database_url, name="web hooks", size=4)),
            settings.database_url,
            settings.orders_url,
            channel.signer,
            sender,
            render=hooks_api.render,
            now=utc_now,
        )
        app = build_app(
            "partner_api",
            [
                *callers.guarded(
                    [
                        *api.operations(channel.door, AUTH),
                        *channel.of_models(AUTH),
                        *hooks_api.operations(pool, sender),
                        *keys_api.operations(pool, utc_now),
                    ]
                ),
                *channel.for_services(),
                *rebuild_operations(views, channel.verifier),
            ],
            checks=channel.checks(),
            description="Order pieces from 3D models, as a partner of the workshop.",
        )
        await serve(
            "partner_api",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                *channel.background(),
                ("web hooks", deliverer.run()),
                ("callers", callers.follow_changes(settings.database_url)),
                ("use of keys", callers.tell_use()),
            ],
        )


def main() -> None:
    run(serve_partner_api(read_settings(Settings, os.environ)))
