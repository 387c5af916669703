"""The MES, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from lostwax.kit import telemetry
from lostwax.kit.auth import Member, ServiceSigner, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.one_database import Plumbing, open_database
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.kit.staff import Account, StaffDoor
from lostwax.mes import api, expiry, handlers, pages, worker
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
        signer = ServiceSigner("mes", settings.service_key)
        orders = Neighbour("orders", settings.orders_url, signer)
        crm = Neighbour("crm", settings.crm_url, signer)
        resources.push_async_callback(orders.close)
        resources.push_async_callback(crm.close)

        async def account(member: Member) -> Account:
            return await handlers.account(workshop, member)

        door = StaffDoor(StaffVerifier(settings.service_keys, issuer="crm"), account)
        plumbing = Plumbing("mes", settings, pool, worker.routes(workshop))
        app = build_app(
            "mes",
            [
                *api.operations(workshop, door, orders),
                *plumbing.operations(),
                *rebuild_operations(lists, plumbing.verifier),
            ],
            checks=plumbing.checks(),
            extra_routes=pages.routes(door, crm, utc_now),
            description="The workshop's queue, for operators.",
        )
        await serve(
            "mes",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                ("lists", lists.run()),
                *plumbing.background(),
                ("claim expiry", expiry.run(workshop, timedelta(hours=settings.claim_limit_h))),
            ],
        )


def main() -> None:
    run(serve_mes(read_settings(Settings, os.environ)))
