"""Kafka -> use cases: what Orders tells of orders, commands and models."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lostwax.channel import handlers, models, quotes
from lostwax.channel.handlers import Door
from lostwax.contracts import topics
from lostwax.contracts.orders import Order
from lostwax.contracts.topics import Topic
from lostwax.kit.messages import Handler, Incoming


def routes(door: Door, take_changes: Callable[[Door, Sequence[Order]], Awaitable[None]]) -> Mapping[Topic, Handler]:
    def of(handle: Callable[[Door, Sequence[Any]], Awaitable[None]], body: Callable[[Any], Any]) -> Handler:
        async def handle_batch(batch: Sequence[Incoming]) -> None:
            await handle(door, [body(i.body) for i in batch])

        return handle_batch

    async def take_stored_models(batch: Sequence[Incoming]) -> None:
        await models.take_stored_models(door.models, [i.body for i in batch])

    async def take_quotes(batch: Sequence[Incoming]) -> None:
        await quotes.take_changes(door.pool, door.channel, [i.body.quote for i in batch])

    return {
        topics.ORDER_CHANGES: of(take_changes, lambda m: m.order),
        topics.ORDER_OUTCOMES: of(handlers.take_outcomes, lambda m: m),
        topics.QUOTE_CHANGES: take_quotes,
        topics.MODEL_STORED: take_stored_models,
    }
