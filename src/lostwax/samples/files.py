"""Writes shapes as STL files (`indexed` writes other formats), and whole collections of them from a seed."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lostwax.samples.shapes import Array, Shape, band, pendant, signet, solitaire

_FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


class Sample(msgspec.Struct, frozen=True):
    """A sound model on disk. `volume_mm3` is exact but for the file's float32: right to 1e-6 of itself."""

    name: str
    path: Path
    kind: str
    volume_mm3: float
    triangles: int
    sha256: str
    size_bytes: int


def generate(folder: Path, count: int, seed: int, *, distinct: int | None = None) -> list[Sample]:
    """`count` models (2,000 to 60,000 triangles each) in `folder`, which is made; the same seed gives the same bytes.

    Only `distinct` of them differ (default: all), the rest repeat those in turn, as customers repeat their orders.
    """
    if count < 1 or (distinct is not None and distinct < 1):
        raise ValueError("count and distinct must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(seed)
    samples: list[Sample] = []
    for number in range(min(count, distinct or count)):
        name, shape = _any_piece(random)
        samples.append(write_sample(shape, folder / f"{name}-{seed}-{number:04d}.stl"))
    return [samples[k % len(samples)] for k in range(count)]


def write_sample(shape: Shape, path: Path) -> Sample:
    data = binary(shape.triangles)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Sample(path.name, path, shape.kind, shape.volume_mm3, len(shape.triangles), digest, len(data))


def binary(triangles: npt.NDArray[Any], header: bytes = b"Lostwax sample, mm") -> bytes:
    """A binary STL of triangles (n, 3, 3) in mm. `header`: at most 80 bytes."""
    record = np.zeros(len(triangles), dtype=_FACET)
    record["corners"] = triangles
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        record["normal"] = np.nan_to_num(_normals(triangles))
    return header.ljust(80, b"\0") + len(triangles).to_bytes(4, "little") + record.tobytes()


def write_binary(triangles: npt.NDArray[Any], path: Path) -> None:
    path.write_bytes(binary(triangles))


def write_ascii(triangles: npt.NDArray[Any], path: Path, name: str = "lostwax") -> None:
    """An ASCII STL with nine significant digits, which keep a float32 whole. About 250 bytes a triangle."""
    form = "facet normal %.5g %.5g %.5g\n outer loop\n" + "  vertex %.9g %.9g %.9g\n" * 3 + " endloop\nendfacet\n"
    rows = np.concatenate([_normals(triangles), triangles.astype(np.float32).reshape(-1, 9)], axis=1)
    with path.open("w", encoding="ascii") as file:
        file.write(f"solid {name}\n")
        file.writelines(form % tuple(row) for row in rows.tolist())
        file.write(f"endsolid {name}\n")


def _normals(triangles: npt.NDArray[Any]) -> Array:
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    unit: Array = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    return unit


def _any_piece(random: Random) -> tuple[str, Shape]:
    make: Callable[[Random, int], tuple[str, Shape]] = random.choices(
        (_any_band, _any_signet, _any_solitaire, _any_pendant), (4, 2, 3, 2)
    )[0]
    # As many small models as large ones on a scale of ratios.
    return make(random, round(math.exp(random.uniform(math.log(2_500), math.log(50_000)))))


def _any_band(random: Random, triangles: int) -> tuple[str, Shape]:
    size, profile = random.randint(46, 68), random.choice(("flat", "comfort", "half-round"))
    across = max(6, round(math.sqrt(triangles / 4 / 10)))
    shape = band(
        size=size,
        profile=profile,
        width=random.uniform(2, 8),
        thickness=random.uniform(1.2, 2.4),
        across=across,
        around=max(48, triangles // (4 * (across + 1))),
    )
    return f"band-{profile}-eu{size}", shape


def _any_signet(random: Random, triangles: int) -> tuple[str, Shape]:
    size, table = random.randint(54, 70), random.uniform(8, 13)
    across = max(6, round(math.sqrt(triangles / 4 / 8)))
    shape = signet(
        size=size,
        width=random.uniform(6, 12),
        thickness=random.uniform(1.3, 2.0),
        table=table,
        across=across,
        rise=random.uniform(0.8, 2.0),
        around=max(64, triangles // (4 * (across + 2))),
    )
    return f"signet-eu{size}", shape


def _any_solitaire(random: Random, triangles: int) -> tuple[str, Shape]:
    size, prongs = random.randint(46, 62), random.choice((4, 6))
    across = max(6, round(math.sqrt(triangles / 4 / 10)))
    shape = solitaire(
        size=size,
        width=random.uniform(2.2, 3.2),
        thickness=random.uniform(1.4, 2.0),
        prongs=prongs,
        across=across,
        stone=random.uniform(4, 7),
        around=max(64, triangles // (5 * (across + 2))),
    )
    return f"solitaire-{prongs}-eu{size}", shape


def _any_pendant(random: Random, triangles: int) -> tuple[str, Shape]:
    form = random.choice(("round", "drop", "star", "heart"))
    across = max(4, round(math.sqrt(triangles / 4 / 12)))
    shape = pendant(
        form=form,
        length=random.uniform(15, 32),
        depth=random.uniform(1.6, 3.2),
        bail=random.uniform(2.6, 4),
        wire=random.uniform(0.9, 1.4),
        across=across,
        around=max(80, triangles // (4 * (across + 2))),
    )
    return f"pendant-{form}", shape
