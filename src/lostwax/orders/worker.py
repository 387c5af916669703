"""Kafka -> use cases: which message type goes to which handler, grouped by the shard that owns its bucket."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of, bucket_of_digest
from lostwax.contracts.models import ModelUploaded
from lostwax.contracts.topics import Topic
from lostwax.kit.consumer import Handler, Incoming, Later, Poison
from lostwax.kit.shards import NotOwner, Shard
from lostwax.orders import handlers
from lostwax.orders.domain import PRODUCERS
from lostwax.orders.handlers import Orders

_TRANSFERS_AT_ONCE = 4


def routes(orders: Orders) -> Mapping[Topic, Handler]:
    return {
        topics.ORDER_REQUESTS: _by_shard(orders, handlers.create_orders, lambda m: bucket_of(m.order_id)),
        topics.ORDER_COMMANDS: _commands(orders),
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


def _commands(orders: Orders) -> Handler:
    """Commands come only from the service whose people they speak for; anything else is nobody's command."""
    handle = _by_shard(orders, handlers.obey_commands, lambda m: bucket_of(m.order_id))

    async def handle_batch(batch: Sequence[Incoming]) -> None:
        for incoming in batch:
            kind = incoming.body.actor.kind
            if incoming.source not in PRODUCERS[kind]:
                raise Poison(incoming, "wrong_producer", f"{incoming.source or 'nobody'} may not speak for a {kind}")
        await handle(batch)

    return handle_batch


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
                    await _owned(orders, handlers.transfer_model(orders, shard, incoming.body))
                else:
                    await _owned(orders, handlers.answer_need(orders, shard, incoming.body))

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
