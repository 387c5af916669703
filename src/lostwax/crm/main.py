"""The CRM, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from lostwax.crm import api, handlers, store, worker
from lostwax.crm.settings import Settings
from lostwax.kit import telemetry
from lostwax.kit.auth import Member, ServiceSigner, StaffSigner, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.one_database import Plumbing, open_database
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.kit.staff import Account, StaffDoor

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_crm(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("crm", settings))
        pool = await open_database("crm", settings, MIGRATIONS, resources)
        office = handlers.Office(pool, now=utc_now)
        orders = Neighbour("orders", settings.orders_url, ServiceSigner("crm", settings.service_key))
        resources.push_async_callback(orders.close)

        async def account(member: Member) -> Account | None:
            async with pool.acquire() as connection:
                return await store.account(connection, member.staff_id)

        door = StaffDoor(StaffVerifier(settings.service_keys, issuer="crm"), account)
        plumbing = Plumbing("crm", settings, pool, worker.routes(office))
        signer = StaffSigner("crm", settings.service_key)
        app = build_app(
            "crm",
            [
                api.sign_in_operation(office, signer, plumbing.verifier),
                *api.staff_operations(office, door),
                *api.order_operations(office, door, orders),
                *plumbing.operations(),
            ],
            checks=plumbing.checks(),
            description="The sellers' door, and the accounts of the staff.",
        )
        await serve("crm", app, host=settings.http_host, port=settings.http_port, background=plumbing.background())


def main() -> None:
    run(serve_crm(read_settings(Settings, os.environ)))
