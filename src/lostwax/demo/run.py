"""The demo: a fresh stack, partners, customers, a seller and operators as robots, a live table, the audit's verdict."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from lostwax.audit.journal import Journal, read_journal
from lostwax.audit.run import Report, audit
from lostwax.audit.sources import Databases
from lostwax.contracts.orders import Status
from lostwax.contracts.staff import Role
from lostwax.crm.handlers import add_staff
from lostwax.demo.hops import Standing, standing
from lostwax.demo.robots import Customer, Events, Operator, Partner, Seller, Taker, Witness, enter_shop, sign_in
from lostwax.demo.talking import Reader, Talker
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack
from lostwax.partner_api.keys import add_client
from lostwax.samples import Sample, generate

PARTNERS = ("Atelier Nord", "Gold & Grain", "Maison Lune")
CUSTOMERS = (("Nora", False), ("Anton", True))
"""People who buy in the shop, and who of them as a guest."""

OPERATORS = ("Ida", "Tomasz", "Leila", "Bruno", "Wen")
SELLER = "Klara"
TAKER = "Jonas"
"""A seller who takes orders by telephone."""

ADMINISTRATOR = "Maren"
TALK_LIMIT_S = 10.0
FINAL = (Status.SHIPPED, Status.CLOSED, Status.CANCELLED)
NOTHING_MAY_STAY: Mapping[Status, timedelta] = {s: timedelta(0) for s in Status if s not in FINAL}


class Cast(msgspec.Struct):
    """Everybody who plays, and what a visitor needs to come in beside them. `partners`: who orders, customers of the
    shop and a seller who takes orders among them."""

    partners: list[Partner]
    operators: list[Operator]
    seller: Seller
    talker: Talker
    readers: list[Reader]
    events: Events
    key: str
    badge: str
    seller_badge: str
    administrator_badge: str


class Progress(msgspec.Struct, frozen=True):
    """How far the demo is: orders accepted so far of those wanted, and where they stand."""

    wanted: int
    accepted: int
    seconds: float
    standing: Standing
    claims_won: int
    claims_lost: int
    events: Events


async def admit_cast(
    stack: Stack,
    journal: Journal,
    resources: AsyncExitStack,
    seed: int,
    *,
    rework_share: float,
    standing_share: float = 0.2,
    witness: Witness | None = None,
) -> Cast:
    """Make accounts for the robots, and a robot for each. `standing_share` of the orders need no acceptance of their
    price; `witness` is told of each request of the partners."""
    partners, operators, key, badge, events = [], [], "", "", Events()
    readers: list[Reader] = []
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    try:
        for name in PARTNERS:
            client, key = await add_client(connection, name, unlimited=True)
            url = stack.url("partner_api")
            partners.append(
                Partner(url, key, client.client_id, journal, events, standing_share=standing_share, witness=witness)
            )
    finally:
        await connection.close()
    for name, guest in CUSTOMERS:
        url = stack.url("shop")
        customer_id, token, email = await enter_shop(url, name, guest=guest)
        partners.append(
            Customer(url, token, customer_id, journal, events, standing_share=standing_share, witness=witness)
        )
        readers.append(Reader(stack.url("mail"), email, name, random.Random(seed + len(readers)), events))
    for number, name in enumerate(OPERATORS):
        badge = await _a_badge(stack, name, Role.OPERATOR)
        token = await sign_in(stack.url("crm"), badge)
        operators.append(
            Operator(stack.url("mes"), token, name, random.Random(seed + number), events, rework_share=rework_share)
        )
    seller_badge = await _a_badge(stack, SELLER, Role.SELLER)
    token = await sign_in(stack.url("crm"), seller_badge)
    seller = Seller(stack.url("crm"), token, random.Random(seed), events, hold_share=0.05, close_share=0.3)
    taker_token = await sign_in(stack.url("crm"), await _a_badge(stack, TAKER, Role.SELLER))
    taker = Taker(
        stack.url("crm"),
        taker_token,
        journal,
        events,
        random.Random(seed),
        standing_share=standing_share,
        witness=witness,
    )
    partners.append(taker)
    talker = Talker(stack.url("crm"), token, random.Random(seed), events)
    robots: list[Partner | Operator | Seller | Talker | Reader] = [*partners, *operators, seller, talker, *readers]
    for close in (robot.close for robot in robots):
        resources.push_async_callback(close)
    administrator_badge = await _a_badge(stack, ADMINISTRATOR, Role.ADMINISTRATOR)
    return Cast(partners, operators, seller, talker, readers, events, key, badge, seller_badge, administrator_badge)


async def _a_badge(stack: Stack, name: str, role: Role) -> str:
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"])
    try:
        return (await add_staff(connection, name, role, utc_now()))[1]
    finally:
        await connection.close()


async def ship_orders(
    stack: Stack,
    databases: Databases,
    orders: int,
    folder: Path,
    *,
    seed: int,
    show: Callable[[Progress], None],
    limit_s: float,
    per_second: float = 40,
    already: int = 0,
    eventful: bool = False,
) -> tuple[Cast, Report]:
    """Have `orders` orders placed, made and shipped by robots, then audit. `eventful`: some prices fail and are
    mended, some pieces fail their check, a cancellation comes too late, a seller holds some orders up for a moment and
    closes some, and some orders more are placed and cancelled.
    `already`: orders that were finished before. Raises RobotFailed; past `limit_s` seconds without all finished, the
    audit names those that are not."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = await asyncio.to_thread(generate, folder / "models", min(orders, 24), seed)
    journal_path = folder / "journal.jsonl"
    journal_path.unlink(missing_ok=True)
    journal = Journal(journal_path)
    async with AsyncExitStack() as resources:
        resources.callback(journal.close)
        cast = await admit_cast(stack, journal, resources, seed, rework_share=0.06 if eventful else 0.0)
        started = time.monotonic()
        async with asyncio.TaskGroup() as robots:
            tasks = [robots.create_task(p.look_after_orders()) for p in cast.partners]
            tasks += [robots.create_task(o.work()) for o in cast.operators]
            if eventful:
                tasks.append(robots.create_task(cast.partners[0].cancel_too_late()))
                tasks.append(robots.create_task(cast.seller.work()))
                tasks.append(robots.create_task(cast.talker.work()))
                tasks += [robots.create_task(reader.work()) for reader in cast.readers]
            fates = _fates(orders) if eventful else [""] * orders
            placing = robots.create_task(_place(cast.partners, samples, fates, seed, per_second))
            await _watch(databases, cast, len(fates), already, show, started, limit_s)
            if eventful:
                await _talked_out(cast)
            for task in (*tasks, placing):
                task.cancel()
    report = await audit(
        databases,
        stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"],
        read_journal(journal_path),
        now=utc_now,
        limits=NOTHING_MAY_STAY,
        # Connect, which nothing waits for, may take longer to start than a small demo takes altogether.
        reports_s=240,
    )
    return cast, report


