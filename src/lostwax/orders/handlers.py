"""Use cases of Orders: each takes messages of one shard and is one transaction there. All are idempotent: an order by
its id, a command by its command id, a price by its job id, a model by its digest."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

import msgspec

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of, bucket_of_digest
from lostwax.contracts.models import ModelNeeded, ModelStored, ModelUploaded
from lostwax.contracts.orders import (
    Command,
    ModelReady,
    Order,
    OrderChanged,
    OrderRequested,
    Outcome,
    PriceFailure,
    Resubmit,
    Status,
)
from lostwax.contracts.pricing import NotPriced, PriceRequest, PriceResult, Tariff
from lostwax.kit import outbox
from lostwax.kit.objects import Bucket, NoSuchObject, TooLong
from lostwax.kit.outbox import Message
from lostwax.kit.postgres import UNREACHABLE, Connection
from lostwax.kit.shards import Shard, ShardMap, check_owned
from lostwax.orders import domain, store, waiting
from lostwax.orders.store import Entry
from lostwax.orders.waiting import LAST, Arrival, DeadCommand, Origin

log = logging.getLogger(__name__)

_KNOWN_MODELS = 100_000


class Orders:
    """What the use cases need: shards, the model store, staging buckets by name, the tariff in force, the clock."""

    def __init__(
        self,
        shards: ShardMap,
        *,
        models: Bucket,
        staging: Callable[[str], Bucket],
        tariff: Tariff,
        now: Callable[[], datetime],
        largest_model_bytes: int,
    ) -> None:
        self.shards = shards
        self.models = models
        self.staging = staging
        self.tariff = tariff
        self.now = now
        self.largest_model_bytes = largest_model_bytes
        self.known_models: set[str] = set()


class _Changes:
    """What a transaction has decided so far: new versions, and messages beside them. Written once, at its end."""

    def __init__(self, orders: Orders, entries: Mapping[UUID, Entry]) -> None:
        self._orders = orders
        self.entries = dict(entries)
        self.versions: list[Order] = []
        self.touched: set[UUID] = set()
        self.messages: list[Message] = []

    def create(self, entry: Entry) -> None:
        """An order that has just been inserted as it stands."""
        self._tell(entry.order)
        if entry.price_job_id is not None:
            self._request_price(entry.order, entry.price_job_id)

    def take(self, order: Order) -> None:
        """The next version of an order that is among the entries. Its price job goes on while it awaits a price."""
        before = self.entries[order.order_id]
        waits = domain.awaits_price(order)
        self.entries[order.order_id] = Entry(
            order, before.price_job_id if waits else None, before.kept_price if waits else None
        )
        self.touched.add(order.order_id)
        self._tell(order)

    def ask_for_price(self, order: Order) -> None:
        """Make this order's current version wait for one price job, and ask for it."""
        job_id = domain.price_job(order)
        self.entries[order.order_id].price_job_id = job_id
        self.touched.add(order.order_id)
        self._request_price(order, job_id)

    def ask_for_model(self, order: Order) -> None:
        """Have the order's model looked for; the answer leads on to the price."""
        sha256 = order.specification.model.sha256
        needed = ModelNeeded(sha256=sha256, order_id=order.order_id, account=order.account)
        self.messages.append(outbox.message(topics.MODEL_TRANSFERS, sha256, needed))

    def take_price(self, entry: Entry, result: PriceResult, now: datetime) -> None:
        """Apply the result of the entry's current job, or keep it while the order is on hold."""
        if not domain.awaits_price(entry.order) or result.job_id != entry.price_job_id:
            return
        if entry.order.status is Status.ON_HOLD:
            entry.kept_price = result
            self.touched.add(entry.order.order_id)
            return
        for version in domain.take_price(
            entry.order, entry.price_job_id, result, self._orders.tariff.held_for_days, now
        ):
            self.take(version)

    def _tell(self, order: Order) -> None:
        self.versions.append(order)
        self.messages.append(outbox.message(topics.ORDER_CHANGES, order.order_id, OrderChanged(order)))

    def _request_price(self, order: Order, job_id: UUID) -> None:
        lane = topics.PRICING_HEAVY if domain.is_heavy(order) else topics.PRICING_QUICK
        request = PriceRequest(
            job_id=job_id,
            subject_id=order.order_id,
            account=order.account,
            specification=order.specification,
            tariff=self._orders.tariff,
        )
        self.messages.append(outbox.message(lane, job_id, request, placed_by=order.order_id))

    def obey(self, commands: Sequence[Command], now: datetime) -> list[Outcome]:
        """Apply commands in sequence; each has one outcome, refused ones change nothing."""
        outcomes = []
        for command in commands:
            order = self.entries[command.order_id].order
            code = detail = None
            try:
                order = domain.obey(order, command, now)
                self.take(order)
                if isinstance(command.action, Resubmit):
                    self.ask_for_model(order)
            except domain.Refused as refused:
                code, detail = refused.code, refused.detail
            outcome = Outcome(
                command_id=command.command_id,
                order_id=command.order_id,
                accepted=code is None,
                version=order.version,
                status=order.status,
                at=now,
                code=code,
                detail=detail,
            )
            outcomes.append(outcome)
            self.messages.append(outbox.message(topics.ORDER_OUTCOMES, command.order_id, outcome))
            entry = self.entries[command.order_id]
            if entry.kept_price is not None and entry.order.status is Status.SUBMITTED:
                self.take_price(entry, entry.kept_price, now)
        return outcomes

    async def write(self, connection: Connection) -> None:
        await store.update_orders(connection, [self.entries[i] for i in sorted(self.touched)])
        await store.insert_history(connection, self.versions)
        await outbox.add(connection, self.messages)


