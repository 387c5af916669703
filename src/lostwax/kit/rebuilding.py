"""`/v1/rebuild`: have a service's lists in Redis built anew, and see how far that is."""

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.generations import Generations
from lostwax.kit.http import Operation, answer
from lostwax.kit.service_calls import CONSOLE, SERVICE_AUTH, for_services


class RebuildAsked(msgspec.Struct, frozen=True):
    """Done once `GET /v1/rebuild` gives a `built_at` of this time or later."""

    asked_at: datetime


class RebuildView(msgspec.Struct, frozen=True):
    """`state`: `waiting` (`detail` says for what), `building` or `done`. `done` of `total` entries in `seconds`, of the
    rebuild that is going on. `built_at`: as of when the lists in force were taken from the database; changes since then
    are in them too."""

    state: str
    done: int = 0
    total: int = 0
    seconds: float = 0
    built_at: datetime | None = None
    detail: str | None = None


def rebuild_operations(generations: Generations, verifier: ServiceVerifier) -> list[Operation]:
    async def post_rebuild(_: Request) -> Response:
        return answer(RebuildAsked(await generations.ask_for_rebuild()), 202)

    async def get_rebuild(_: Request) -> Response:
        standing = await generations.standing()
        if standing.redis is not None:
            return answer(RebuildView("waiting", detail=f"Redis does not answer: {standing.redis}"))
        if (going := standing.progress) is not None:
            return answer(RebuildView("building", going.done, going.total, going.seconds, standing.built_at))
        if standing.built_at is None:
            return answer(RebuildView("waiting", detail="There are no lists in Redis; they are about to be built."))
        return answer(RebuildView("done", built_at=standing.built_at))

    operations = [
        Operation(
            "POST",
            "/v1/rebuild",
            post_rebuild,
            "Have the lists in Redis built anew from the database",
            {202: RebuildAsked},
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
        Operation(
            "GET",
            "/v1/rebuild",
            get_rebuild,
            "How far a rebuild is, and of when the lists in Redis are",
            {200: RebuildView},
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
    ]
    return for_services(operations, verifier)
