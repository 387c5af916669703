"""Lets go of models that nothing needs: marks them first, removes them when their grace is over and nobody came back;
and of quotes that are long over.

An order of before references were kept, or whose reference is still on its way, is seen in the orders themselves.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from lostwax.contracts import quotes, topics
from lostwax.contracts.ids import bucket_of_digest
from lostwax.contracts.models import MODEL_REMOVED, ModelStored
from lostwax.contracts.orders import PriceFailure
from lostwax.kit import outbox
from lostwax.kit.objects import StorageAway
from lostwax.kit.postgres import UNREACHABLE, delete_older, session_lock
from lostwax.kit.shards import NotOwner, Shard, check_owned
from lostwax.orders import models_store
from lostwax.orders.changes import Orders

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0
_BATCH = 1000
_AWAY: tuple[type[BaseException], ...] = (StorageAway, NotOwner, *UNREACHABLE)
REMOVED = PriceFailure(
    code=MODEL_REMOVED,
    detail="The model was not needed for long and is not kept any more; upload it again.",
    mended_by="customer",
)


async def let_go(orders: Orders, grace_days: int) -> None:
    """Every hour on every shard, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        for shard in orders.shards.shards:
            try:
                await sweep(orders, shard, timedelta(days=grace_days))
            except _AWAY as error:
                log.warning("models are not swept", extra={"shard": shard.number, "error": repr(error)})


async def sweep(orders: Orders, shard: Shard, grace: timedelta) -> bool:
    """Mark what nothing needs, remove what is due, forget old quotes; False when another process is at it. Raises
    StorageAway, and the database's own error when a shard is away: what its orders need is not known then."""
    async with shard.pool.acquire() as held, session_lock(held, models_store.SWEEPING_LOCK) as mine:
        if not mine:
            return False
        for sha256 in await models_store.removing(held, _BATCH):
            await _remove_file(orders, shard, sha256)
        for sha256 in await models_store.due(held, orders.now(), _BATCH):
            await _remove(orders, shard, sha256)
        after = ""
        while digests := await models_store.models_from(held, after, _BATCH):
            after = digests[-1]
            candidates = await models_store.unneeded(held, digests, orders.now())
            if candidates:
                await _mark(orders, shard, candidates, grace)
        while await delete_older(held, "quotes", "quote_id", orders.now() - quotes.KEPT, _BATCH) == _BATCH:
            pass
    return True


async def _ordered_by(orders: Orders, digests: Sequence[str]) -> list[tuple[str, UUID]]:
    found: set[tuple[str, UUID]] = set()
    for shard in orders.shards.shards:
        async with shard.pool.acquire() as connection:
            found |= set(await models_store.ordered_by(connection, digests))
    return sorted(found)


async def _mark(orders: Orders, shard: Shard, candidates: Sequence[str], grace: timedelta) -> None:
    ordered = await _ordered_by(orders, candidates)
    needed = {sha256 for sha256, _ in ordered}
    async with shard.pool.acquire() as connection, connection.transaction():
        for sha256, account in ordered:
            await models_store.add_reference(connection, sha256, account, "order", None)
    for candidate in candidates:
        if candidate in needed:
            continue
        async with shard.pool.acquire() as connection, connection.transaction():
            await check_owned(connection, [bucket_of_digest(candidate)])
            await models_store.lock_model(connection, candidate)
            if await models_store.unneeded(connection, [candidate], orders.now()):
                await models_store.mark(connection, candidate, orders.now() + grace)


async def _remove(orders: Orders, shard: Shard, sha256: str) -> None:
    ordered = await _ordered_by(orders, [sha256])
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(sha256)])
        await models_store.lock_model(connection, sha256)
        for _, account in ordered:
            await models_store.add_reference(connection, sha256, account, "order", None)
        brought = await models_store.begin_removal(connection, sha256, REMOVED, orders.now())
        if brought is None:
            await models_store.keep_model(connection, sha256)
            return
        told = [ModelStored(sha256, account, size, REMOVED, upload) for account, upload, size in brought]
        await outbox.add(connection, [outbox.message(topics.MODEL_STORED, sha256, m) for m in told])
    log.info("model removed", extra={"sha256": sha256})
    await _remove_file(orders, shard, sha256)


async def _remove_file(orders: Orders, shard: Shard, sha256: str) -> None:
    """Nobody stores a file of this digest before it is said that this one is gone."""
    await orders.models.delete(sha256)
    async with shard.pool.acquire() as connection:
        await models_store.end_removal(connection, sha256)
