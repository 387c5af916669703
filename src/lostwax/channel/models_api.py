"""HTTP of clients' models."""

import re
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel import models, models_store, orders_client
from lostwax.channel.api import storage_known_to_be_away
from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Scope
from lostwax.channel.models import LINKS_AT_ONCE, Models, PartLink, PartsUpload
from lostwax.channel.models_store import ModelRow
from lostwax.contracts.orders import Sha256
from lostwax.kit.http import Operation, Parameter, answer, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.objects import PresignedUpload
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem, not_found

STATES = ("registered", "uploaded", "stored", "refused", "expired")


class RegisterModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`multipart`: upload it by parts, which can be resumed; larger files are always uploaded so."""

    name: Annotated[str, Meta(min_length=1, max_length=200, description="file name, shown to operators")]
    size_bytes: Annotated[int, Meta(ge=1, le=10_000_000_000)]
    sha256: Sha256
    multipart: bool = False


class ModelView(msgspec.Struct, frozen=True):
    """A model of yours. `state`: registered (upload it), uploaded, stored, refused or expired with `failure`.

    Upload it by one PUT to `upload`, or by parts (`multipart`); neither is given for a file that is there.
    """

    sha256: str
    size_bytes: int
    name: str
    state: str
    failure: str | None = None
    upload: PresignedUpload | None = None
    multipart: PartsUpload | None = None
    registered_at: datetime | None = None


class ModelsPage(msgspec.Struct, frozen=True):
    """The last registered first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    models: list[ModelView]
    next: str | None = None


class WantedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part to be uploaded; with its `sha256` the storage takes nothing else."""

    number: Annotated[int, Meta(ge=1, le=10_000)]
    sha256: Sha256 | None = None


class WantedParts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: Annotated[list[WantedPart], Meta(min_length=1, max_length=LINKS_AT_ONCE)]


class PartLinks(msgspec.Struct, frozen=True):
    """In the order in which they were asked for."""

    links: list[PartLink]


def operations(own: Models, orders: Neighbour, auth: str) -> list[Operation]:
    def digest_of(request: Request) -> str:
        sha256 = str(request.path_params["sha256"])
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Problem(404, "not-found", "No such model", "A model is named by 64 lower-case hex digits.")
        return sha256

    async def register_model(request: Request, body: RegisterModel) -> Response:
        client_id = calling_client(request).client_id
        with storage_known_to_be_away():
            row, upload = await models.register_model(
                own, client_id, body.name, body.size_bytes, body.sha256, multipart=body.multipart
            )
        return answer(_model_view(row, upload), 201 if upload else 200)

    async def get_model(request: Request) -> Response:
        client_id = calling_client(request).client_id
        async with own.pool.acquire() as connection:
            row = await models_store.model(connection, client_id, digest_of(request))
        if row is None:
            raise not_found("model")
        return answer(_model_view(row))

    async def list_models(request: Request) -> Response:
        client_id = calling_client(request).client_id
        limit = rows_wanted(request)
        after = query(request, "after", Sha256, None)
        state = query(request, "state", Annotated[str, Meta(pattern=f"^({'|'.join(STATES)})$")], None)
        async with own.pool.acquire() as connection:
            rows = await models_store.models_page(connection, client_id, after, state, limit + 1)
        shown = [_model_view(row) for row in rows[:limit]]
        return answer(ModelsPage(shown, shown[-1].sha256 if len(rows) > limit else None))

    async def get_upload(request: Request) -> Response:
        client_id = calling_client(request).client_id
        with storage_known_to_be_away():
            return answer(await models.parts_upload(own, client_id, digest_of(request)))

    async def get_part_links(request: Request, body: WantedParts) -> Response:
        client_id = calling_client(request).client_id
        wanted = [(part.number, part.sha256) for part in body.parts]
        return answer(PartLinks(await models.links_for(own, client_id, digest_of(request), wanted)))

    async def complete_upload(request: Request) -> Response:
        client_id = calling_client(request).client_id
        with storage_known_to_be_away():
            return answer(_model_view(await models.complete_upload(own, client_id, digest_of(request))))

    async def abort_upload(request: Request) -> Response:
        client_id = calling_client(request).client_id
        await models.abort_upload(own, client_id, digest_of(request))
        return Response(status_code=204)

    async def get_file(request: Request) -> Response:
        client_id = calling_client(request).client_id
        async with own.pool.acquire() as connection:
            row = await models_store.model(connection, client_id, digest_of(request))
        if row is None:
            raise not_found("model")
        if row.state != "stored":
            raise Problem(409, "model-not-stored", "This model is not in the model store", f"It is {row.state}.")
        url = await orders_client.model_link(orders, row.sha256, row.name)
        return Response(status_code=302, headers={"Location": url, "Cache-Control": "no-store"})

    page = (
        *page_parameters({"type": "string"}),
        Parameter("state", "query", {"type": "string", "enum": list(STATES)}, "only in this state"),
    )
    no_upload = {404: "no such model", 409: "it is not being uploaded by parts"}
    return [
        Operation(
            "POST",
            "/v1/models",
            register_model,
            "Register a model and get a link to upload it",
            {200: ModelView, 201: ModelView},
            {422: "does not fit, or larger than is taken"},
            body=RegisterModel,
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
        Operation(
            "GET",
            "/v1/models/{sha256}",
            get_model,
            "One of your models",
            {200: ModelView},
            {404: "no such model"},
            auth=auth,
            scope=Scope.MODELS_READ,
        ),
        Operation(
            "GET",
            "/v1/models",
            list_models,
            "Your models, the last registered first",
            {200: ModelsPage},
            {400: "a parameter is wrong"},
            parameters=page,
            auth=auth,
            scope=Scope.MODELS_READ,
        ),
        Operation(
            "GET",
            "/v1/models/{sha256}/file",
            get_file,
            "The file of one of your stored models, by a link of fifteen minutes",
            {302: None},
            {404: "no such model", 409: "not stored"},
            auth=auth,
            scope=Scope.MODELS_READ,
        ),
        Operation(
            "GET",
            "/v1/models/{sha256}/upload",
            get_upload,
            "How far an upload by parts has come, with fresh links to go on",
            {200: PartsUpload},
            no_upload,
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/models/{sha256}/upload/links",
            get_part_links,
            "Links for the parts you name, bound to their sha-256 if you give it",
            {200: PartLinks},
            no_upload | {422: "does not fit, or no such part"},
            body=WantedParts,
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/models/{sha256}/upload/complete",
            complete_upload,
            "Put the file together from its parts",
            {200: ModelView},
            {404: "no such model", 409: "parts are missing, or it is not being uploaded by parts"},
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
        Operation(
            "DELETE",
            "/v1/models/{sha256}/upload",
            abort_upload,
            "End an upload by parts and drop what came of it",
            {204: None},
            no_upload,
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
    ]


def _model_view(row: ModelRow, upload: PresignedUpload | PartsUpload | None = None) -> ModelView:
    return ModelView(
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        name=row.name,
        state=row.state,
        failure=row.failure,
        upload=upload if isinstance(upload, PresignedUpload) else None,
        multipart=upload if isinstance(upload, PartsUpload) else None,
        registered_at=row.registered_at,
    )