async def create_orders(orders: Orders, shard: Shard, requests: Sequence[OrderRequested]) -> None:
    """Create each requested order once, make its history, and ask for its price or for its model."""
    now = orders.now()
    stored = await _stored_models(orders, {r.specification.model.sha256 for r in requests})
    entries: dict[UUID, Entry] = {}
    for request in requests:
        order = domain.submit(request, now)
        has_model = request.specification.model.sha256 in stored
        entries.setdefault(request.order_id, Entry(order, domain.price_job(order) if has_model else None))
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, map(bucket_of, entries))
        await store.lock_arrivals(connection, entries)
        new_ids = await store.insert_orders(connection, list(entries.values()))
        if not new_ids:
            return
        changes = _Changes(orders, {i: entries[i] for i in new_ids})
        for order_id in sorted(new_ids):
            entry = entries[order_id]
            changes.create(entry)
            if entry.price_job_id is None:
                changes.ask_for_model(entry.order)
        early = await waiting.take_early_commands(connection, new_ids)
        dead = await waiting.dead_commands(connection, new_ids)
        ready = await _park_later(connection, early, dead.values())
        await store.insert_outcomes(connection, changes.obey(ready, now))
        await changes.write(connection)


async def _stored_models(orders: Orders, digests: set[str]) -> set[str]:
    """Which of these models are surely in the store. Models live on shards of their own digest; a shard that is away
    knows of none, and the order then waits for its model's own message."""
    unknown = digests - orders.known_models
    by_shard: dict[int, list[str]] = {}
    for digest in unknown:
        by_shard.setdefault(orders.shards.of(bucket_of_digest(digest)).number, []).append(digest)
    for number, some in by_shard.items():
        try:
            async with orders.shards.shards[number].pool.acquire() as connection:
                found = await store.stored_models(connection, some)
        except UNREACHABLE as error:
            log.warning("model index away", extra={"shard": number, "error": repr(error)})
            continue
        if len(orders.known_models) > _KNOWN_MODELS:
            orders.known_models.clear()
        orders.known_models |= found
    return digests & orders.known_models


async def obey_commands(
    orders: Orders, shard: Shard, commands: Sequence[Command], origins: Sequence[Origin] | None = None
) -> None:
    """Decide each command once. Those that came before their order wait for it; those behind a dead-lettered command of
    their order wait until that one has come again (`origins` tell) or is discarded."""
    now = orders.now()
    arrivals = [Arrival(*pair) for pair in zip(commands, origins or [Origin()] * len(commands), strict=True)]
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, (bucket_of(c.order_id) for c in commands))
        entries = await store.lock_orders(connection, (c.order_id for c in commands))
        if absent := {c.order_id for c in commands} - set(entries):
            # Each may be being created just now, by a transaction that has looked for early commands already.
            await store.lock_arrivals(connection, absent)
            entries |= await store.lock_orders(connection, absent)
        replayed = [a.origin.replayed_from for a in arrivals if a.origin.replayed_from is not None]
        dead = await waiting.dead_commands(connection, (c.order_id for c in commands), replayed)
        released: list[Arrival] = []
        if dead:
            settled, again, arrivals = _settle(arrivals, dead)
            entries |= await store.lock_orders(connection, {m.order_id for m in settled} - set(entries))
            # One that was given up before its order came, and is here again before that was done with.
            await waiting.forget_given_up(connection, again)
            released = await _release(connection, settled, dead)
        decided = await store.decided_commands(connection, (c.command_id for c in commands))
        new: dict[UUID, Arrival] = {}
        for arrival in arrivals:
            if arrival.command.command_id not in decided:
                new.setdefault(arrival.command.command_id, arrival)
        new |= {a.command.command_id: a for a in released}
        await waiting.keep_early_commands(connection, [a for a in new.values() if a.command.order_id not in entries])
        here = [a for a in new.values() if a.command.order_id in entries]
        ready = await _park_later(connection, here, dead.values())
        changes = _Changes(orders, entries)
        await store.insert_outcomes(connection, changes.obey(ready, now))
        await changes.write(connection)


