"""Use cases of clients' models, each one transaction; the network is never waited for inside one."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.channel import models_store
from lostwax.channel.models_store import Leftover, ModelRow
from lostwax.contracts import topics
from lostwax.contracts.models import MODEL_REMOVED, ModelStored, ModelUploaded
from lostwax.contracts.orders import ModelRef
from lostwax.kit import outbox
from lostwax.kit.clock import utc_now
from lostwax.kit.listening import follow
from lostwax.kit.objects import Bucket, NoSuchUpload, PresignedUpload, UploadedPart
from lostwax.kit.postgres import OwnConnection, Pool
from lostwax.kit.problems import Problem, not_found

SINGLE_UP_TO = 32 * 1024 * 1024
"""Larger files, in bytes, are uploaded by parts; smaller ones if their client asks for it."""

LINKS_AT_ONCE = 100
_SMALLEST_PART = 8 * 1024 * 1024
_MOST_PARTS = 1000
_REMEMBERED_MODELS = 200_000


class Models:
    """What the use cases need: database, staging bucket, clock. `cleared` is called when there is something to clear
    out of staging."""

    def __init__(
        self,
        pool: Pool,
        staging: Bucket,
        *,
        largest_model_bytes: int,
        now: Callable[[], datetime] = utc_now,
        to_clear: Callable[[], None] = lambda: None,
    ) -> None:
        self.pool = pool
        self.staging = staging
        self.largest_model_bytes = largest_model_bytes
        self.now = now
        self.to_clear = to_clear
        # Models that may be ordered at once: uploaded or stored, by client and digest.
        self.usable: dict[tuple[UUID, str], ModelRef] = {}

    async def follow_changes(self, dsn: str) -> None:
        """Forget models that may not be ordered any more, whichever process has learnt of it; until cancelled."""

        async def heard(connection: OwnConnection, payloads: Sequence[str] | None) -> None:
            if payloads is None:
                self.usable.clear()
                return
            for payload in payloads:
                client_id, _, sha256 = payload.partition("/")
                self.usable.pop((UUID(client_id), sha256), None)

        await follow(dsn, "models_changed", heard)


class PartLink(msgspec.Struct, frozen=True):
    """How to upload one part."""

    number: int
    size_bytes: int
    upload: PresignedUpload


class PartsUpload(msgspec.Struct, frozen=True):
    """An upload by parts: all parts but the last are `part_size_bytes` long. `present` are there; `links` are for the
    next ones that are missing, at most a hundred: ask again for more."""

    part_size_bytes: int
    parts: int
    present: list[int]
    links: list[PartLink]


def staging_key(client_id: UUID, sha256: str, upload: int = 1) -> str:
    """Where an upload lies in staging. Each has a place of its own, so clearing one never touches the next."""
    return f"{client_id}/{sha256}/{upload}" if upload else f"{client_id}/{sha256}"


def part_size(size_bytes: int) -> int:
    """Length of the parts of a file: small enough for a poor line, large enough that there are at most a thousand."""
    mib = 1024 * 1024
    return max(_SMALLEST_PART, -(-size_bytes // _MOST_PARTS // mib) * mib)


def part_sizes(size_bytes: int, part_size_bytes: int) -> dict[int, int]:
    """The exact length of every part, by number from 1."""
    whole, rest = divmod(size_bytes, part_size_bytes)
    sizes = dict.fromkeys(range(1, whole + 1), part_size_bytes)
    return sizes | {whole + 1: rest} if rest else sizes


async def register_model(
    models: Models, client_id: UUID, name: str, size_bytes: int, sha256: str, *, multipart: bool = False
) -> tuple[ModelRow, PresignedUpload | PartsUpload | None]:
    """Register a model and say how to upload it; no upload when this client's own copy is already there. Raises
    StorageAway for one that goes by parts."""
    if size_bytes > models.largest_model_bytes:
        limit = models.largest_model_bytes // 1_000_000
        raise Problem(422, "model-too-large", "The model is too large", f"At most {limit} MB; send a lighter mesh.")
    async with models.pool.acquire() as connection, connection.transaction():
        before = await models_store.lock_model(connection, client_id, sha256)
        if before is not None and (
            before.state in ("refused", "expired") or (before.state == "registered" and before.size_bytes != size_bytes)
        ):
            await models_store.add_leftovers(connection, [_leftover(client_id, before)])
            await models_store.begin_upload(connection, client_id, sha256, models.now())
        row = await models_store.register_model(connection, client_id, sha256, size_bytes, name)
    if row.state in ("uploaded", "stored") or row.assembled:
        return row, None
    if multipart or row.multipart_id is not None or row.size_bytes > SINGLE_UP_TO:
        row = await _with_multipart(models, client_id, row)
        return row, await _parts_upload(models, client_id, row)
    key = staging_key(client_id, sha256, row.upload)
    return row, models.staging.presign_put(key, size_bytes=row.size_bytes, sha256=sha256)


def _leftover(client_id: UUID, row: ModelRow) -> Leftover:
    return Leftover(staging_key(client_id, row.sha256, row.upload), row.multipart_id or "")


async def _with_multipart(models: Models, client_id: UUID, row: ModelRow) -> ModelRow:
    """The model with an upload by parts that has been begun, by us or by whoever was first."""
    if row.multipart_id is not None:
        return row
    key = staging_key(client_id, row.sha256, row.upload)
    multipart_id = await models.staging.begin_multipart(key)
    async with models.pool.acquire() as connection:
        ours = await models_store.begin_multipart(
            connection, client_id, row.sha256, row.upload, multipart_id, part_size(row.size_bytes)
        )
        begun = await models_store.model(connection, client_id, row.sha256)
    if not ours:
        await models.staging.abort_multipart(key, multipart_id)
    if begun is None or begun.multipart_id is None:
        raise Problem(409, "upload-changed", "This upload has just been ended", "Register the model again.")
    return begun


async def parts_upload(models: Models, client_id: UUID, sha256: str) -> PartsUpload:
    """How far an upload by parts has come, with fresh links. Raises StorageAway."""
    row = await _row_going_by_parts(models, client_id, sha256)
    if row.assembled:
        assert row.part_size_bytes is not None
        sizes = part_sizes(row.size_bytes, row.part_size_bytes)
        return PartsUpload(row.part_size_bytes, len(sizes), list(sizes), [])
    return await _parts_upload(models, client_id, row)


async def links_for(
    models: Models, client_id: UUID, sha256: str, wanted: Sequence[tuple[int, str | None]]
) -> list[PartLink]:
    """Links for these parts, each bound to its number, its length and, if given, its sha-256. No network."""
    row = await _row_going_by_parts(models, client_id, sha256)
    assert row.multipart_id is not None
    assert row.part_size_bytes is not None
    sizes = part_sizes(row.size_bytes, row.part_size_bytes)
    if wrong := sorted({number for number, _ in wanted} - set(sizes)):
        raise Problem(422, "no-such-part", "There is no such part", f"Parts are 1 to {len(sizes)}, not {wrong[0]}.")
    return [_link(models, client_id, row, number, sizes[number], digest) for number, digest in wanted]


async def _row_going_by_parts(models: Models, client_id: UUID, sha256: str) -> ModelRow:
    async with models.pool.acquire() as connection:
        row = await models_store.model(connection, client_id, sha256)
    if row is None:
        raise not_found("model")
    if row.state != "registered":
        raise Problem(
            409,
            "no-upload",
            "Nothing of this model is being uploaded",
            f"It is {row.state}." + ("" if row.state in ("uploaded", "stored") else " Register it again."),
            state=row.state,
        )
    if row.multipart_id is None:
        raise Problem(
            409,
            "no-multipart-upload",
            "This model is not being uploaded by parts",
            'POST /v1/models with "multipart": true begins such an upload.',
        )
    return row


async def _parts_upload(models: Models, client_id: UUID, row: ModelRow) -> PartsUpload:
    present, sizes = await _present(models, client_id, row)
    missing = [number for number in sizes if number not in present]
    links = [_link(models, client_id, row, n, sizes[n], None) for n in missing[:LINKS_AT_ONCE]]
    assert row.part_size_bytes is not None
    return PartsUpload(row.part_size_bytes, len(sizes), sorted(present), links)


def _link(models: Models, client_id: UUID, row: ModelRow, number: int, size_bytes: int, sha256: str | None) -> PartLink:
    assert row.multipart_id is not None
    key = staging_key(client_id, row.sha256, row.upload)
    link = models.staging.presign_part(key, row.multipart_id, number, size_bytes=size_bytes, sha256=sha256)
    return PartLink(number, size_bytes, link)


async def _present(models: Models, client_id: UUID, row: ModelRow) -> tuple[dict[int, UploadedPart], dict[int, int]]:
    """The parts that are there in their right length, and the length of every part. An upload that the storage knows
    no more is ended here, so that registering again begins another: 409."""
    assert row.multipart_id is not None
    assert row.part_size_bytes is not None
    sizes = part_sizes(row.size_bytes, row.part_size_bytes)
    key = staging_key(client_id, row.sha256, row.upload)
    try:
        found = await models.staging.parts(key, row.multipart_id)
    except NoSuchUpload:
        if await models.staging.size(key) == row.size_bytes:  # completed by somebody who did not live to say so
            async with models.pool.acquire() as connection:
                await models_store.set_assembled(connection, client_id, row.sha256, row.upload)
            return {n: UploadedPart(n, size, "") for n, size in sizes.items()}, sizes
        await _end_upload(models, client_id, row)
        raise Problem(
            409,
            "upload-lost",
            "The storage does not know this upload any more",
            "It was left alone for too long. Register the model again and upload it from the beginning.",
        ) from None
    return {p.number: p for p in found if sizes.get(p.number) == p.size_bytes}, sizes


async def complete_upload(models: Models, client_id: UUID, sha256: str) -> ModelRow:
    """Put the file together from its parts; done once, however often it is asked for. 409 names missing parts. What
    is in the file is looked at when it is ordered. Raises StorageAway."""
    async with models.pool.acquire() as connection:
        row = await models_store.model(connection, client_id, sha256)
    if row is not None and (row.state in ("uploaded", "stored") or (row.state == "registered" and row.assembled)):
        return row
    row = await _row_going_by_parts(models, client_id, sha256)
    assert row.multipart_id is not None
    key = staging_key(client_id, sha256, row.upload)
    present, sizes = await _present(models, client_id, row)
    if missing := [number for number in sizes if number not in present]:
        raise Problem(
            409,
            "parts-missing",
            f"{len(missing)} of {len(sizes)} parts are missing",
            f"Upload them first: GET /v1/models/{sha256}/upload gives links.",
            missing=missing[:LINKS_AT_ONCE],
        )
    try:
        await models.staging.complete_multipart(key, row.multipart_id, [present[n] for n in sizes])
    except NoSuchUpload:
        pass  # somebody else just did, or aborted: the size tells
    size = await models.staging.size(key)
    if size != row.size_bytes:
        await _end_upload(models, client_id, row)
        raise Problem(
            409,
            "model-size-differs",
            "The uploaded file is not the one announced",
            f"{row.size_bytes} bytes were announced, {size or 0} are there. Register and upload it again.",
        )
    async with models.pool.acquire() as connection:
        await models_store.set_assembled(connection, client_id, sha256, row.upload)
    return msgspec.structs.replace(row, assembled=True)


async def abort_upload(models: Models, client_id: UUID, sha256: str) -> None:
    """End an upload by parts and drop what came of it; registering the model again begins another."""
    await _end_upload(models, client_id, await _row_going_by_parts(models, client_id, sha256))


async def _end_upload(models: Models, client_id: UUID, seen: ModelRow) -> None:
    async with models.pool.acquire() as connection, connection.transaction():
        row = await models_store.lock_model(connection, client_id, seen.sha256)
        if row is None or row.upload != seen.upload or row.state != "registered":
            return
        await models_store.add_leftovers(connection, [_leftover(client_id, row)])
        await models_store.begin_upload(connection, client_id, row.sha256, models.now())
    models.to_clear()


async def usable_model(models: Models, client_id: UUID, sha256: str) -> ModelRef:
    """A model of the client's own that may be ordered. Raises the Problem that says why it may not."""
    return models.usable.get((client_id, sha256)) or await _uploaded_model(models, client_id, sha256)


