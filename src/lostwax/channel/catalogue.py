"""The sample pieces that are offered to those without a model: made from numbers when first asked for."""

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import msgspec

from lostwax.channel import models
from lostwax.channel.models import Models, staging_key
from lostwax.channel.models_store import ModelRow
from lostwax.kit.problems import not_found
from lostwax.samples import Shape, band, pendant, signet, solitaire
from lostwax.samples.files import binary


class Piece(msgspec.Struct, frozen=True):
    """A piece of the catalogue. `ring_size`: as it is drawn, EU; None: no ring."""

    code: str
    name: str
    ring_size: float | None
    make: Callable[[], Shape]


PIECES: Mapping[str, Piece] = {
    piece.code: piece
    for piece in (
        Piece("comfort-band", "Comfort band", 54, lambda: band(size=54, profile="comfort", around=120, across=12)),
        Piece("flat-band", "Flat band", 60, lambda: band(size=60, profile="flat", width=6, around=120, across=8)),
        Piece("half-round-band", "Half-round band", 50, lambda: band(size=50, profile="half-round", width=3)),
        Piece("signet", "Signet ring", 60, lambda: signet(size=60, around=120)),
        Piece("broad-signet", "Broad signet ring", 66, lambda: signet(size=66, width=11, table=13, around=120)),
        Piece("solitaire-6", "Solitaire, six prongs", 52, lambda: solitaire(size=52, prongs=6)),
        Piece("solitaire-4", "Solitaire, four prongs", 56, lambda: solitaire(size=56, prongs=4, stone=6)),
        Piece("heart", "Heart pendant", None, lambda: pendant(form="heart", length=20)),
        Piece("drop", "Drop pendant", None, lambda: pendant(form="drop", length=26)),
        Piece("star", "Star pendant", None, lambda: pendant(form="star", length=22)),
        Piece("medallion", "Round medallion", None, lambda: pendant(form="round", length=24, depth=2)),
    )
}


class Catalogue:
    """Makes pieces and puts them among a customer's models. `known` grows to all pieces, 6 MB."""

    def __init__(self, own: Models) -> None:
        self._models = own
        self._known: dict[str, bytes] = {}

    async def file(self, code: str) -> bytes:
        """The piece as a binary STL, mm. Raises the 404 Problem."""
        piece = PIECES.get(code)
        if piece is None:
            raise not_found("piece")
        if code not in self._known:
            self._known[code] = await asyncio.to_thread(lambda: binary(piece.make().triangles))
        return self._known[code]

    async def take(self, client_id: UUID, code: str) -> ModelRow:
        """Put a piece among a customer's own models, as if they had uploaded it; done once. Raises StorageAway."""
        content = await self.file(code)
        digest = hashlib.sha256(content).hexdigest()
        row, upload = await models.register_model(
            self._models, client_id, f"{code}.stl", len(content), digest, multipart=False
        )
        if upload is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "piece"
                await asyncio.to_thread(path.write_bytes, content)
                await self._models.staging.upload(staging_key(client_id, digest, row.upload), path)
        return row
