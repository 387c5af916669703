"""Closed surfaces of rings and pendants, with their exact volumes.

All are built from one figure, the turned body: a polygon in the plane (the outline), scaled by s(z) over a row of
heights z, with a second polygon, scaled by t(z), cut out of it. Every side facet is then a planar trapezoid, so the
volume is that of a row of frusta, sum of A dz (s0^2 + s0 s1 + s1^2) / 3, whatever the triangles. Heads, prongs and
bails grow out of facets of such a body and share their vertices with it, so that each model is one body.

Points are float64 (..., 3) mm; the finger axis is z, the top of a piece is +y; faces look outwards.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Shape(NamedTuple):
    """`triangles` (n, 3, 3) mm; `volume_mm3` from formulas of polygons and frusta, not from the triangles."""

    kind: str
    triangles: Array
    volume_mm3: float


class _Patch(NamedTuple):
    """Facets of the outer side left open: outline edges first..last - 1, rows of heights low..high - 1."""

    first: int
    last: int
    low: int
    high: int


def band(
    *,
    size: float = 54,
    profile: str = "comfort",
    width: float = 4.0,
    thickness: float = 1.8,
    around: int = 160,
    across: int = 16,
) -> Shape:
    """A plain band. `size` EU: inner circumference, mm; `profile` flat, comfort (round inside and out) or half-round;
    `width` along the finger and `thickness`, mm. About 4 x `around` x (`across` + 1) triangles."""
    inner = size / math.tau
    turn = np.linspace(0.0, math.pi, across + 1)
    z = -0.5 * width * np.cos(turn)
    bulge = np.sin(turn)
    if profile == "flat":
        outside = np.full_like(z, inner + thickness)
        outside[[0, -1]] -= 0.1 * thickness
        inside = np.full_like(z, inner)
    elif profile == "comfort":
        outside = inner + thickness * (0.7 + 0.3 * bulge)
        inside = inner + 0.25 * thickness * (1.0 - bulge)
    elif profile == "half-round":
        outside = inner + thickness * (0.35 + 0.65 * bulge)
        inside = np.full_like(z, inner)
    else:
        raise ValueError(f"no such profile: {profile}")
    circle = _circle(around)
    triangles, volume = _turned(circle, outside, z, circle, inside)
    return Shape("band", triangles, volume)


def signet(
    *,
    size: float = 60,
    width: float = 9.0,
    thickness: float = 1.6,
    table: float = 11.0,
    rise: float = 1.5,
    around: int = 160,
    across: int = 12,
) -> Shape:
    """A ring with a flat table, `table` mm wide, `rise` mm above the shank; `width` along the finger."""
    inner = size / math.tau
    outline = _with_table(
        inner + thickness, inner + thickness + rise, np.linspace(-table / 2, table / 2, around // 5), around
    )
    z, outside = _bevelled(width, 0.08 * width, 0.04, across)
    triangles, volume = _turned(outline, outside, z, _inner_like(outline), np.full_like(z, inner))
    return Shape("signet", triangles, volume)


def solitaire(
    *,
    size: float = 52,
    width: float = 2.6,
    thickness: float = 1.7,
    stone: float = 5.0,
    prongs: int = 6,
    around: int = 128,
    across: int = 10,
) -> Shape:
    """A ring with a round head for a stone of `stone` mm and `prongs` prongs (3 to 8) that rise from its rim."""
    inner = size / math.tau
    foot = 0.5 * width
    seat = np.linspace(-foot, foot, max(8, around // 12))
    top = inner + thickness + 0.35
    outline = _with_table(inner + thickness, top, seat, around)
    z, outside = _bevelled(width, 0.12 * width, 0.03, across)
    first = _table_start(outline, top)
    patch = _Patch(first, first + len(seat) - 1, 1, len(z) - 2)
    shank, volume = _turned(outline, outside, z, _inner_like(outline), np.full_like(z, inner), patch)
    loop = _loop(outline, z, patch)
    hole = 0.4 * min(2 * foot, z[-2] - z[1])
    head, head_volume = _head(loop, np.array([0.0, top, 0.0]), hole, 0.5 * stone, prongs, max(4, across))
    return Shape("solitaire", np.concatenate([shank, head]), volume + head_volume)


def pendant(
    *,
    form: str = "drop",
    length: float = 22.0,
    depth: float = 2.4,
    bail: float = 3.2,
    wire: float = 1.1,
    around: int = 200,
    across: int = 10,
) -> Shape:
    """A solid plate of the `form` round, drop, star or heart, about `length` mm long and `depth` mm thick, with a
    half-ring bail of inner diameter `bail` and a rectangular `wire` on its top."""
    turn = np.linspace(0.0, math.tau, around, endpoint=False) + 0.5 * math.pi
    if form == "round":
        radius = np.full_like(turn, 0.5 * length)
    elif form == "drop":
        radius = 0.5 * length * (0.78 - 0.2 * np.sin(turn))
    elif form == "star":
        radius = 0.5 * length * (0.85 + 0.15 * np.cos(5 * (turn - 0.5 * math.pi)))
    elif form == "heart":
        radius = 0.5 * length * (0.8 + 0.2 * np.abs(np.cos(turn)) - 0.15 * np.sin(turn))
    else:
        raise ValueError(f"no such form: {form}")
    near, far = 0.5 * bail, 0.5 * bail + wire
    feet = np.concatenate([np.linspace(-far, -near, 4), np.linspace(-near, near, 7)[1:-1], np.linspace(near, far, 4)])
    ledge = np.concatenate([[-far - 0.8], feet, [far + 0.8]])
    top = 0.5 * length
    outline = _with_table(radius, top, ledge, around)
    z, outside = _bevelled(depth, 0.15 * depth, 0.04, across)
    first = _table_start(outline, top)
    # The outline runs from +x to -x over the top, as its angle grows.
    right = _Patch(first + 1, first + 4, 1, len(z) - 2)
    left = _Patch(first + len(ledge) - 5, first + len(ledge) - 2, 1, len(z) - 2)
    plate, volume = _plate(outline, outside, z, max(2, across // 2), (right, left))
    steps = max(12, around // 6)
    arch, arch_volume = _arch(_loop(outline, z, right), _loop(outline, z, left), top, steps)
    return Shape("pendant", np.concatenate([plate, arch]), volume + arch_volume)


def _circle(n: int) -> Array:
    turn = np.linspace(0.0, math.tau, n, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _inner_like(outline: Array) -> Array:
    """Points of the unit circle at the angles of an outline's points, so that caps are strips."""
    unit: Array = outline / np.linalg.norm(outline, axis=1, keepdims=True)
    return unit


