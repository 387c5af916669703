"""The shop, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from lostwax.channel import api as channel_api
from lostwax.channel import offer_api
from lostwax.channel.catalogue import Catalogue
from lostwax.channel.wiring import Channel, views_of
from lostwax.contracts.orders import ActorKind
from lostwax.kit import telemetry
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.mail import Postman, SmtpSettings
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.one_database import open_database
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.shop import api, conversation_api, handlers, pages, worker
from lostwax.shop.callers import AUTH, Callers
from lostwax.shop.passwords import Passwords
from lostwax.shop.payment import PayLater
from lostwax.shop.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_shop(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("shop", settings))
        pool = await open_database("shop", settings, MIGRATIONS, resources)
        views = views_of("shop", settings, pool, handlers.REQUESTS, resources)
        entrance = handlers.Entrance(pool, Passwords(cost=settings.password_cost), utc_now)
        routes = partial(worker.routes, entrance)
        channel = Channel("shop", ActorKind.CUSTOMER, settings, pool, views, routes, resources)
        door = channel.door
        limiter = RateLimiter(settings.redis_url, "shop-rate:")
        resources.push_async_callback(limiter.close)
        callers = Callers(
            entrance,
            limiter,
            Limit(settings.client_rate_per_s, settings.client_burst),
            Limit(settings.entries_per_minute / 60, settings.entries_burst),
            now=utc_now,
        )
        crm = Neighbour("crm", settings.crm_url, channel.signer)
        resources.push_async_callback(crm.close)
        postman = Postman(
            pool,
            settings.database_url,
            SmtpSettings(settings.smtp_url, settings.smtp_sender, settings.public_url),
            now=utc_now,
        )
        app = build_app(
            "shop",
            [
                *callers.guarded(
                    [
                        *channel_api.operations(door, AUTH),
                        *channel.of_models(AUTH),
                        *api.operations(entrance, callers, door, PayLater()),
                        *conversation_api.operations(entrance, crm),
                        *offer_api.operations(Catalogue(channel.models), AUTH),
                    ]
                ),
                *channel.for_services(),
                *rebuild_operations(views, channel.verifier),
            ],
            checks=channel.checks(),
            extra_routes=pages.routes(
                entrance, callers, door, crm, settings.s3_endpoint, settings.largest_model_bytes, utc_now
            ),
            description="The internet shop, for people.",
        )
        await serve(
            "shop",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                *channel.background(),
                ("callers", callers.follow_changes(settings.database_url)),
                ("sweep", handlers.sweep(entrance)),
                ("mail", postman.run()),
            ],
        )


def main() -> None:
    run(serve_shop(read_settings(Settings, os.environ)))