async def adopt_stored(models: Models, client_id: UUID, sha256: str, size_bytes: int, name: str) -> ModelRow:
    """Put a model that the model store has, and that stays there, among the client's own, without uploading it once
    more."""
    async with models.pool.acquire() as connection, connection.transaction():
        before = await models_store.lock_model(connection, client_id, sha256)
        if before is not None and before.state in ("uploaded", "stored"):
            return before
        if before is not None:
            await models_store.add_leftovers(connection, [_leftover(client_id, before)])
            await models_store.begin_upload(connection, client_id, sha256, models.now())
        row = await models_store.register_model(connection, client_id, sha256, size_bytes, name)
        await models_store.set_transferred(connection, client_id, sha256, row.upload, None)
    models.to_clear()
    return msgspec.structs.replace(row, state="stored")


async def last_upload(models: Models, client_id: UUID, sha256: str) -> int | None:
    """The number of the last upload of a client's model, None for one that is not the client's."""
    async with models.pool.acquire() as connection:
        row = await models_store.model(connection, client_id, sha256)
    return None if row is None else row.upload


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
    if row.state == "expired":
        raise Problem(409, "model-expired", "This model is not kept any more", f"{row.failure} Register it again.")
    if row.state == "registered":
        key = staging_key(client_id, sha256, row.upload)
        size = await models.staging.size(key)
        if size is None:
            by_parts = row.multipart_id is not None
            raise Problem(
                409,
                "model-not-uploaded",
                "The model is not uploaded yet",
                f"Upload its parts, then POST /v1/models/{sha256}/upload/complete."
                if by_parts
                else "PUT it to the link of POST /v1/models.",
            )
        if size != row.size_bytes:
            raise Problem(
                409,
                "model-size-differs",
                "The uploaded file is not the one announced",
                f"{row.size_bytes} bytes were announced, {size} are there. Register and upload it again.",
            )
        uploaded = ModelUploaded(
            sha256=sha256,
            size_bytes=size,
            account=client_id,
            bucket=models.staging.name,
            key=key,
            upload=row.upload,
        )
        async with models.pool.acquire() as connection, connection.transaction():
            if await models_store.set_uploaded(connection, client_id, sha256, row.upload):
                await outbox.add(connection, [outbox.message(topics.MODEL_TRANSFERS, sha256, uploaded)])
    model = ModelRef(sha256=sha256, size_bytes=row.size_bytes, name=row.name, upload=row.upload)
    if len(models.usable) >= _REMEMBERED_MODELS:
        models.usable.clear()
    models.usable[(client_id, sha256)] = model
    return model


async def take_stored_models(models: Models, stored: Sequence[ModelStored]) -> None:
    """Keep what became of this channel's uploads; what they left in staging is to be cleared away."""
    async with models.pool.acquire() as connection, connection.transaction():
        for message in sorted(stored, key=lambda m: (m.account, m.sha256)):
            failure = message.failure
            if failure is not None and failure.code == MODEL_REMOVED:
                await models_store.set_expired(
                    connection, message.account, message.sha256, message.upload, failure.detail
                )
            elif await models_store.set_transferred(
                connection, message.account, message.sha256, message.upload, None if failure is None else failure.detail
            ):
                row = await models_store.model(connection, message.account, message.sha256)
                assert row is not None
                await models_store.add_leftovers(connection, [_leftover(message.account, row)])
    for message in stored:
        if message.failure is not None:
            models.usable.pop((message.account, message.sha256), None)
    models.to_clear()
