"""Kafka -> use cases: what Orders tells of orders and of the steps that were asked for, and the CRM of the staff."""

from collections.abc import Mapping, Sequence

from lostwax.contracts import topics
from lostwax.contracts.topics import Topic
from lostwax.kit.messages import Handler, Incoming
from lostwax.mes import handlers
from lostwax.mes.handlers import Workshop


def routes(workshop: Workshop) -> Mapping[Topic, Handler]:
    async def changes(batch: Sequence[Incoming]) -> None:
        await handlers.take_changes(workshop, [i.body.order for i in batch])

    async def outcomes(batch: Sequence[Incoming]) -> None:
        await handlers.take_outcomes(workshop, [i.body for i in batch])

    async def staff(batch: Sequence[Incoming]) -> None:
        await handlers.take_staff(workshop, [i.body for i in batch])

    return {topics.ORDER_CHANGES: changes, topics.ORDER_OUTCOMES: outcomes, topics.STAFF_CHANGES: staff}