async def _talked_out(cast: Cast) -> None:
    """Until everybody who was asked has answered; orders do not wait for that, and a demo only so long."""
    for _ in range(int(TALK_LIMIT_S / 0.25)):
        if cast.talker.settled:
            return
        await asyncio.sleep(0.25)


def _fates(orders: int) -> list[str]:
    """A fate for each order: one in twelve needs mending, and one more in twenty is placed to be cancelled."""
    fates = ["mend" if n % 12 == 5 else "" for n in range(orders)]
    for position in range(7, orders, 20):
        fates.insert(position, "cancel")
    return fates


async def _place(
    partners: list[Partner], samples: list[Sample], fates: Sequence[str], seed: int, per_second: float
) -> list[UUID]:
    chance = random.Random(seed)
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, fate in enumerate(fates):
            await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))
            partner = partners[number % len(partners)]
            sample = samples[number % len(samples)]
            own = random.Random(chance.random())
            tasks.append(group.create_task(partner.order(sample, f"demo-{seed}-{number}", own, fate)))
    return [task.result() for task in tasks]


async def _watch(
    databases: Databases,
    cast: Cast,
    orders: int,
    already: int,
    show: Callable[[Progress], None],
    started: float,
    limit_s: float,
) -> None:
    while True:
        began = time.monotonic()
        now = await standing(databases.shards)
        accepted = sum(len(p.accepted) for p in cast.partners)
        show(
            Progress(
                orders,
                accepted,
                began - started,
                now,
                sum(o.claims_won for o in cast.operators),
                sum(o.claims_lost for o in cast.operators),
                cast.events,
            )
        )
        if sum(now.by_status.get(s, 0) for s in FINAL) >= orders + already or began - started > limit_s:
            return
        # A large demo's history takes time to read; most of the time belongs to the orders.
        await asyncio.sleep(max(0.4, 5 * (time.monotonic() - began)))