def _with_table(radius: float | Array, top: float, xs: Array, around: int) -> Array:
    """A star-shaped outline: `radius` (mm, one or for each of `around` angles from the top) with a flat top at y =
    `top` through the points `xs`, run into the rest within 35 degrees on either side. Counter-clockwise."""
    turn = np.linspace(0.0, math.tau, around, endpoint=False) + 0.5 * math.pi
    plain = np.broadcast_to(np.asarray(radius, dtype=np.float64), turn.shape)
    edge = math.atan2(top, float(xs[-1]))
    half = 0.5 * math.pi - edge
    blend = math.radians(35.0)
    beyond = np.minimum(turn - 0.5 * math.pi, math.tau + 0.5 * math.pi - turn) - half
    keep = beyond > 0.5 * math.tau / around
    share = np.clip(beyond[keep] / blend, 0.0, 1.0)
    share = share * share * (3.0 - 2.0 * share)
    corner = math.hypot(top, float(xs[-1]))
    r = corner * (1.0 - share) + plain[keep] * share
    rest = np.stack([r * np.cos(turn[keep]), r * np.sin(turn[keep])], axis=1)
    table = np.stack([xs[::-1], np.full(len(xs), top)], axis=1)
    return np.concatenate([table, rest])


def _table_start(outline: Array, top: float) -> int:
    """Index of the first point of the flat top: where `_with_table` puts it."""
    return int(np.flatnonzero(outline[:, 1] == top)[0])


def _bevelled(width: float, bevel: float, inset: float, across: int) -> tuple[Array, Array]:
    """Heights z of a piece `width` thick and the outline's scale at each: 1, but 1 - `inset` at both ends."""
    z = np.concatenate([[-width / 2], np.linspace(-width / 2 + bevel, width / 2 - bevel, across), [width / 2]])
    scale = np.ones_like(z)
    scale[[0, -1]] = 1.0 - inset
    return z, scale


