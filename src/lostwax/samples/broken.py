"""Files that pretend to be models: what a reader must refuse, and two that it must forgive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lostwax.samples.files import binary
from lostwax.samples.shapes import Array, band


class BrokenSample(msgspec.Struct, frozen=True):
    """`why`: the code of the refusal, or `accept` when the model can be mended without guessing (see `volume_mm3`)."""

    name: str
    path: Path
    why: str
    volume_mm3: float | None = None


def broken(folder: Path) -> list[BrokenSample]:
    """Writes one file for each way of being broken into `folder`, which is made. The same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = band(size=52, profile="comfort", width=3.5, thickness=1.6, around=64, across=8)
    sound = shape.triangles
    whole = binary(sound)
    count = len(sound)

    def with_count(n: int) -> bytes:
        return whole[:80] + n.to_bytes(4, "little") + whole[84:]

    def spoiled(change: Callable[[Array], None]) -> bytes:
        triangles = sound.copy()
        change(triangles)
        return binary(triangles)

    files: list[tuple[str, bytes, str, float | None]] = [
        ("empty", b"", "empty", None),
        ("header-only", whole[:83], "truncated", None),
        ("truncated", whole[: len(whole) // 2], "truncated", None),
        ("count-too-high", with_count(count + 1000), "truncated", None),
        ("count-too-low", with_count(count // 2), "size_mismatch", None),
        ("zero-triangles", whole[:80] + bytes(4), "zero_triangles", None),
        ("nan", spoiled(_put((17, 1, 2), np.nan)), "nonfinite", None),
        ("infinite", spoiled(_put((17, 1, 2), np.inf)), "nonfinite", None),
        ("far-away", spoiled(_put((17, 1, 2), 3e30)), "extent", None),
        ("hole", binary(np.delete(sound, range(40, 48), axis=0)), "not_closed", None),
        ("not-an-stl", b"Dear jeweller, please find the ring attached.\n" * 9, "not_stl", None),
        ("a-zip", b"PK\x03\x04" + bytes(200), "unsupported_format", None),
        ("ascii-cut", b"solid ring\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\n", "truncated", None),
        ("some-faces-flipped", binary(_flipped(sound, slice(100, 160))), "accept", shape.volume_mm3),
        ("inside-out", binary(_flipped(sound, slice(None))), "accept", shape.volume_mm3),
    ]
    samples = []
    for name, data, why, volume in files:
        path = folder / f"{name}.stl"
        path.write_bytes(data)
        samples.append(BrokenSample(path.name, path, why, volume))
    return samples


def _put(where: tuple[int, int, int], value: float) -> Callable[[Array], None]:
    def change(triangles: Array) -> None:
        triangles[where] = value

    return change


def _flipped(triangles: npt.NDArray[Any], which: slice) -> npt.NDArray[Any]:
    turned = triangles.copy()
    turned[which] = triangles[which, ::-1]
    return turned
