"""Measures triangles: volume, area, box, and whether the surface is closed and consistently oriented.

A sound model takes one pass over its triangles and one that counts its bodies. Only a model whose surface does not
close at the first look is taken apart in `surface`.
"""

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.contracts.orders import Geometry
from lostwax.pricing import formats, obj, stl, surface, threemf
from lostwax.pricing.measure import KERNEL, ModelUnreadable
from lostwax.pricing.triangles import Indexed, Triangles

LARGEST_COORDINATE = 1e5
"""mm. Beyond it float32 resolves less than 0.01 mm, and no piece of jewellery lies 100 m from its origin."""

_BLOCK = 1 << 16
"""How many triangles are put together at a time."""

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x165667B19E3779F9)
_K4 = np.uint64(0xD6E8FEB86659FD93)
_S29 = np.uint64(29)
_S32 = np.uint64(32)
_PLUS = np.uint64(1)
_MINUS = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, inline="always")
def _hash_point(x, y, z):  # type: ignore[no-untyped-def]
    """64 bits of a point; equal coordinates give equal bits, and adding 0.0 makes one zero of -0.0 and 0.0."""
    a = np.float64(x + 0.0).view(np.uint64)
    b = np.float64(y + 0.0).view(np.uint64)
    c = np.float64(z + 0.0).view(np.uint64)
    # float32 coordinates leave the low 29 bits of a float64 empty; multiplying alone would never fill them.
    h = (a ^ (a >> _S29)) * _K1 + (b ^ (b >> _S29)) * _K2 + (c ^ (c >> _S29)) * _K3
    h ^= h >> _S32
    h *= _K4
    return h ^ (h >> _S29)


@njit(cache=True, inline="always")
def _edge(a, b):  # type: ignore[no-untyped-def]
    """What the directed edge a -> b adds to the sum; b -> a adds its negative, a -> a nothing (modulo 2**64)."""
    if a == b:
        return np.uint64(0)
    low = min(a, b)
    m = low * _K2 + max(a, b)
    m ^= m >> _S32
    m *= _K1
    m ^= m >> _S29
    return m * (_PLUS if a == low else _MINUS)


@njit(cache=True, nogil=True)
def _survey(corners, ox, oy, oz):  # type: ignore[no-untyped-def]
    """(volume, area, lower corner, upper corner, edge sum, all finite) of triangles (n, 3, 3), in float64.

    Volume is the sum of signed tetrahedra to the point o: one of the model, so that far from the origin it loses no
    digits. Surveys of the parts of a model, with one o, add up to that of the whole.
    An edge sum of zero means that every edge is walked as often forwards as backwards: closed and consistently
    oriented. A wrong zero has a chance of 2**-64.
    """
    low_x = high_x = ox
    low_y = high_y = oy
    low_z = high_z = oz
    six_volumes = 0.0
    twice_area = 0.0
    poison = 0.0
    edges = np.uint64(0)
    for i in range(len(corners)):
        ax = np.float64(corners[i, 0, 0])
        ay = np.float64(corners[i, 0, 1])
        az = np.float64(corners[i, 0, 2])
        bx = np.float64(corners[i, 1, 0])
        by = np.float64(corners[i, 1, 1])
        bz = np.float64(corners[i, 1, 2])
        cx = np.float64(corners[i, 2, 0])
        cy = np.float64(corners[i, 2, 1])
        cz = np.float64(corners[i, 2, 2])
        # Zero as long as everything is finite: infinity times zero is NaN, and NaN stays.
        poison += (ax + ay + az + bx + by + bz + cx + cy + cz) * 0.0
        low_x = min(low_x, ax, bx, cx)
        low_y = min(low_y, ay, by, cy)
        low_z = min(low_z, az, bz, cz)
        high_x = max(high_x, ax, bx, cx)
        high_y = max(high_y, ay, by, cy)
        high_z = max(high_z, az, bz, cz)
        ha = _hash_point(ax, ay, az)
        hb = _hash_point(bx, by, bz)
        hc = _hash_point(cx, cy, cz)
        edges += _edge(ha, hb) + _edge(hb, hc) + _edge(hc, ha)
        ux = bx - ax
        uy = by - ay
        uz = bz - az
        vx = cx - ax
        vy = cy - ay
        vz = cz - az
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        twice_area += np.sqrt(nx * nx + ny * ny + nz * nz)
        six_volumes += (ax - ox) * nx + (ay - oy) * ny + (az - oz) * nz
    low = (low_x, low_y, low_z)
    high = (high_x, high_y, high_z)
    return six_volumes / 6.0, twice_area / 2.0, low, high, edges, poison == 0.0


