"""What pages share on which pieces are ordered: the model, its 3D view, what it costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from lostwax.channel.offer_api import offer
from lostwax.kit.house import House, language_of

FAILURE = "failure "
"""What begins the keys of words for the codes of why a model has no price."""

PIECE = Path(__file__).parent / "web"
PIECE_FILES = tuple(
    PIECE / name for name in ("piece.css", "piece.js", "upload.js", "model_view.js", "three.js", "sha256.js")
)
"""three.js: three 0.187.0 (MIT) with its loaders of STL, OBJ and 3MF and its OrbitControls; sha256.js: @noble/hashes 2
(MIT). Both bundled by esbuild from npm's packages, see docs/decisions/0042-the-storefront.md."""


def policy_of(storage: str) -> Mapping[str, str]:
    """What such a page may do beside what every page may. `storage`: where browsers put files."""
    place = urlsplit(storage)
    origin = f"{place.scheme}://{place.netloc}"
    # The 3D view paints colours of its own into the canvas' style; models come from here, and go to the storage.
    return {"connect-src": f"'self' {origin} blob:", "img-src": "'self' data: blob:"}


def piece_context(house: House, request: Request, largest_model_bytes: int) -> dict[str, Any]:
    """What the templates of `web/` want to know."""
    return {
        "offer": offer(),
        "largest_mb": largest_model_bytes // 1_000_000,
        "failures": house.words_about(language_of(request), FAILURE),
    }
