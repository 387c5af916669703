"""Use cases of Orders: each takes messages of one shard and is one transaction there. All are idempotent: an order by
its id, a command by its command id, a price by its job id, a model by its digest."""

import logging
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from lostwax.contracts.ids import bucket_of
from lostwax.contracts.orders import (
    Command,
    ModelReady,
    OrderRequested,
)
from lostwax.contracts.pricing import NotPriced, PriceResult
from lostwax.kit.postgres import Connection
from lostwax.kit.shards import Shard, check_owned
from lostwax.orders import domain, quote_handlers, store, waiting
from lostwax.orders.changes import Changes, Orders, stored_models
from lostwax.orders.store import Entry
from lostwax.orders.waiting import LAST, Arrival, DeadCommand, Origin

log = logging.getLogger(__name__)


async def create_orders(orders: Orders, shard: Shard, requests: Sequence[OrderRequested]) -> None:
    """Create each requested order once, make its history, and ask for its price or for its model."""
    now = orders.now()
    stored = await stored_models(orders, {r.specification.model.sha256 for r in requests})
    accepted = await quote_handlers.accepted_prices(orders, requests)
    entries: dict[UUID, Entry] = {}
    for request in requests:
        quoted = request.order_id in accepted
        order = domain.submit(request, now, quoted=quoted)
        priced_now = request.specification.model.sha256 in stored and not quoted
        entries.setdefault(request.order_id, Entry(order, domain.price_job(order) if priced_now else None))
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, map(bucket_of, entries))
        await store.lock_arrivals(connection, entries)
        new_ids = await store.insert_orders(connection, list(entries.values()))
        if not new_ids:
            return
        changes = Changes(orders, {i: entries[i] for i in new_ids})
        for order_id in sorted(new_ids):
            entry = entries[order_id]
            changes.create(entry)
            if order_id in accepted:
                for version in domain.by_quote(entry.order, accepted[order_id], now):
                    changes.take(version)
            elif entry.price_job_id is None:
                changes.ask_for_model(entry.order)
        needs = {
            (e.order.specification.model.sha256, e.order.account)
            for i, e in entries.items()
            if i in new_ids and (e.price_job_id is not None or i in accepted)
        }
        told = {need: message for need in needs if (message := orders.reference(*need, "order"))}
        changes.messages += [told[need] for need in sorted(told)]
        early = await waiting.take_early_commands(connection, new_ids)
        dead = await waiting.dead_commands(connection, new_ids)
        ready = await _park_later(connection, early, dead.values())
        await store.insert_outcomes(connection, changes.obey(ready, now))
        await changes.write(connection)
    for sha256, account in told:
        orders.told(sha256, account, "order")
    await orders.show(changes.entries)


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
        changes = Changes(orders, entries)
        await store.insert_outcomes(connection, changes.obey(ready, now))
        await changes.write(connection)
    await orders.show(changes.entries)


async def go_on_without(orders: Orders, shard: Shard, place: str) -> None:
    """The dead-lettered command that stood at `place` will not come again: that is its outcome, and those that waited
    behind it are applied."""
    now = orders.now()
    async with shard.pool.acquire() as connection, connection.transaction():
        settled = list((await waiting.dead_commands(connection, (), [place])).values())
        if not settled:
            return
        await check_owned(connection, (bucket_of(m.order_id) for m in settled))
        entries = await store.lock_orders(connection, (m.order_id for m in settled))
        dead = await waiting.dead_commands(connection, (m.order_id for m in settled))
        released = await _release(connection, settled, dead)
        changes = Changes(orders, entries)
        # Decided now, also for a reader that comes from the beginning of the topic once the fault is mended.
        ids = {m.command_id: m.order_id for m in settled if m.command_id is not None and m.order_id in entries}
        decided = await store.decided_commands(connection, ids)
        discarded = [changes.discard(i, order_id, now) for i, order_id in ids.items() if i not in decided]
        outcomes = changes.obey([a.command for a in released], now)
        await store.insert_outcomes(connection, [*discarded, *outcomes])
        await changes.write(connection)
    await orders.show(changes.entries)


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
    """Apply price results to the orders and quotes whose current job they answer; drop the others."""
    now = orders.now()
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, (bucket_of(r.subject_id) for r in results))
        changes = Changes(orders, await store.lock_orders(connection, (r.subject_id for r in results)))
        others = [r for r in results if r.subject_id not in changes.entries]
        quotes = await quote_handlers.take_prices(orders, connection, others) if others else set()
        for result in results:
            entry = changes.entries.get(result.subject_id)
            if entry is None:
                changes.drop_answer(result)
                if result.subject_id not in quotes:
                    log.warning("price for nobody", extra={"subject": result.subject_id, "job": result.job_id})
                continue
            changes.take_price(entry, result, now)
        await changes.write(connection)
    await orders.show(changes.entries)


async def take_models(orders: Orders, shard: Shard, ready: Sequence[ModelReady]) -> None:
    """Ask for the price of orders whose model has come, or fail the price of those whose model never will."""
    now = orders.now()
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, (bucket_of(r.order_id) for r in ready))
        changes = Changes(orders, await store.lock_orders(connection, (r.order_id for r in ready)))
        if others := [r for r in ready if r.order_id not in changes.entries]:
            await quote_handlers.take_models(orders, connection, others)
        for message in ready:
            entry = changes.entries.get(message.order_id)
            if entry is None or not _waits_for(entry, message):
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
    await orders.show(changes.entries)


def _waits_for(entry: Entry, ready: ModelReady) -> bool:
    model = entry.order.specification.model
    return (
        domain.awaits_price(entry.order)
        and entry.price_job_id is None
        and model.sha256 == ready.sha256
        and (ready.failure is None or ready.upload >= model.upload)
    )
