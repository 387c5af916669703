"""The CRM, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from lostwax.channel import offer_api
from lostwax.channel.catalogue import Catalogue
from lostwax.channel.wiring import Channel
from lostwax.contracts.orders import ActorKind
from lostwax.crm import (
    api,
    conversation_api,
    customers_api,
    door_api,
    handlers,
    layouts_api,
    mail,
    pages,
    staff_api,
    store,
    tasks_api,
    worker,
)
from lostwax.crm.board import Board
from lostwax.crm.domain import CHANNEL
from lostwax.crm.settings import Settings
from lostwax.kit import telemetry
from lostwax.kit.auth import Member, StaffSigner, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.mail import Postman, SmtpSettings
from lostwax.kit.one_database import open_database
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.kit.staff import STAFF_AUTH, Account, StaffDoor

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve_crm(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("crm", settings))
        pool = await open_database("crm", settings, MIGRATIONS, resources)
        board = Board(settings.redis_url, settings.database_url, pool)
        resources.push_async_callback(board.close)
        office = handlers.Office(
            pool,
            board,
            now=utc_now,
            letters=settings.letters_language,
            sellers_address=settings.sellers_address,
        )
        routes = partial(worker.routes, office)
        channel = Channel(CHANNEL, ActorKind.SELLER, settings, pool, None, routes, resources)
        orders = channel.orders

        async def account(member: Member) -> Account | None:
            async with pool.acquire() as connection:
                return await store.account(connection, member.staff_id)

        door = StaffDoor(StaffVerifier(settings.service_keys, issuer="crm"), account)
        signer = StaffSigner("crm", settings.service_key)
        smtp = SmtpSettings(settings.smtp_url, settings.smtp_sender, settings.public_url)
        postman = Postman(pool, settings.database_url, smtp, now=utc_now)
        entrance = staff_api.entrance(office, signer)
        app = build_app(
            "crm",
            [
                staff_api.sign_in_operation(entrance, channel.verifier),
                *staff_api.operations(office, door),
                *api.operations(office, door, orders),
                *customers_api.operations(office, door),
                *layouts_api.operations(office, door),
                *tasks_api.operations(office, door),
                *conversation_api.operations(office, door, channel.verifier, settings.public_url),
                *door_api.guarded(
                    [
                        *door_api.operations(office, channel.door, door, orders),
                        *channel.of_models(STAFF_AUTH),
                        *offer_api.operations(Catalogue(channel.models), STAFF_AUTH),
                    ],
                    door,
                ),
                *channel.for_services(),
                *rebuild_operations(board, channel.verifier),
            ],
            extra_routes=pages.routes(
                office, door, orders, entrance, settings.s3_endpoint, settings.largest_model_bytes
            ),
            checks=channel.checks(),
            description="The sellers' door, and the accounts of the staff.",
        )
        await serve(
            "crm",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                ("board", board.run()),
                *channel.background(),
                ("mail", postman.run()),
                ("reminders", mail.run(office)),
            ],
        )


def main() -> None:
    run(serve_crm(read_settings(Settings, os.environ)))