async def go_on_without(orders: Orders, shard: Shard, place: str) -> None:
    """The dead-lettered command that stood at `place` will not come again: apply those that waited behind it."""
    async with shard.pool.acquire() as connection, connection.transaction():
        settled = list((await waiting.dead_commands(connection, (), [place])).values())
        if not settled:
            return
        await check_owned(connection, (bucket_of(m.order_id) for m in settled))
        entries = await store.lock_orders(connection, (m.order_id for m in settled))
        dead = await waiting.dead_commands(connection, (m.order_id for m in settled))
        released = await _release(connection, settled, dead)
        changes = _Changes(orders, entries)
        await store.insert_outcomes(connection, changes.obey([a.command for a in released], orders.now()))
        await changes.write(connection)


def _settle(
    arrivals: Sequence[Arrival], dead: Mapping[str, DeadCommand]
) -> tuple[list[DeadCommand], list[UUID], list[Arrival]]:
    """Which dead-lettered commands have come again, the ids of the commands that they are, and all arrivals, with those
    at the positions that they had at first."""
    settled: dict[str, DeadCommand] = {}
    again: list[UUID] = []
    placed: list[Arrival] = []
    for arrival in arrivals:
        command, origin = arrival.command, arrival.origin
        # At its own place: the reader was killed after it had marked the command and before it had buried it.
        for place in (origin.replayed_from, origin.place):
            if place is not None and (mark := dead.get(place)) is not None:
                settled[place] = mark
                again.append(command.command_id)
                origin = msgspec.structs.replace(origin, position=mark.position)
        placed.append(Arrival(command, origin))
    return list(settled.values()), again, placed


async def _release(
    connection: Connection, settled: Sequence[DeadCommand], dead: dict[str, DeadCommand]
) -> list[Arrival]:
    """Forget dead-lettered commands, also in `dead`; returns the parked ones that no other holds up any more."""
    await waiting.forget_dead_commands(connection, [m.place for m in settled])
    for mark in settled:
        dead.pop(mark.place, None)
    first = waiting.first_positions(dead.values())
    return await waiting.take_parked_commands(connection, {m.order_id: first.get(m.order_id) for m in settled})


async def _park_later(
    connection: Connection, arrivals: Sequence[Arrival], dead: Collection[DeadCommand]
) -> list[Command]:
    """Park the commands that stand behind a dead-lettered one of their order; returns the others, in sequence."""
    if not dead:
        return [a.command for a in arrivals]
    first = waiting.first_positions(dead)
    ready: list[Arrival] = []
    later: list[Arrival] = []
    for arrival in sorted(arrivals, key=lambda a: a.position):
        held_up = first.get(arrival.command.order_id, LAST + 1) < arrival.position
        (later if held_up else ready).append(arrival)
    await waiting.park_commands(connection, later)
    return [a.command for a in ready]


async def take_prices(orders: Orders, shard: Shard, results: Sequence[PriceResult]) -> None:
    """Apply price results to the orders whose current job they answer; drop the others."""
    now = orders.now()
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, (bucket_of(r.subject_id) for r in results))
        changes = _Changes(orders, await store.lock_orders(connection, (r.subject_id for r in results)))
        for result in results:
            entry = changes.entries.get(result.subject_id)
            if entry is None:
                log.warning("price for an unknown order", extra={"order": result.subject_id, "job": result.job_id})
                continue
            changes.take_price(entry, result, now)
        await changes.write(connection)


