"""Use cases of the model store: a model is brought from staging, and whoever waits for it is told."""

import logging
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of_digest
from lostwax.contracts.models import ModelNeeded, ModelStored, ModelUploaded
from lostwax.contracts.orders import ModelReady, PriceFailure
from lostwax.kit import outbox
from lostwax.kit.objects import NoSuchObject, TooLong
from lostwax.kit.outbox import Message
from lostwax.kit.shards import Shard, check_owned
from lostwax.orders import models_store
from lostwax.orders.changes import Orders

log = logging.getLogger(__name__)


async def answer_need(orders: Orders, shard: Shard, need: ModelNeeded) -> None:
    """Tell the order that its model is there, or why not; else remember that it waits."""
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(need.sha256)])
        await models_store.lock_model(connection, need.sha256)
        if await models_store.stored_models(connection, [need.sha256]):
            await outbox.add(connection, [_ready(need.order_id, need.sha256, None)])
            return
        failure = await models_store.refusal(connection, need.sha256, need.account)
        if failure is not None:
            await outbox.add(connection, [_ready(need.order_id, need.sha256, failure)])
            return
        await models_store.add_waiter(connection, need.sha256, need.order_id, need.account)


async def transfer_model(orders: Orders, shard: Shard, upload: ModelUploaded) -> None:
    """Bring an uploaded file into the model store: read whole, hashed, stored once under its digest; then tell its
    channel and the orders that wait. The network work is done before the transaction is opened."""
    async with shard.pool.acquire() as connection:
        already = bool(await models_store.stored_models(connection, [upload.sha256]))
    failure = None if already else await _copy(orders, upload)
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, [bucket_of_digest(upload.sha256)])
        await models_store.lock_model(connection, upload.sha256)
        await models_store.set_refusal(connection, upload.sha256, upload.account, failure)
        if failure is None:
            await models_store.insert_model(connection, upload.sha256, upload.size_bytes)
        # A file that is refused says nothing of the same digest uploaded by another account.
        waiters = await models_store.take_waiters(
            connection, upload.sha256, None if failure is None else upload.account
        )
        stored = ModelStored(
            sha256=upload.sha256, account=upload.account, size_bytes=upload.size_bytes, failure=failure
        )
        await outbox.add(
            connection,
            [
                outbox.message(topics.MODEL_STORED, upload.sha256, stored),
                *[_ready(order_id, upload.sha256, failure) for order_id in waiters],
            ],
        )
    if failure is not None:
        log.info("model refused", extra={"sha256": upload.sha256, "code": failure.code})


def _ready(order_id: UUID, sha256: str, failure: PriceFailure | None) -> Message:
    return outbox.message(topics.ORDER_MODELS, order_id, ModelReady(order_id=order_id, sha256=sha256, failure=failure))


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
