"""HTTP of the model store, for other services; pricing reads it by an S3 identity of its own."""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lostwax.contracts.ids import bucket_of_digest
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, Parameter, answer, query
from lostwax.kit.objects import StorageAway
from lostwax.kit.problems import Problem, try_later
from lostwax.kit.service_calls import SERVICE_AUTH, for_services
from lostwax.orders import model_handlers, models_store
from lostwax.orders.callers import KEEPERS, READERS
from lostwax.orders.changes import Orders
from lostwax.orders.models_store import Reference

_REFERENCES_SHOWN = 100


class ModelLink(msgspec.Struct, frozen=True):
    """Where to get a stored model, for fifteen minutes."""

    url: str


class StoredModelView(msgspec.Struct, frozen=True):
    """A model in the store. At most a hundred references are shown. `remove_after` is set when nothing needs it: then
    it is removed, unless something needs it before."""

    sha256: str
    size_bytes: int
    stored_at: datetime
    references: list[Reference]
    remove_after: datetime | None = None


class Kept(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int


def operations(orders: Orders, verifier: ServiceVerifier, *, largest_put_bytes: int) -> list[Operation]:
    def digest_of(request: Request) -> str:
        sha256 = str(request.path_params["sha256"])
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Problem(404, "not-found", "No such model", "A model is named by 64 lower-case hex digits.")
        return sha256

    async def get_stored_model(request: Request) -> Response:
        sha256 = digest_of(request)
        async with orders.shards.of(bucket_of_digest(sha256)).pool.acquire() as connection:
            model = await models_store.stored_model(connection, sha256)
            references = await models_store.references(connection, sha256, _REFERENCES_SHOWN)
        if model is None:
            raise Problem(404, "not-found", "No such model", "It is not in the model store (yet).")
        return answer(StoredModelView(model.sha256, model.size_bytes, model.stored_at, references, model.remove_after))

    async def get_model_link(request: Request) -> Response:
        sha256 = digest_of(request)
        async with orders.shards.of(bucket_of_digest(sha256)).pool.acquire() as connection:
            if not await models_store.stored_models(connection, [sha256]):
                raise Problem(404, "not-found", "No such model", "It is not in the model store (yet).")
        name = query(request, "name", Annotated[str, msgspec.Meta(min_length=1, max_length=200)], sha256)
        return answer(ModelLink(orders.models.presign_get(sha256, file_name=name)))

    async def put_model(request: Request) -> Response:
        sha256 = digest_of(request)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > largest_put_bytes:
            raise _too_large(largest_put_bytes)
        digest, size = hashlib.sha256(), 0
        with NamedTemporaryFile(prefix="lostwax-model-") as file:
            try:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > largest_put_bytes:
                        raise _too_large(largest_put_bytes)
                    digest.update(chunk)
                    file.write(chunk)
            except ClientDisconnect:
                raise Problem(400, "incomplete-body", "The body ended early") from None
            file.flush()
            if digest.hexdigest() != sha256:
                raise Problem(
                    422,
                    "digest-differs",
                    "The file is not the one that is named",
                    f"The sha-256 of what came is {digest.hexdigest()}.",
                )
            if size == 0:
                raise Problem(422, "empty", "The file is empty", "Send the model as the body.")
            shard = orders.shards.of(bucket_of_digest(sha256))
            try:
                new = await model_handlers.put_model(orders, shard, sha256, size, Path(file.name))
            except StorageAway:
                raise try_later(
                    "The file storage does not answer. Send it again.", after_s=5, code="storage-away"
                ) from None
        return answer(Kept(sha256, size), 201 if new else 200)

    operations = [
        Operation(
            "GET",
            "/v1/models/{sha256}",
            get_stored_model,
            "A stored model, who needs it, and when it goes if nobody does",
            {200: StoredModelView},
            {404: "not stored"},
            auth=SERVICE_AUTH,
            callers=READERS,
        ),
        Operation(
            "PUT",
            "/v1/models/{sha256}",
            put_model,
            "Store a model: its bytes are the body",
            {200: Kept, 201: Kept},
            {400: "it ended early", 404: "no digest", 413: "too large", 422: "another file"},
            auth=SERVICE_AUTH,
            callers=KEEPERS,
        ),
        Operation(
            "GET",
            "/v1/models/{sha256}/link",
            get_model_link,
            "A link to a stored model",
            {200: ModelLink},
            {400: "a parameter is wrong", 404: "not stored"},
            parameters=(Parameter("name", "query", {"type": "string"}, "file name to save it under"),),
            auth=SERVICE_AUTH,
            callers=READERS,
        ),
    ]
    return for_services(operations, verifier)


def _too_large(most: int) -> Problem:
    return Problem(
        413,
        "model-too-large",
        "The model is too large for this way",
        f"At most {most} bytes; stage larger files and let Orders fetch them.",
    )