def measure_file(path: str | os.PathLike[str]) -> Geometry:
    """Geometry of an STL, OBJ or 3MF file as drawn. Raises ModelUnreadable (see `formats.read` and `measure`)."""
    return measure(formats.read(path))


class _Survey(NamedTuple):
    """See `_survey`."""

    volume: float
    area: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    edges: int
    finite: bool


def _look_over(model: Triangles | Indexed) -> _Survey:
    """Block by block where triangles have to be put together from numbers: all at once would take six times the
    memory."""
    if isinstance(model, Triangles):
        return _survey_from(model.corners, *model.corners[0, 0])
    origin = model.points[model.faces[0, 0]]
    parts = [
        _survey_from(model.points[model.faces[first : first + _BLOCK]], *origin)
        for first in range(0, len(model.faces), _BLOCK)
    ]
    x, y, z = zip(*(part.low for part in parts), strict=True)
    x2, y2, z2 = zip(*(part.high for part in parts), strict=True)
    return _Survey(
        sum(part.volume for part in parts),
        sum(part.area for part in parts),
        (min(x), min(y), min(z)),
        (max(x2), max(y2), max(z2)),
        sum(part.edges for part in parts) % 2**64,
        all(part.finite for part in parts),
    )


def _survey_from(corners: npt.NDArray[Any], x: float, y: float, z: float) -> _Survey:
    volume, area, low, high, edges, finite = _survey(corners, float(x), float(y), float(z))
    return _Survey(float(volume), float(area), low, high, int(edges), bool(finite))


def survey(triangles: Triangles | Indexed) -> tuple[float, float, bool]:
    """(volume mm3, area mm2, closed and consistently oriented), the first pass of `measure` alone, mending nothing."""
    seen = _look_over(triangles)
    return seen.volume, seen.area, seen.edges == 0


def measure(model: Triangles | Indexed) -> Geometry:
    """Geometry of the solid that the triangles enclose, in mm, mm2, mm3; always closed, volume > 0.

    What had to be mended, and what may be wrong about the figures, stands in `notes`. Raises ModelUnreadable with code
    nonfinite, extent, not_closed, not_manifold, not_orientable or no_volume.
    """
    notes = model.notes
    volume, area, low, high, edges, finite = _look_over(model)
    if not finite:
        raise ModelUnreadable("nonfinite", "The model has coordinates that are not numbers. Please export it again.")
    reach = max(*(abs(c) for c in low), *(abs(c) for c in high))
    if reach > LARGEST_COORDINATE:
        raise ModelUnreadable(
            "extent",
            f"The model reaches {reach:.3g} mm from the origin; {LARGEST_COORDINATE:,.0f} mm is the most that can be "
            "measured. Please check the unit and export it again.",
        )
    box = (high[0] - low[0], high[1] - low[1], high[2] - low[2])
    if isinstance(model, Triangles):
        count = len(model.corners)
        index, points = surface.weld(model.corners)
    else:
        count = len(model.faces)
        index, points = surface.weld_points(model.faces, model.points)
    if edges != 0:
        index, points, mended = surface.mend(index, points)
        notes += mended
        area = surface.area(index, points)
    bodies = surface.split(index, points)
    if bodies.turned or edges != 0:
        volume = bodies.volume
    notes += bodies.notes
    if not abs(volume) > 1e-12 * area**1.5:
        raise ModelUnreadable("no_volume", "The surface encloses no volume, so there is nothing to cast.")
    return Geometry(volume, area, box, count, True, notes, KERNEL)


def warm() -> None:
    """Compiles, or loads from numba's cache, everything that measuring may run, for every kind of file."""
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    sound = points[tetrahedron]
    flipped = sound.copy()
    flipped[0] = flipped[0, ::-1]
    cracked = sound.copy()
    cracked[0, 0] += 1e-7
    inner = points[tetrahedron[:, ::-1]] * 0.1 + 0.1
    for soup in (sound, flipped, cracked, np.concatenate([sound, inner]), np.concatenate([sound, sound + 0.1])):
        measure(Triangles(_as_binary(soup)))
        measure(_as_ascii(soup))
        measure(Indexed(soup.reshape(-1, 3), np.arange(3 * len(soup), dtype=np.int32).reshape(-1, 3)))
    stl.warm()
    obj.warm()
    threemf.warm()


def _as_binary(soup: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    record = np.zeros(len(soup), dtype=stl.FACET)
    record["corners"] = soup
    return np.frombuffer(record.tobytes(), dtype=stl.FACET)["corners"]


def _as_ascii(soup: npt.NDArray[np.float64]) -> Triangles:
    return Triangles(soup.copy())
