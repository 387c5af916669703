"""Kafka -> use cases: what Orders tells of orders, commands and models, and what sellers say."""

from collections.abc import Mapping, Sequence
from functools import partial

from lostwax.channel import handlers, worker
from lostwax.channel.handlers import Door
from lostwax.contracts import topics
from lostwax.contracts.topics import Topic
from lostwax.kit.messages import Handler, Incoming
from lostwax.shop import conversation, letters
from lostwax.shop.handlers import Entrance


def routes(entrance: Entrance, door: Door) -> Mapping[Topic, Handler]:
    async def messages(batch: Sequence[Incoming]) -> None:
        await conversation.take(entrance, [i.body for i in batch])

    changes = partial(handlers.take_changes, keep=letters.keep)
    return {**worker.routes(door, changes), topics.ORDER_MESSAGES: messages}
