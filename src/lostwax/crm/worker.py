"""Kafka -> use cases: what Orders tells of orders and of the commands that were sent from here."""

from collections.abc import Mapping, Sequence

from lostwax.contracts import topics
from lostwax.contracts.topics import Topic
from lostwax.crm import handlers
from lostwax.crm.handlers import Office
from lostwax.kit.messages import Handler, Incoming


def routes(office: Office) -> Mapping[Topic, Handler]:
    async def changes(batch: Sequence[Incoming]) -> None:
        await handlers.take_changes(office, [i.body.order for i in batch])

    async def outcomes(batch: Sequence[Incoming]) -> None:
        await handlers.take_outcomes(office, [i.body for i in batch])

    return {topics.ORDER_CHANGES: changes, topics.ORDER_OUTCOMES: outcomes}
