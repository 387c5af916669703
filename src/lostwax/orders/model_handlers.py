"""Use cases of the model store: a model is brought from staging, and whoever waits for it is told."""

import logging
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of_digest
from lostwax.contracts.models import ModelNeeded, ModelReferenced, ModelStored, ModelUploaded
from lostwax.contracts.orders import ModelReady, PriceFailure
from lostwax.kit import outbox
from lostwax.kit.objects import NoSuchObject, StorageAway, TooLong
from lostwax.kit.outbox import Message
from lostwax.kit.shards import Shard, check_owned
from lostwax.orders import models_store
from lostwax.orders.changes import Orders
from lostwax.orders.models_store import Presence

log = logging.getLogger(__name__)


async def answer_need(orders: Orders, shard: Shard, need: ModelNeeded) -> None:
    """Tell the order that its model is there, or why not; else remember that it waits. Either way it stays stored."""
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(need.sha256)])
        await models_store.lock_model(connection, need.sha256)
        kind = "order" if need.until is None else "quote"
        await models_store.add_reference(connection, need.sha256, need.account, kind, need.until)
        await models_store.keep_model(connection, need.sha256)
        if await models_store.stored_models(connection, [need.sha256]):
            await outbox.add(connection, [_ready(need.order_id, need.sha256, None, need.upload)])
            return
        refused = await models_store.refusal(connection, need.sha256, need.account, need.upload)
        if refused is not None:
            await outbox.add(connection, [_ready(need.order_id, need.sha256, *refused)])
            return
        await models_store.add_waiter(connection, need.sha256, need.order_id, need.account, need.upload)


async def keep_referenced(orders: Orders, shard: Shard, reference: ModelReferenced) -> None:
    """Keep a model stored for as long as something needs it."""
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(reference.sha256)])
        await models_store.lock_model(connection, reference.sha256)
        await models_store.add_reference(
            connection, reference.sha256, reference.account, reference.kind, reference.until
        )
        await models_store.keep_model(connection, reference.sha256)


async def transfer_model(orders: Orders, shard: Shard, upload: ModelUploaded) -> None:
    """Bring an uploaded file into the model store: read whole, hashed, stored once under its digest; then tell its
    channel and the orders that wait. The network work is done before the transaction is opened. Raises StorageAway."""
    while not await _transfer(orders, shard, upload):
        log.info("model removed while it was copied; copying it again", extra={"sha256": upload.sha256})


async def _transfer(orders: Orders, shard: Shard, upload: ModelUploaded) -> bool:
    """False when the model was removed meanwhile, so that all has to be done again."""
    before = await _presence(shard, upload.sha256)
    failure = None if before.stored else await _copy(orders, upload)
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(upload.sha256)])
        await models_store.lock_model(connection, upload.sha256)
        if (await models_store.presence(connection, upload.sha256)).removals != before.removals:
            return False
        await models_store.set_refusal(connection, upload.sha256, upload.account, upload.upload, failure)
        if failure is None:
            await models_store.insert_model(connection, upload.sha256, upload.size_bytes)
            await models_store.add_upload(connection, upload.sha256, upload.account, upload.upload)
        # A file that is refused says nothing of the same digest uploaded by another account, or uploaded again.
        only = None if failure is None else upload.account
        waiters = await models_store.take_waiters(connection, upload.sha256, only, upload.upload)
        stored = ModelStored(
            sha256=upload.sha256,
            account=upload.account,
            size_bytes=upload.size_bytes,
            failure=failure,
            upload=upload.upload,
        )
        await outbox.add(
            connection,
            [
                outbox.message(topics.MODEL_STORED, upload.sha256, stored),
                *[_ready(order_id, upload.sha256, failure, upload.upload) for order_id in waiters],
            ],
        )
    if failure is not None:
        log.info("model refused", extra={"sha256": upload.sha256, "code": failure.code})
    return True


async def put_model(orders: Orders, shard: Shard, sha256: str, size_bytes: int, source: Path) -> bool:
    """Store a file that has been hashed; True when it is new. Orders that wait for it are told. Raises StorageAway."""
    while True:
        before = await _presence(shard, sha256)
        if not before.stored:
            await orders.models.upload(sha256, source)
        async with shard.pool.acquire() as connection, connection.transaction():
            await check_owned(connection, [bucket_of_digest(sha256)])
            await models_store.lock_model(connection, sha256)
            if (await models_store.presence(connection, sha256)).removals != before.removals:
                continue
            await models_store.insert_model(connection, sha256, size_bytes)
            waiters = await models_store.take_waiters(connection, sha256, None, 0)
            await outbox.add(connection, [_ready(order_id, sha256, None, 0) for order_id in waiters])
        return not before.stored


async def _presence(shard: Shard, sha256: str) -> Presence:
    async with shard.pool.acquire() as connection:
        found = await models_store.presence(connection, sha256)
    if found.removing:
        raise StorageAway(f"{sha256} is just being removed")
    return found


def _ready(order_id: UUID, sha256: str, failure: PriceFailure | None, upload: int) -> Message:
    ready = ModelReady(order_id=order_id, sha256=sha256, failure=failure, upload=upload)
    return outbox.message(topics.ORDER_MODELS, order_id, ready)


async def _copy(orders: Orders, upload: ModelUploaded) -> PriceFailure | None:
    """Copy staging -> store through this process, so that what is stored is what was hashed. Raises StorageAway."""
    if upload.size_bytes > orders.largest_model_bytes:
        return PriceFailure(
            code="model_too_large",
            detail=f"The model is larger than {orders.largest_model_bytes // 1_000_000} MB; send a lighter mesh.",
            mended_by="customer",
        )
    with NamedTemporaryFile(prefix="lostwax-model-") as file:
        path = Path(file.name)
        try:
            digest = await orders.staging(upload.bucket).download(upload.key, path, at_most=upload.size_bytes)
        except NoSuchObject:
            return PriceFailure(
                code="model_missing", detail="The uploaded model is gone; upload it again.", mended_by="customer"
            )
        except TooLong:
            digest = ""
        if digest != upload.sha256:
            return PriceFailure(
                code="model_digest_differs",
                detail="The uploaded file is not the one announced: its sha-256 differs. Upload it again.",
                mended_by="customer",
            )
        await orders.models.upload(upload.sha256, path)
    return None
