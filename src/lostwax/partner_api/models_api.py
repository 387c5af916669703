"""HTTP of clients' models, for partners' programs."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.orders import Sha256
from lostwax.kit.http import Operation, answer
from lostwax.kit.objects import PresignedUpload
from lostwax.kit.problems import Problem, not_found
from lostwax.partner_api import models, models_store
from lostwax.partner_api.callers import AUTH, calling_client
from lostwax.partner_api.domain import Scope
from lostwax.partner_api.models import Models


class RegisterModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=200, description="file name, shown to operators")]
    size_bytes: Annotated[int, Meta(ge=1, le=10_000_000_000)]
    sha256: Sha256


class ModelView(msgspec.Struct, frozen=True):
    """A model of yours. `state`: registered (upload it), uploaded, stored, or refused with `failure`."""

    sha256: str
    size_bytes: int
    name: str
    state: str
    failure: str | None = None
    upload: PresignedUpload | None = None


def operations(own: Models) -> list[Operation]:
    async def register_model(request: Request, body: RegisterModel) -> Response:
        client_id = calling_client(request).client_id
        row, upload = await models.register_model(own, client_id, body.name, body.size_bytes, body.sha256)
        return answer(_model_view(row, upload), 201 if upload else 200)

    async def get_model(request: Request) -> Response:
        client_id = calling_client(request).client_id
        sha256 = str(request.path_params["sha256"])
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Problem(404, "not-found", "No such model", "A model is named by 64 lower-case hex digits.")
        async with own.pool.acquire() as connection:
            row = await models_store.model(connection, client_id, sha256)
        if row is None:
            raise not_found("model")
        return answer(_model_view(row, None))

    return [
        Operation(
            "POST",
            "/v1/models",
            register_model,
            "Register a model and get a link to upload it",
            {200: ModelView, 201: ModelView},
            {422: "does not fit, or larger than is taken"},
            body=RegisterModel,
            auth=AUTH,
            scope=Scope.MODELS_WRITE,
        ),
        Operation(
            "GET",
            "/v1/models/{sha256}",
            get_model,
            "One of your models",
            {200: ModelView},
            {404: "no such model"},
            auth=AUTH,
            scope=Scope.MODELS_READ,
        ),
    ]


def _model_view(row: Any, upload: PresignedUpload | None) -> ModelView:
    return ModelView(
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        name=row.name,
        state=row.state,
        failure=row.failure,
        upload=upload,
    )
