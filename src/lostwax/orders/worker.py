"""Kafka -> use cases: which message type goes to which handler, grouped by the shard that owns its bucket."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of, bucket_of_digest, partition_of
from lostwax.contracts.models import ModelReferenced, ModelUploaded
from lostwax.contracts.orders import Command
from lostwax.contracts.topics import Topic
from lostwax.kit.messages import Burial, DeadWatch, Discarded, Handler, Incoming, Later, Poison
from lostwax.kit.shards import NotOwner, Shard
from lostwax.orders import handlers, model_handlers, parking, quote_handlers
from lostwax.orders.changes import Orders
from lostwax.orders.domain import PRODUCERS
from lostwax.orders.waiting import Origin

log = logging.getLogger(__name__)

_TRANSFERS_AT_ONCE = 4


def routes(orders: Orders) -> Mapping[Topic, Handler]:
    return {
        topics.ORDER_REQUESTS: _by_shard(orders, handlers.create_orders, lambda m: bucket_of(m.order_id)),
        topics.QUOTE_REQUESTS: _by_shard(orders, quote_handlers.create_quotes, lambda m: bucket_of(m.quote_id)),
        topics.ORDER_COMMANDS: commands(orders),
        topics.PRICING_RESULTS: _by_shard(orders, handlers.take_prices, lambda m: bucket_of(m.subject_id)),
        topics.ORDER_MODELS: _by_shard(orders, handlers.take_models, lambda m: bucket_of(m.order_id)),
        topics.MODEL_TRANSFERS: _transfers(orders),
    }


def _by_shard(
    orders: Orders,
    handle: Callable[[Orders, Shard, Sequence[Any]], Awaitable[None]],
    bucket: Callable[[Any], int],
) -> Handler:
    async def handle_batch(batch: Sequence[Incoming]) -> None:
        groups: dict[int, list[Incoming]] = {}
        for incoming in batch:
            groups.setdefault(orders.shards.of(bucket(incoming.body)).number, []).append(incoming)
        for number, group in groups.items():
            await _owned(orders, handle(orders, orders.shards.shards[number], [i.body for i in group]))

    return handle_batch


def commands(orders: Orders) -> Handler:
    """Commands come only from the service whose people they speak for; anything else is nobody's command."""

    async def handle_batch(batch: Sequence[Incoming]) -> None:
        groups: dict[int, list[Incoming]] = {}
        for incoming in batch:
            kind = incoming.body.actor.kind
            if incoming.source not in PRODUCERS[kind]:
                raise Poison(incoming, "wrong_producer", f"{incoming.source or 'nobody'} may not speak for a {kind}")
            groups.setdefault(orders.shards.of(bucket_of(incoming.body.order_id)).number, []).append(incoming)
        for number, group in groups.items():
            shard, bodies = orders.shards.shards[number], [i.body for i in group]
            await _owned(orders, handlers.obey_commands(orders, shard, bodies, [_origin(i) for i in group]))

    return handle_batch


def _origin(incoming: Incoming) -> Origin:
    return Origin(
        incoming.place,
        incoming.offset,
        incoming.replayed_from,
        incoming.source,
        incoming.message_id,
        incoming.traceparent,
    )


PARKING = (topics.ORDER_COMMANDS,)
"""Topics whose dead letters hold up what comes after them, so that Orders must be told of a discarded one."""


def dead_watches(orders: Orders) -> Mapping[Topic, DeadWatch]:
    return {topic: dead_watch(orders) for topic in PARKING}


def dead_watch(orders: Orders) -> DeadWatch:
    """A dead-lettered command parks its order, a discarded one lets it go on. A record that names no order of its own
    partition concerns none."""

    async def park(burial: Burial) -> None:
        order_id = _order_of(burial)
        if order_id is None or partition_of(bucket_of(order_id)) != burial.partition:
            log.warning("dead command of no order", extra={"place": burial.place, "key": burial.key})
            return
        await _owned(orders, parking.mark_dead(orders.shards.of(bucket_of(order_id)), order_id, burial))

    async def go_on(notice: Discarded) -> None:
        # The number of a partition is one of its buckets, and all of them are on one shard.
        await _owned(orders, handlers.go_on_without(orders, orders.shards.of(notice.partition), notice.place))

    return DeadWatch(park, go_on)


def _order_of(burial: Burial) -> UUID | None:
    if isinstance(burial.body, Command):
        return burial.body.order_id
    try:
        return UUID(burial.key)
    except ValueError:
        return None


def _transfers(orders: Orders) -> Handler:
    """Needs and uploads of different models go side by side, those of one model in their order."""
    at_once = asyncio.Semaphore(_TRANSFERS_AT_ONCE)

    async def one_model(group: Sequence[Incoming]) -> None:
        shard = orders.shards.of(bucket_of_digest(group[0].body.sha256))
        async with at_once:
            for incoming in group:
                if isinstance(incoming.body, ModelUploaded):
                    if not incoming.body.bucket.startswith("staging-"):
                        raise Poison(incoming, "not_staging", f"{incoming.body.bucket} is no staging bucket")
                    await _owned(orders, model_handlers.transfer_model(orders, shard, incoming.body))
                elif isinstance(incoming.body, ModelReferenced):
                    await _owned(orders, model_handlers.keep_referenced(orders, shard, incoming.body))
                else:
                    await _owned(orders, model_handlers.answer_need(orders, shard, incoming.body))

    async def handle_batch(batch: Sequence[Incoming]) -> None:
        by_model: dict[str, list[Incoming]] = {}
        for incoming in batch:
            by_model.setdefault(incoming.body.sha256, []).append(incoming)
        results = await asyncio.gather(*(one_model(g) for g in by_model.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    return handle_batch


async def _owned(orders: Orders, work: Awaitable[None]) -> None:
    try:
        await work
    except NotOwner as error:
        await orders.shards.reload()
        raise Later(str(error)) from error
