"""Dead-lettered commands: an order whose command lies in the dead letters keeps its later commands waiting, and a
command whose order never comes becomes a dead letter in the end."""

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, partition_of
from lostwax.contracts.orders import Command
from lostwax.kit import dead
from lostwax.kit.kafka import NotPublished, OutgoingRecord, Publisher
from lostwax.kit.messages import Burial
from lostwax.kit.postgres import UNREACHABLE, session_lock
from lostwax.kit.shards import NotOwner, Shard, check_owned
from lostwax.orders import store, waiting
from lostwax.orders.changes import Orders
from lostwax.orders.domain import PRODUCERS
from lostwax.orders.waiting import Arrival, DeadCommand

log = logging.getLogger(__name__)

EARLY_LIMIT_S = 24 * 3600.0
_LOOK_EVERY_S = 3600.0
_MOST = 100
_AWAY: tuple[type[BaseException], ...] = (*UNREACHABLE, NotOwner, NotPublished)


async def mark_dead(shard: Shard, order_id: UUID, burial: Burial) -> None:
    """From now on the later commands of this order wait; called before the command is dead-lettered."""
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of(order_id)])
        if not await store.lock_orders(connection, [order_id]):
            # It may be being created just now, and must not apply what came early past this.
            await store.lock_arrivals(connection, [order_id])
        before = burial.replayed_from
        if before is not None and await waiting.move_dead_command(connection, before, burial.place):
            return
        mark = DeadCommand(burial.place, order_id, burial.offset, _id_of_a_real_one(burial))
        await waiting.mark_dead_commands(connection, [mark])


def _id_of_a_real_one(burial: Burial) -> UUID | None:
    """None for what nobody sent who may send it: that has no outcome."""
    command = burial.body
    if not isinstance(command, Command) or burial.source not in PRODUCERS[command.actor.kind]:
        return None
    return command.command_id


async def give_up_early_commands(
    orders: Orders, publisher: Publisher, *, older_than_s: float = EARLY_LIMIT_S, every_s: float = _LOOK_EVERY_S
) -> None:
    """Every hour, on each shard, dead-letter commands whose order has not come in a day. Runs until cancelled."""
    while True:
        for shard in orders.shards.shards:
            try:
                await give_up_on(orders, shard, publisher, older_than_s)
            except _AWAY as error:
                log.warning("early commands not looked at", extra={"shard": shard.number, "error": repr(error)})
        await asyncio.sleep(every_s)


async def give_up_on(orders: Orders, shard: Shard, publisher: Publisher, older_than_s: float) -> int:
    """Dead-letter the commands of a shard that have waited for their orders for too long, at most 100 at a time: if
    there are more, the fault is not theirs. Returns how many; 0 also while another process is at it.

    First they are marked, then buried, then forgotten: a crash in between leaves what the next time finishes.
    """
    async with shard.pool.acquire() as connection, session_lock(connection, waiting.GIVING_UP_LOCK) as mine:
        if not mine:
            return 0
        never = await waiting.orders_never_come(connection, older_than_s, _MOST)
        async with connection.transaction():
            await check_owned(connection, map(bucket_of, never))
            await store.lock_arrivals(connection, never)
            given_up = await waiting.give_up(connection, never, older_than_s)
            marks = [DeadCommand(_place(a), a.command.order_id, _position(a), a.command.command_id) for a in given_up]
            await waiting.mark_dead_commands(connection, marks)
        to_bury = await waiting.given_up(connection)
        if to_bury:
            await publisher.publish(_letters(orders, to_bury))
            await waiting.forget_given_up(connection, [a.command.command_id for a in to_bury])
            log.error("orders never came", extra={"shard": shard.number, "commands": len(to_bury)})
        return len(to_bury)


def _place(arrival: Arrival) -> str:
    """Where it stood; for one kept before places were, its partition and id, which tell as much as a replay needs."""
    command = arrival.command
    partition = partition_of(bucket_of(command.order_id))
    return arrival.origin.place or f"{topics.ORDER_COMMANDS.name}/{partition}/{command.command_id}"


def _position(arrival: Arrival) -> int:
    return -1 if arrival.origin.position is None else arrival.origin.position


def _letters(orders: Orders, arrivals: Sequence[Arrival]) -> list[OutgoingRecord]:
    letters = []
    for arrival in arrivals:
        command, origin = arrival.command, arrival.origin
        source = origin.source or min(PRODUCERS[command.actor.kind])
        name = catalogue.type_of(command).name
        message_id = origin.message_id or str(command.command_id)
        detail = f"order {command.order_id} has not come in {EARLY_LIMIT_S / 3600:.0f} hours"
        headers = catalogue.cloud_headers(message_id, name, source, command.issued_at, origin.traceparent)
        headers |= dead.reasons("order_never_came", detail, group="orders", place=_place(arrival), at=orders.now())
        letters.append(
            OutgoingRecord(topics.ORDER_COMMANDS.dead, str(command.order_id), catalogue.encode(command), headers)
        )
    return letters