def _polygon_area(points: Array) -> float:
    """Area of a plane polygon (n, 2), by the shoelace formula; positive when counter-clockwise."""
    x, y = points[:, 0], points[:, 1]
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def _frusta(scale: Array, z: Array) -> float:
    """Integral of scale(z)^2 dz for a scale that is linear between the heights."""
    a, b = scale[:-1], scale[1:]
    return float(np.sum(np.diff(z) * (a * a + a * b + b * b)) / 3.0)


def _quads(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Triangles of quadrilaterals a b c d, arrays (..., 3) of corners in order."""
    return np.concatenate([np.stack([a, b, c], axis=-2), np.stack([a, c, d], axis=-2)]).reshape(-1, 3, 3)


def _sides(outline: Array, scale: Array, z: Array) -> Array:
    """Vertices (heights, outline points, 3)."""
    n, m = len(z), len(outline)
    points = np.empty((n, m, 3))
    points[..., :2] = scale[:, None, None] * outline
    points[..., 2] = z[:, None]
    return points


def _wall(points: Array, outwards: bool, patches: tuple[_Patch, ...] = ()) -> Array:
    """Triangles of a side wall, its patches left out."""
    here, there = points, np.roll(points, -1, axis=1)
    keep = np.ones((len(points) - 1, points.shape[1]), dtype=np.bool_)
    for patch in patches:
        keep[patch.low : patch.high, patch.first : patch.last] = False
    a, b, c, d = here[:-1][keep], there[:-1][keep], there[1:][keep], here[1:][keep]
    return _quads(a, b, c, d) if outwards else _quads(d, c, b, a)


def _ring_cap(outer: Array, inner: Array, up: bool) -> Array:
    outer_next, inner_next = np.roll(outer, -1, axis=0), np.roll(inner, -1, axis=0)
    return _quads(inner, outer, outer_next, inner_next) if up else _quads(inner_next, outer_next, outer, inner)


def _turned(
    outline: Array, outside: Array, z: Array, hole: Array, inside: Array, *patches: _Patch
) -> tuple[Array, float]:
    """A ring: `outline` scaled by `outside`, less `hole` scaled by `inside`, over the heights `z`; and its volume."""
    outer, inner = _sides(outline, outside, z), _sides(hole, inside, z)
    triangles = np.concatenate(
        [
            _wall(outer, True, patches),
            _wall(inner, False),
            _ring_cap(outer[-1], inner[-1], True),
            _ring_cap(outer[0], inner[0], False),
        ]
    )
    return triangles, _polygon_area(outline) * _frusta(outside, z) - _polygon_area(hole) * _frusta(inside, z)


def _plate(outline: Array, outside: Array, z: Array, rings: int, patches: tuple[_Patch, ...]) -> tuple[Array, float]:
    """The same without a hole; its caps are `rings` nested copies of the outline and a fan."""
    outer = _sides(outline, outside, z)
    parts = [_wall(outer, True, patches)]
    for level, up in ((-1, True), (0, False)):
        centre = np.array([0.0, 0.0, z[level]])
        steps = [centre + (outer[level] - centre) * (1.0 - k / rings) for k in range(rings)]
        parts += [_ring_cap(wide, tight, up) for wide, tight in pairwise(steps)]
        here, there = steps[-1], np.roll(steps[-1], -1, axis=0)
        middle = np.broadcast_to(centre, here.shape)
        parts.append(np.stack([middle, here, there] if up else [middle, there, here], axis=1))
    return np.concatenate(parts), _polygon_area(outline) * _frusta(outside, z)


def _loop(outline: Array, z: Array, patch: _Patch) -> Array:
    """The rim (k, 3) of a patch on a flat top, from its corner of largest x and lowest z, counter-clockwise seen from
    above (+y): falling x first."""
    p = _sides(outline[patch.first : patch.last + 1], np.ones_like(z), z)[patch.low : patch.high + 1]
    return np.concatenate([p[0, :-1], p[:-1, -1], p[-1, :0:-1], p[:0:-1, 0]])


def _head(loop: Array, centre: Array, foot: float, radius: float, prongs: int, steps: int) -> tuple[Array, float]:
    """A head on a patch: from the patch's rim to a circle of radius `foot`, a stem that widens to `radius`, a rim, a
    cup, and prongs on the rim. Volume above the patch's plane: frusta of the foot's polygon and prisms of the rim's."""
    spokes = loop - centre
    circle = centre + foot * spokes / np.linalg.norm(spokes, axis=1, keepdims=True)
    wide, bore = radius / foot, 0.72 * radius / foot
    rise = np.linspace(0.0, 1.0, steps + 1)
    stem = np.stack([1.0 + (wide - 1.0) * rise**1.5, 1.1 * radius * rise], axis=1)
    cup = np.array([[bore, stem[-1, 1]], [0.7 * bore, 0.7 * stem[-1, 1]], [0.35 * bore, 0.62 * stem[-1, 1]]])
    path = np.concatenate([stem, cup])
    up = np.array([0.0, 1.0, 0.0])
    rings = centre + path[:, 0, None, None] * (circle - centre) + path[:, 1, None, None] * up
    rim = len(stem) - 1
    m = len(loop)
    run = max(1, m // (2 * prongs))
    on = np.zeros(m, dtype=np.bool_)
    for k in range(prongs):
        first = k * m // prongs
        on[first : first + run] = True
    parts = [_strip(loop, circle)]
    for q in range(len(rings) - 1):
        parts.append(_strip(rings[q], rings[q + 1]) if q != rim else _strip(rings[q], rings[q + 1], ~on))
    last, bottom = rings[-1], centre + path[-1, 1] * up
    parts.append(np.stack([last, np.roll(last, -1, axis=0), np.broadcast_to(bottom, last.shape)], axis=1))
    height = 0.45 * radius * up
    outer, inner = rings[rim], rings[rim + 1]
    outer_next, inner_next = np.roll(outer, -1, axis=0), np.roll(inner, -1, axis=0)
    begins, ends = on & ~np.roll(on, 1), on & ~np.roll(on, -1)
    parts += [
        _quads(outer[on], outer_next[on], (outer_next + height)[on], (outer + height)[on]),
        _strip(outer + height, inner + height, on),
        _quads(inner_next[on], inner[on], (inner + height)[on], (inner_next + height)[on]),
        _quads(inner[begins], outer[begins], (outer + height)[begins], (inner + height)[begins]),
        _quads(outer_next[ends], inner_next[ends], (inner_next + height)[ends], (outer_next + height)[ends]),
    ]
    # Seen from above, counter-clockwise means z towards -x: the plane's axes are (z, x).
    flat = (circle - centre)[:, (2, 0)]
    following = np.roll(flat, -1, axis=0)
    wedges = 0.5 * (flat[:, 0] * following[:, 1] - flat[:, 1] * following[:, 0])
    volume = float(wedges.sum()) * _frusta(path[:, 0], path[:, 1])
    volume += float(wedges[on].sum()) * (wide**2 - bore**2) * 0.45 * radius
    return np.concatenate(parts), volume


def _strip(below: Array, above: Array, keep: npt.NDArray[np.bool_] | None = None) -> Array:
    """Triangles between two closed rows of points, the second lying inside or above the first as seen from outside."""
    a, b, c, d = below, np.roll(below, -1, axis=0), np.roll(above, -1, axis=0), above
    return _quads(a, b, c, d) if keep is None else _quads(a[keep], b[keep], c[keep], d[keep])


def _arch(right: Array, left: Array, top: float, steps: int) -> tuple[Array, float]:
    """A half ring from the patch `right` over to its mirror image `left`, about the z axis through y = `top`.

    Each of its steps is a wedge between two half planes, of volume sin(angle) x the first moment of the section about
    the axis (Pappus' rule for chords instead of arcs)."""
    mirrored = right * np.array([-1.0, 1.0, 1.0])
    match = [int(np.argmin(np.abs(left - point).sum(axis=1))) for point in mirrored]
    turn = np.linspace(0.0, math.pi, steps + 1)
    rows = np.empty((steps + 1, len(right), 3))
    rows[..., 0] = np.cos(turn)[:, None] * right[:, 0]
    rows[..., 1] = top + np.sin(turn)[:, None] * right[:, 0]
    rows[..., 2] = right[:, 2]
    # The very vertices of the plate, or the seam would be open by rounding.
    rows[0] = right
    rows[-1] = left[match]
    parts = [_strip(rows[q], rows[q + 1]) for q in range(steps)]
    near, far = float(right[:, 0].min()), float(right[:, 0].max())
    deep = float(right[:, 2].max() - right[:, 2].min())
    moment = deep * (far * far - near * near) / 2.0
    return np.concatenate(parts), steps * math.sin(math.pi / steps) * moment
