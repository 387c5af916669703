"""What Orders' use cases stand on: their surroundings, and what one transaction decides, written once at its end."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

import msgspec

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of_digest
from lostwax.contracts.metrics import COMMANDS_DECIDED, ORDER_STEPS
from lostwax.contracts.models import ModelNeeded, ModelReferenced
from lostwax.contracts.orders import Command, Order, OrderChanged, Outcome, Resubmit, Status
from lostwax.contracts.pricing import PriceResult, Tariff
from lostwax.kit import metrics, outbox, tracing
from lostwax.kit.objects import Bucket
from lostwax.kit.outbox import Message
from lostwax.kit.postgres import UNREACHABLE, Connection
from lostwax.kit.shards import ShardMap
from lostwax.orders import domain, models_store, price_jobs, store
from lostwax.orders.clients import OrderCache
from lostwax.orders.price_jobs import Lane, PriceJob, SubjectKind
from lostwax.orders.store import Entry

log = logging.getLogger(__name__)

_steps = metrics.counter(ORDER_STEPS)
_decided = metrics.counter(COMMANDS_DECIDED)

_KNOWN_MODELS = 100_000
_KNOWN_FOR_S = 3600
_NEVER = datetime.min.replace(tzinfo=UTC)
_REMEMBERED = 200_000


class Orders:
    """What the use cases need: shards, the model store, staging buckets by name, the tariff in force, the clock; and
    the cache of single orders, which whoever changes orders tells of it after the commit."""

    def __init__(
        self,
        shards: ShardMap,
        *,
        models: Bucket,
        staging: Callable[[str], Bucket],
        tariff: Tariff,
        now: Callable[[], datetime],
        largest_model_bytes: int,
        cache: OrderCache | None = None,
    ) -> None:
        self.cache = cache
        self.shards = shards
        self.models = models
        self.staging = staging
        self.tariff = tariff
        self.now = now
        self.largest_model_bytes = largest_model_bytes
        # Models seen unmarked in the store within the last hour. Marked ones stay for days, so an order made by this
        # memory is there, and has told of its need, long before its model could go.
        self.known_models: set[str] = set()
        self.known_since = time.monotonic()
        # What has been told to the model store, so that a model ordered again and again is told of once.
        self.referenced: dict[tuple[UUID, str, str], datetime | None] = {}

    def reference(
        self, sha256: str, account: UUID, kind: Literal["order", "quote"], until: datetime | None = None
    ) -> Message | None:
        """The message by which a model stays stored until then (None: for ever); None when it has been told. The caller
        puts it into the outbox with what needs the model, and after the commit calls `told`."""
        if until is not None:  # whole days, so that quotes of one model cost a message a day
            until = until.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        before = self.referenced.get((account, sha256, kind), _NEVER)
        if before is None or (until is not None and before >= until):
            return None
        body = ModelReferenced(sha256=sha256, account=account, kind=kind, until=until)
        return outbox.message(topics.MODEL_TRANSFERS, sha256, body)

    def told(self, sha256: str, account: UUID, kind: Literal["order", "quote"], until: datetime | None = None) -> None:
        """What `reference` gave is committed."""
        if len(self.referenced) >= _REMEMBERED:
            self.referenced.clear()
        if until is not None:
            until = until.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.referenced[account, sha256, kind] = until

    async def show(self, entries: Mapping[UUID, Entry]) -> None:
        """After the commit: these orders are as they stand here, also those that it left as they were, for whoever
        changed them may have been killed before it came to this."""
        if self.cache is not None:
            await self.cache.show([entry.order for entry in entries.values()])


class Changes:
    """What a transaction has decided so far: new versions, and messages beside them. Written once, at its end."""

    def __init__(self, orders: Orders, entries: Mapping[UUID, Entry]) -> None:
        self._orders = orders
        self.entries = dict(entries)
        self.versions: list[Order] = []
        self.touched: set[UUID] = set()
        self.messages: list[Message] = []
        self._jobs: dict[UUID, PriceJob] = {}
        self._superseded: set[UUID] = set()
        self._answered: set[UUID] = set()

    def create(self, entry: Entry) -> None:
        """An order that has just been inserted as it stands."""
        self._tell(entry.order)
        if entry.price_job_id is not None:
            self._request_price(entry.order, entry.price_job_id)

    def take(self, order: Order) -> None:
        """The next version of an order that is among the entries. Its price job goes on while it awaits a price."""
        before = self.entries[order.order_id]
        waits = domain.awaits_price(order)
        if before.price_job_id is not None and not waits:
            self._superseded.add(before.price_job_id)
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
        needed = ModelNeeded(
            sha256=sha256,
            order_id=order.order_id,
            account=order.account,
            upload=order.specification.model.upload,
        )
        self.messages.append(outbox.message(topics.MODEL_TRANSFERS, sha256, needed))

    def take_price(self, entry: Entry, result: PriceResult, now: datetime) -> None:
        """Apply the result of the entry's current job, or keep it while the order is on hold. Answered is answered:
        the job leaves the queue whether its result counts or not."""
        self._answered.add(result.job_id)
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

    def drop_answer(self, result: PriceResult) -> None:
        """A result that no order waits for frees its place all the same."""
        self._answered.add(result.job_id)

    def _tell(self, order: Order) -> None:
        self.versions.append(order)
        self.messages.append(outbox.message(topics.ORDER_CHANGES, order.order_id, OrderChanged(order)))

    def _request_price(self, order: Order, job_id: UUID) -> None:
        """Let a job wait for the desk."""
        self._jobs[job_id] = PriceJob(
            job_id=job_id,
            kind=SubjectKind.ORDER,
            subject_id=order.order_id,
            account=order.account,
            lane=Lane.HEAVY if domain.is_heavy(order.specification) else Lane.QUICK,
            specification=order.specification,
            tariff=self._orders.tariff.version,
            traceparent=tracing.of(str(order.order_id)),
        )

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
            outcomes.append(self._tell_outcome(command.command_id, order, now, code, detail))
            _decided.add(1, type(command.action).__name__, code or "accepted")
            entry = self.entries[command.order_id]
            if entry.kept_price is not None and entry.order.status is Status.SUBMITTED:
                self.take_price(entry, entry.kept_price, now)
        return outcomes

    def discard(self, command_id: UUID, order_id: UUID, now: datetime) -> Outcome:
        """The outcome of a command that the person on call has discarded: refused, so that who sent it can go on."""
        detail = "It could not be handled, and was discarded by hand. Look at the order, and ask again."
        return self._tell_outcome(command_id, self.entries[order_id].order, now, "discarded", detail)

    def _tell_outcome(
        self, command_id: UUID, order: Order, now: datetime, code: str | None, detail: str | None
    ) -> Outcome:
        outcome = Outcome(
            command_id=command_id,
            order_id=order.order_id,
            accepted=code is None,
            version=order.version,
            status=order.status,
            at=now,
            code=code,
            detail=detail,
        )
        self.messages.append(outbox.message(topics.ORDER_OUTCOMES, order.order_id, outcome))
        return outcome

    async def write(self, connection: Connection) -> None:
        await store.update_orders(connection, [self.entries[i] for i in sorted(self.touched)])
        await store.insert_history(connection, self.versions)
        await outbox.add(connection, self.messages)
        gone = self._superseded | self._answered
        await price_jobs.insert(connection, [job for job_id, job in self._jobs.items() if job_id not in gone])
        await price_jobs.remove(connection, self._superseded - self._answered - set(self._jobs))
        await price_jobs.answer(connection, self._answered - set(self._jobs))
        for order in self.versions:
            _steps.add(1, order.transition.source or "", order.transition.target)


async def stored_models(orders: Orders, digests: set[str]) -> set[str]:
    """Which of these models are surely in the store. Models live on shards of their own digest; a shard that is away
    knows of none, and the order then waits for its model's own message."""
    if time.monotonic() - orders.known_since > _KNOWN_FOR_S:
        orders.known_models.clear()
        orders.known_since = time.monotonic()
    unknown = digests - orders.known_models
    by_shard: dict[int, list[str]] = {}
    for digest in unknown:
        by_shard.setdefault(orders.shards.of(bucket_of_digest(digest)).number, []).append(digest)
    for number, some in by_shard.items():
        try:
            async with orders.shards.shards[number].pool.acquire() as connection:
                found = await models_store.kept_models(connection, some)
        except UNREACHABLE as error:
            log.warning("model index away", extra={"shard": number, "error": repr(error)})
            continue
        if len(orders.known_models) > _KNOWN_MODELS:
            orders.known_models.clear()
        orders.known_models |= found
    return digests & orders.known_models


def load_tariff(version: str) -> Tariff:
    """The tariff of this version, from the package. Raises FileNotFoundError for one that does not exist."""
    path = Path(__file__).parent / "tariffs" / f"{version}.json"
    return msgspec.json.decode(path.read_bytes(), type=Tariff)
