"""Use cases of clients' models, each one transaction; the network is never waited for inside one."""

from collections.abc import Sequence
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.models import ModelStored, ModelUploaded
from lostwax.contracts.orders import ModelRef
from lostwax.kit import outbox
from lostwax.kit.objects import Bucket, PresignedUpload
from lostwax.kit.postgres import Pool
from lostwax.kit.problems import Problem
from lostwax.partner_api import models_store
from lostwax.partner_api.models_store import ModelRow

_REMEMBERED_MODELS = 200_000


class Models:
    """What the use cases need: database and staging bucket."""

    def __init__(self, pool: Pool, staging: Bucket, *, largest_model_bytes: int) -> None:
        self.pool = pool
        self.staging = staging
        self.largest_model_bytes = largest_model_bytes
        # Models that may be ordered at once: uploaded or stored, by client and digest.
        self.usable: dict[tuple[UUID, str], ModelRef] = {}


def staging_key(client_id: UUID, sha256: str) -> str:
    return f"{client_id}/{sha256}"


async def register_model(
    models: Models, client_id: UUID, name: str, size_bytes: int, sha256: str
) -> tuple[ModelRow, PresignedUpload | None]:
    """Register a model and say how to upload it; no upload when this client's own copy is already there."""
    if size_bytes > models.largest_model_bytes:
        limit = models.largest_model_bytes // 1_000_000
        raise Problem(422, "model-too-large", "The model is too large", f"At most {limit} MB; send a lighter mesh.")
    async with models.pool.acquire() as connection:
        row = await models_store.register_model(connection, client_id, sha256, size_bytes, name)
    if row.state in ("uploaded", "stored"):
        return row, None
    link = models.staging.presign_put(staging_key(client_id, sha256), size_bytes=row.size_bytes, sha256=sha256)
    return row, link


async def usable_model(models: Models, client_id: UUID, sha256: str) -> ModelRef:
    """A model of the client's own that may be ordered. Raises the Problem that says why it may not."""
    return models.usable.get((client_id, sha256)) or await _uploaded_model(models, client_id, sha256)


async def _uploaded_model(models: Models, client_id: UUID, sha256: str) -> ModelRef:
    """The client's model, once it is seen whole in staging; tells Orders to fetch it when seen for the first time."""
    async with models.pool.acquire() as connection:
        row = await models_store.model(connection, client_id, sha256)
    if row is None:
        raise Problem(422, "model-unknown", "This model is not registered", "Register and upload it: POST /v1/models.")
    if row.state == "refused":
        raise Problem(
            409, "model-refused", "This model was refused", f"{row.failure} Register it again for a fresh link."
        )
    if row.state == "registered":
        key = staging_key(client_id, sha256)
        size = await models.staging.size(key)
        if size is None:
            raise Problem(
                409, "model-not-uploaded", "The model is not uploaded yet", "PUT it to the link of POST /v1/models."
            )
        if size != row.size_bytes:
            raise Problem(
                409,
                "model-size-differs",
                "The uploaded file is not the one announced",
                f"{row.size_bytes} bytes were announced, {size} are there. Register and upload it again.",
            )
        uploaded = ModelUploaded(sha256=sha256, size_bytes=size, account=client_id, bucket=models.staging.name, key=key)
        async with models.pool.acquire() as connection, connection.transaction():
            if await models_store.set_uploaded(connection, client_id, sha256):
                await outbox.add(connection, [outbox.message(topics.MODEL_TRANSFERS, sha256, uploaded)])
    model = ModelRef(sha256=sha256, size_bytes=row.size_bytes, name=row.name)
    if len(models.usable) >= _REMEMBERED_MODELS:
        models.usable.clear()
    models.usable[(client_id, sha256)] = model
    return model


async def take_stored_models(models: Models, stored: Sequence[ModelStored]) -> None:
    """Keep what became of this channel's uploads."""
    async with models.pool.acquire() as connection, connection.transaction():
        for message in sorted(stored, key=lambda m: (m.account, m.sha256)):
            failure = None if message.failure is None else message.failure.detail
            await models_store.set_transferred(connection, message.account, message.sha256, failure)
    for message in stored:
        if message.failure is not None:
            models.usable.pop((message.account, message.sha256), None)
