"""Kafka -> use cases: what Orders tells of orders and of the commands that were sent from here."""

from collections.abc import Mapping, Sequence

from lostwax.channel import handlers as channel
from lostwax.channel import worker
from lostwax.channel.handlers import Door
from lostwax.contracts import topics
from lostwax.contracts.topics import Topic
from lostwax.crm import conversation, handlers
from lostwax.crm.handlers import Office
from lostwax.kit.messages import Handler, Incoming


def routes(office: Office, door: Door) -> Mapping[Topic, Handler]:
    async def changes(batch: Sequence[Incoming]) -> None:
        orders = [i.body.order for i in batch]
        # In this order: who does not find an order among those accepted here, and not yet told of, finds it there.
        await handlers.take_changes(office, orders)
        await channel.take_changes(door, orders)

    async def outcomes(batch: Sequence[Incoming]) -> None:
        await handlers.take_outcomes(office, [i.body for i in batch])

    async def messages(batch: Sequence[Incoming]) -> None:
        await conversation.take(office, [i.body for i in batch])

    # Of commands the CRM knows more than a door does: who of the staff gave them.
    own = {topics.ORDER_CHANGES: changes, topics.ORDER_OUTCOMES: outcomes, topics.ORDER_MESSAGES: messages}
    return {**worker.routes(door, channel.take_changes), **own}
