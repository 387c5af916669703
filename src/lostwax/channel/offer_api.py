"""HTTP of what a door for people offers: alloys, finishes, and the pieces of its catalogue."""

import functools
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel.api import storage_known_to_be_away
from lostwax.channel.callers import calling_client
from lostwax.channel.catalogue import PIECES, Catalogue
from lostwax.channel.domain import Scope
from lostwax.kit.http import Operation, answer


class Offered(msgspec.Struct, frozen=True):
    """An alloy or a finish by its code, and what it is called in both languages. `colour`: of an alloy, in pictures."""

    code: str
    en: str
    ru: str
    colour: str | None = None


class PieceView(msgspec.Struct, frozen=True):
    """A piece of the catalogue; take it, and it is a model of yours. `ring_size`: as it is drawn, EU."""

    code: str
    name: str
    ring_size: float | None


class Offer(msgspec.Struct, frozen=True):
    alloys: list[Offered]
    finishes: list[Offered]
    pieces: list[PieceView]


class Taken(msgspec.Struct, frozen=True):
    """The piece among your models."""

    sha256: str
    name: str
    size_bytes: int


@functools.cache
def offer() -> Offer:
    """What is offered, from the file beside this one."""
    said: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "offer.toml").read_text())

    def of(kind: str) -> list[Offered]:
        return [Offered(code, **names) for code, names in said[kind].items()]

    pieces = [PieceView(p.code, p.name, p.ring_size) for p in PIECES.values()]
    return Offer(of("alloys"), of("finishes"), pieces)


def operations(catalogue: Catalogue, auth: str) -> list[Operation]:
    offered = offer()

    async def get_offer(_: Request) -> Response:
        return answer(offered, headers={"Cache-Control": "max-age=300"})

    async def get_piece(request: Request) -> Response:
        content = await catalogue.file(request.path_params["piece"])
        headers = {"Cache-Control": "max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(content, 200, headers, "model/stl")

    async def take_piece(request: Request) -> Response:
        with storage_known_to_be_away():
            row = await catalogue.take(calling_client(request).client_id, request.path_params["piece"])
        return answer(Taken(row.sha256, row.name, row.size_bytes))

    absent = {404: "no such piece"}
    return [
        Operation("GET", "/v1/offer", get_offer, "Alloys, finishes, pieces for those without a model", {200: Offer}),
        Operation("GET", "/v1/catalogue/{piece}", get_piece, "A piece as a binary STL", {200: None}, absent),
        Operation(
            "POST",
            "/v1/catalogue/{piece}/take",
            take_piece,
            "Put a piece among your models, to have it priced and made",
            {200: Taken},
            absent,
            auth=auth,
            scope=Scope.MODELS_WRITE,
        ),
    ]