async def take_models(orders: Orders, shard: Shard, ready: Sequence[ModelReady]) -> None:
    """Ask for the price of orders whose model has come, or fail the price of those whose model never will."""
    now = orders.now()
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, (bucket_of(r.order_id) for r in ready))
        changes = _Changes(orders, await store.lock_orders(connection, (r.order_id for r in ready)))
        for message in ready:
            entry = changes.entries.get(message.order_id)
            if entry is None or not _waits_for(entry, message.sha256):
                continue
            if message.failure is None:
                changes.ask_for_price(entry.order)
                continue
            # A job that is answered here: the same path as a failed price, so a hold keeps it just so.
            entry.price_job_id = domain.price_job(entry.order)
            failed = PriceResult(
                job_id=entry.price_job_id,
                subject_id=entry.order.order_id,
                currency=orders.tariff.currency,
                tariff_version=orders.tariff.version,
                result=NotPriced(message.failure),
            )
            changes.take_price(entry, failed, now)
        await changes.write(connection)


def _waits_for(entry: Entry, sha256: str) -> bool:
    return (
        domain.awaits_price(entry.order)
        and entry.price_job_id is None
        and entry.order.specification.model.sha256 == sha256
    )


async def answer_need(orders: Orders, shard: Shard, need: ModelNeeded) -> None:
    """Tell the order that its model is there, or why not; else remember that it waits."""
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(need.sha256)])
        await store.lock_model(connection, need.sha256)
        if await store.stored_models(connection, [need.sha256]):
            await outbox.add(connection, [_ready(need.order_id, need.sha256, None)])
            return
        failure = await store.refusal(connection, need.sha256, need.account)
        if failure is not None:
            await outbox.add(connection, [_ready(need.order_id, need.sha256, failure)])
            return
        await store.add_waiter(connection, need.sha256, need.order_id, need.account)


async def transfer_model(orders: Orders, shard: Shard, upload: ModelUploaded) -> None:
    """Bring an uploaded file into the model store: read whole, hashed, stored once under its digest; then tell its
    channel and the orders that wait. The network work is done before the transaction is opened."""
    async with shard.pool.acquire() as connection:
        already = bool(await store.stored_models(connection, [upload.sha256]))
    failure = None if already else await _copy(orders, upload)
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(upload.sha256)])
        await store.lock_model(connection, upload.sha256)
        await store.set_refusal(connection, upload.sha256, upload.account, failure)
        if failure is None:
            await store.insert_model(connection, upload.sha256, upload.size_bytes)
        # A file that is refused says nothing of the same digest uploaded by another account.
        waiters = await store.take_waiters(connection, upload.sha256, None if failure is None else upload.account)
        stored = ModelStored(
            sha256=upload.sha256, account=upload.account, size_bytes=upload.size_bytes, failure=failure
        )
        await outbox.add(
            connection,
            [
                outbox.message(topics.MODEL_STORED, upload.sha256, stored),
                *[_ready(order_id, upload.sha256, failure) for order_id in waiters],
            ],
        )
    if failure is not None:
        log.info("model refused", extra={"sha256": upload.sha256, "code": failure.code})


def _ready(order_id: UUID, sha256: str, failure: PriceFailure | None) -> Message:
    return outbox.message(topics.ORDER_MODELS, order_id, ModelReady(order_id=order_id, sha256=sha256, failure=failure))


async def _copy(orders: Orders, upload: ModelUploaded) -> PriceFailure | None:
    """Copy staging -> store through this process, so that what is stored is what was hashed. Raises StorageAway."""
    if upload.size_bytes > orders.largest_model_bytes:
        return PriceFailure(
            code="model_too_large",
            detail=f"The model is larger than {orders.largest_model_bytes // 1_000_000} MB; send a lighter mesh.",
            mended_by="customer",
        )
    with NamedTemporaryFile(prefix="lostwax-model-") as file:
        path = Path(file.name)
        try:
            digest = await orders.staging(upload.bucket).download(upload.key, path, at_most=upload.size_bytes)
        except NoSuchObject:
            return PriceFailure(
                code="model_missing", detail="The uploaded model is gone; upload it again.", mended_by="customer"
            )
        except TooLong:
            digest = ""
        if digest != upload.sha256:
            return PriceFailure(
                code="model_digest_differs",
                detail="The uploaded file is not the one announced: its sha-256 differs. Upload it again.",
                mended_by="customer",
            )
        await orders.models.upload(upload.sha256, path)
    return None


def load_tariff(version: str) -> Tariff:
    """The tariff of this version, from the package. Raises FileNotFoundError for one that does not exist."""
    path = Path(__file__).parent / "tariffs" / f"{version}.json"
    return msgspec.json.decode(path.read_bytes(), type=Tariff)
