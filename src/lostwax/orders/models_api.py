"""HTTP of the model store, for other services."""

import re
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.ids import bucket_of_digest
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, Parameter, answer, query
from lostwax.kit.objects import Bucket
from lostwax.kit.problems import Problem
from lostwax.kit.service_calls import SERVICE_AUTH, calling_service
from lostwax.kit.shards import ShardMap
from lostwax.orders import models_store


class ModelLink(msgspec.Struct, frozen=True):
    """Where to get a stored model, for fifteen minutes."""

    url: str


def operations(shards: ShardMap, models: Bucket, verifier: ServiceVerifier) -> list[Operation]:
    async def get_model_link(request: Request) -> Response:
        calling_service(verifier, request)
        sha256 = str(request.path_params["sha256"])
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Problem(404, "not-found", "No such model", "A model is named by 64 lower-case hex digits.")
        async with shards.of(bucket_of_digest(sha256)).pool.acquire() as connection:
            if not await models_store.stored_models(connection, [sha256]):
                raise Problem(404, "not-found", "No such model", "It is not in the model store (yet).")
        name = query(request, "name", Annotated[str, msgspec.Meta(min_length=1, max_length=200)], sha256)
        return answer(ModelLink(models.presign_get(sha256, file_name=name)))

    return [
        Operation(
            "GET",
            "/v1/models/{sha256}/link",
            get_model_link,
            "A link to a stored model",
            {200: ModelLink},
            {400: "a parameter is wrong", 404: "not stored"},
            parameters=(Parameter("name", "query", {"type": "string"}, "file name to save it under"),),
            auth=SERVICE_AUTH,
        ),
    ]
