"""The topology of a surface: welds corners, counts and mends bad edges, tells the bodies apart.

A surface here is `index`, int32 (n, 3) vertex numbers of n faces, and `points`, (m, 3) coordinates in mm.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.pricing.measure import ModelUnreadable

Index = npt.NDArray[np.int32]
Points = npt.NDArray[Any]

_TOLERANCES = (1e-6, 1e-5, 1e-4)
"""Shares of the box's diagonal within which the rims of a crack are joined; the finest that closes wins."""

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
_K3 = np.uint64(0x165667B19E3779F9)
_S29 = np.uint64(29)
_S32 = np.uint64(32)


class Bodies(NamedTuple):
    """`volume` mm3 of all bodies together, cavities taken off; `turned`: some body faced inwards and was turned."""

    volume: float
    turned: bool
    notes: tuple[str, ...]


def weld(corners: Points) -> tuple[Index, Points]:
    """The surface of triangles (n, 3, 3): corners with exactly equal coordinates become one vertex."""
    index, points = _weld(corners)
    return index, points


def weld_points(index: Index, points: Points) -> tuple[Index, Points]:
    """The same of a surface: points with exactly equal coordinates become one, points of no face none."""
    used = np.zeros(len(points), dtype=np.bool_)
    used[index] = True
    if not used.all():
        index = (np.cumsum(used, dtype=np.int32) - 1)[index]
        points = points[used]
    # By the kernel for triangles, that takes points three by three.
    missing = -len(points) % 3
    if missing:
        points = np.concatenate([points, points[-1:].repeat(missing, axis=0)])
    number, points = _weld(points.reshape(-1, 3, 3))
    return number.ravel()[index], points


def mend(index: Index, points: Points) -> tuple[Index, Points, tuple[str, ...]]:
    """A closed, consistently oriented surface made of one that is not, and notes of what was done.

    Raises ModelUnreadable with code not_closed, not_manifold or not_orientable when that would take guessing.
    """
    notes: tuple[str, ...] = ()
    index, doubled = _without_doubles(_without_slivers(index))
    if doubled:
        notes += (f"{_many(doubled, 'face was', 'faces were')} there twice and removed",)
    edges = _edges(index)
    closer, joined = index, edges
    # A surface with more rims than faces is no cracked solid but loose triangles: joining them would take seconds.
    if 0 < edges.open <= len(index):
        diagonal = float(np.linalg.norm(points.max(axis=0).astype(np.float64) - points.min(axis=0)))
        for share in _TOLERANCES:
            closer, _ = _without_doubles(_without_slivers(_join_rims(index, points, edges.rims, share * diagonal)))
            joined = _edges(closer)
            if not joined.open:
                notes += (f"cracks along {_many(edges.open, 'edge was', 'edges were')} closed by joining their rims",)
                break
    if joined.open:
        raise ModelUnreadable(
            "not_closed",
            f"The surface is not closed: at {_many(edges.open, 'edge', 'edges')} there is a face on one side only, so "
            "the model has holes and no volume. Please close them in your program and export it again.",
        )
    if joined.crowded:
        raise ModelUnreadable(
            "not_manifold",
            f"At {_many(joined.crowded, 'edge', 'edges')} three or more faces meet so that inside and outside cannot "
            "be told apart. Please unite the bodies in your program and remove inner walls.",
        )
    if joined.flipped:
        closer, flips = _orient(closer, joined)
        again = _edges(closer)
        if again.open or again.flipped or again.crowded:
            raise ModelUnreadable(
                "not_orientable",
                "The surface has no inside: walking along it one arrives at its other side. Please check the model.",
            )
        notes += (f"{_many(flips, 'face was', 'faces were')} turned to look outwards",)
    return closer, points, notes


def area(index: Index, points: Points) -> float:
    """mm2."""
    return float(_area(index, points))


def split(index: Index, points: Points) -> Bodies:
    """Volume of a closed and oriented surface, body by body.

    A body that faces inwards is a cavity when it lies inside another one, else it is turned. Bodies that overlap count
    twice where they do: uniting them belongs here, before the sum, as soon as a mesh boolean is at hand.
    """
    label, volumes, low, high = _bodies(index, points)
    if len(volumes) == 1:
        if volumes[0] >= 0:
            return Bodies(float(volumes[0]), False, ())
        return Bodies(-float(volumes[0]), True, ("the surface faced inwards and was turned inside out",))
    notes: tuple[str, ...] = ()
    turned = 0
    cavities = 0
    signed = volumes.copy()
    for body in np.flatnonzero(volumes < 0):
        around = np.flatnonzero((volumes > 0) & (low < low[body]).all(axis=1) & (high > high[body]).all(axis=1))
        if len(around) and _is_inside(index, points, label, int(body), around):
            cavities += 1
        else:
            signed[body] = -volumes[body]
            turned += 1
    if turned:
        notes += (f"{_many(turned, 'body', 'bodies')} facing inwards turned inside out",)
    if cavities:
        notes += (f"{_many(cavities, 'cavity', 'cavities')} inside the model taken off its volume",)
    solid = np.flatnonzero(signed > 0)
    if len(solid) > 1 and _boxes_meet(low[solid], high[solid]):
        notes += (
            f"the model consists of {len(solid):,} separate bodies: where they overlap, volume may be counted twice",
        )
    return Bodies(float(signed.sum()), turned > 0, notes)


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


@njit(cache=True, inline="always")
def _slot(x, y, z, mask):  # type: ignore[no-untyped-def]
    a = np.float64(x).view(np.uint64)
    b = np.float64(y).view(np.uint64)
    c = np.float64(z).view(np.uint64)
    h = (a ^ (a >> _S29)) * _K1 + (b ^ (b >> _S29)) * _K2 + (c ^ (c >> _S29)) * _K3
    h ^= h >> _S32
    h *= _K1
    return np.int64((h ^ (h >> _S29)) & np.uint64(mask))


@njit(cache=True, nogil=True)
def _weld(corners):  # type: ignore[no-untyped-def]
    """Open addressing over vertex numbers. A sound mesh has half as many vertices as faces, so tables start there."""
    n = len(corners)
    size = 1024
    while size < n:
        size *= 2
    table = np.full(size, -1, np.int32)
    points = np.empty((n // 2 + 64, 3), corners.dtype)
    index = np.empty((n, 3), np.int32)
    used = 0
    for i in range(n):
        for j in range(3):
            x = corners[i, j, 0] + np.float32(0.0)
            y = corners[i, j, 1] + np.float32(0.0)
            z = corners[i, j, 2] + np.float32(0.0)
            slot = _slot(x, y, z, size - 1)
            while True:
                k = table[slot]
                if k < 0:
                    if used == len(points):
                        larger = np.empty((2 * used, 3), corners.dtype)
                        larger[:used] = points
                        points = larger
                    points[used, 0] = x
                    points[used, 1] = y
                    points[used, 2] = z
                    table[slot] = used
                    index[i, j] = used
                    used += 1
                    break
                if points[k, 0] == x and points[k, 1] == y and points[k, 2] == z:
                    index[i, j] = k
                    break
                slot = (slot + 1) & (size - 1)
            if used * 10 > size * 7:
                size *= 2
                table = np.full(size, -1, np.int32)
                for k in range(used):
                    slot = _slot(points[k, 0], points[k, 1], points[k, 2], size - 1)
                    while table[slot] >= 0:
                        slot = (slot + 1) & (size - 1)
                    table[slot] = k
    return index, points[:used]


@njit(cache=True, inline="always")
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _bodies(index, points):  # type: ignore[no-untyped-def]
    """(body of each vertex, then for each body: signed volume mm3, lower and upper corner). Faces that share a vertex
    belong to one body; vertices of no face get body -1."""
    m = len(points)
    parent = np.arange(m).astype(np.int32)
    for i in range(len(index)):
        a = _root(parent, index[i, 0])
        for j in range(1, 3):
            b = _root(parent, index[i, j])
            # The lower number wins, so a root precedes its vertices.
            if b < a:
                parent[a] = b
                a = b
            else:
                parent[b] = a
    in_use = np.zeros(m, np.bool_)
    for i in range(len(index)):
        in_use[index[i, 0]] = True
        in_use[index[i, 1]] = True
        in_use[index[i, 2]] = True
    label = np.full(m, -1, np.int32)
    count = 0
    for k in range(m):
        if in_use[k]:
            root = _root(parent, k)
            if label[root] < 0:
                label[root] = count
                count += 1
            label[k] = label[root]
    volumes = np.zeros(count)
    low = np.full((count, 3), np.inf)
    high = np.full((count, 3), -np.inf)
    origin = np.zeros((count, 3))
    for k in range(m):
        body = label[k]
        if body >= 0:
            if low[body, 0] == np.inf:
                for d in range(3):
                    origin[body, d] = points[k, d]
            for d in range(3):
                low[body, d] = min(low[body, d], np.float64(points[k, d]))
                high[body, d] = max(high[body, d], np.float64(points[k, d]))
    for i in range(len(index)):
        body = label[index[i, 0]]
        ax = points[index[i, 0], 0] - origin[body, 0]
        ay = points[index[i, 0], 1] - origin[body, 1]
        az = points[index[i, 0], 2] - origin[body, 2]
        bx = points[index[i, 1], 0] - origin[body, 0]
        by = points[index[i, 1], 1] - origin[body, 1]
        bz = points[index[i, 1], 2] - origin[body, 2]
        cx = points[index[i, 2], 0] - origin[body, 0]
        cy = points[index[i, 2], 1] - origin[body, 1]
        cz = points[index[i, 2], 2] - origin[body, 2]
        volumes[body] += ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return label, volumes / 6.0, low, high


@njit(cache=True, nogil=True)
def _area(index, points):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(index)):
        a, b, c = index[i, 0], index[i, 1], index[i, 2]
        ux = np.float64(points[b, 0]) - points[a, 0]
        uy = np.float64(points[b, 1]) - points[a, 1]
        uz = np.float64(points[b, 2]) - points[a, 2]
        vx = np.float64(points[c, 0]) - points[a, 0]
        vy = np.float64(points[c, 1]) - points[a, 1]
        vz = np.float64(points[c, 2]) - points[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        total += np.sqrt(nx * nx + ny * ny + nz * nz)
    return total / 2.0


def _is_inside(index: Index, points: Points, label: npt.NDArray[np.int32], body: int, around: npt.NDArray[Any]) -> bool:
    """Whether a body's first vertex has winding number >= 1 in the bodies `around` it."""
    vertex = int(np.flatnonzero(label == body)[0])
    solid = np.zeros(int(label.max()) + 1, dtype=np.bool_)
    solid[around] = True
    return bool(_winding(index, points, label, solid, vertex) > 0.5)


@njit(cache=True, nogil=True)
def _winding(index, points, label, solid, vertex):  # type: ignore[no-untyped-def]
    """Winding number of the faces of the `solid` bodies about a vertex (Van Oosterom and Strackee 1983)."""
    px = np.float64(points[vertex, 0])
    py = np.float64(points[vertex, 1])
    pz = np.float64(points[vertex, 2])
    angle = 0.0
    for i in range(len(index)):
        if not solid[label[index[i, 0]]]:
            continue
        ax = points[index[i, 0], 0] - px
        ay = points[index[i, 0], 1] - py
        az = points[index[i, 0], 2] - pz
        bx = points[index[i, 1], 0] - px
        by = points[index[i, 1], 1] - py
        bz = points[index[i, 1], 2] - pz
        cx = points[index[i, 2], 0] - px
        cy = points[index[i, 2], 1] - py
        cz = points[index[i, 2], 2] - pz
        a = np.sqrt(ax * ax + ay * ay + az * az)
        b = np.sqrt(bx * bx + by * by + bz * bz)
        c = np.sqrt(cx * cx + cy * cy + cz * cz)
        above = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        ab = ax * bx + ay * by + az * bz
        bc = bx * cx + by * cy + bz * cz
        ca = cx * ax + cy * ay + cz * az
        angle += 2.0 * np.arctan2(above, a * b * c + ab * c + bc * a + ca * b)
    return angle / (4.0 * np.pi)


@njit(cache=True, nogil=True)
def _sweep(low, high, order):  # type: ignore[no-untyped-def]
    for p in range(len(order)):
        i = order[p]
        for q in range(p + 1, len(order)):
            j = order[q]
            if low[j, 0] >= high[i, 0]:
                break
            if low[j, 1] < high[i, 1] and low[i, 1] < high[j, 1] and low[j, 2] < high[i, 2] and low[i, 2] < high[j, 2]:
                return True
    return False


def _boxes_meet(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> bool:
    return bool(_sweep(low, high, np.argsort(low[:, 0])))


def _without_slivers(index: Index) -> Index:
    """Faces with two equal corners have no area and would only confuse the edges."""
    a, b, c = index.T
    return np.ascontiguousarray(index[(a != b) & (b != c) & (c != a)])


def _without_doubles(index: Index) -> tuple[Index, int]:
    """Of faces with the same corners in the same sense one is kept; and how many went."""
    if len(index) < 2:
        return index, 0
    first = index.argmin(axis=1)
    rows = np.arange(len(index))
    turned = np.stack([index[rows, (first + k) % 3] for k in range(3)], axis=1)
    order = np.lexsort((turned[:, 2], turned[:, 1], turned[:, 0]))
    ranked = turned[order]
    again = np.zeros(len(index), dtype=np.bool_)
    again[order[1:]] = (ranked[1:] == ranked[:-1]).all(axis=1)
    doubles = int(again.sum())
    return (np.ascontiguousarray(index[~again]) if doubles else index), doubles


class _Edges(NamedTuple):
    """How many edges are `open` (one face), `flipped` (two faces, both in the same sense) or `crowded` (more faces, the
    senses not in balance); `rims`: vertices of open edges; `links`: (k, 3) pairs of faces that share an edge with
    nobody else, and whether they run along it in the same sense."""

    open: int
    flipped: int
    crowded: int
    rims: npt.NDArray[np.int32]
    links: npt.NDArray[np.int32]


def _edges(index: Index) -> _Edges:
    start = index.ravel().astype(np.int64)
    end = index[:, (1, 2, 0)].ravel().astype(np.int64)
    keys = np.minimum(start, end) << 32 | np.maximum(start, end)
    order = np.argsort(keys, kind="stable")
    opened, flipped, crowded, rims, links = _edge_groups(keys[order], order, start < end)
    return _Edges(opened, flipped, crowded, np.unique(rims), links)


@njit(cache=True, nogil=True)
def _edge_groups(keys, order, forwards):  # type: ignore[no-untyped-def]
    n = len(keys)
    opened = 0
    flipped = 0
    crowded = 0
    links = np.empty((n // 2, 3), np.int32)
    linked = 0
    rims = np.empty(2 * n, np.int32)
    rim = 0
    i = 0
    while i < n:
        j = i
        net = 0
        while j < n and keys[j] == keys[i]:
            net += 1 if forwards[order[j]] else -1
            j += 1
        faces = j - i
        if faces == 1:
            opened += 1
            rims[rim] = keys[i] >> 32
            rims[rim + 1] = keys[i] & 0xFFFFFFFF
            rim += 2
        elif faces == 2:
            flipped += net != 0
            links[linked, 0] = order[i] // 3
            links[linked, 1] = order[i + 1] // 3
            links[linked, 2] = net != 0
            linked += 1
        elif net != 0:
            crowded += 1
        i = j
    return opened, flipped, crowded, rims[:rim].copy(), links[:linked].copy()


def _join_rims(index: Index, points: Points, rims: npt.NDArray[np.int32], distance: float) -> Index:
    """Vertices on open edges that lie within `distance` mm of each other become one; all others stay."""
    spots = points[rims].astype(np.float64)
    # A slanting direction, because the vertices of a technical model share their x, y or z by the thousand.
    along = spots @ np.array([0.5377, 0.6421, 0.5465])
    order = np.argsort(along)
    target = np.arange(len(points), dtype=np.int32)
    target[rims] = rims[_near(spots, along, order, distance)]
    return target[index]


@njit(cache=True, nogil=True)
def _near(spots, along, order, distance):  # type: ignore[no-untyped-def]
    parent = np.arange(len(spots))
    for p in range(len(order)):
        i = order[p]
        for q in range(p + 1, len(order)):
            j = order[q]
            if along[j] - along[i] > distance:
                break
            dx = spots[i, 0] - spots[j, 0]
            dy = spots[i, 1] - spots[j, 1]
            dz = spots[i, 2] - spots[j, 2]
            if dx * dx + dy * dy + dz * dz <= distance * distance:
                a = _root(parent, i)
                b = _root(parent, j)
                if a != b:
                    parent[max(a, b)] = min(a, b)
    for i in range(len(parent)):
        parent[i] = _root(parent, i)
    return parent


def _orient(index: Index, edges: _Edges) -> tuple[Index, int]:
    """Turns the fewest faces so that neighbours agree, sheet by sheet; and how many were turned.

    On a one-sided surface neighbours still disagree afterwards: the caller looks again.
    """
    turn = _disagreeing(len(index), edges.links)
    turned = index.copy()
    turned[turn] = index[turn][:, ::-1]
    return turned, int(turn.sum())


@njit(cache=True, nogil=True)
def _disagreeing(n, links):  # type: ignore[no-untyped-def]
    """Which of n faces to turn: union-find whose `odd` says whether a face must be turned against its root."""
    parent = np.arange(n)
    odd = np.zeros(n, np.bool_)
    path = np.empty(n, np.int64)
    root_of = np.empty(2, np.int64)
    for k in range(len(links)):
        for side in range(2):
            at = np.int64(links[k, side])
            length = 0
            while parent[at] != at:
                path[length] = at
                length += 1
                at = parent[at]
            root_of[side] = at
            sense = False
            for q in range(length - 1, -1, -1):
                sense ^= odd[path[q]]
                odd[path[q]] = sense
                parent[path[q]] = at
        a = root_of[0]
        b = root_of[1]
        if a != b:
            differ = odd[links[k, 0]] ^ odd[links[k, 1]] ^ (links[k, 2] != 0)
            if a < b:
                parent[b] = a
                odd[b] = differ
            else:
                parent[a] = b
                odd[a] = differ
    total = np.zeros(n, np.int64)
    odds = np.zeros(n, np.int64)
    turn = np.zeros(n, np.bool_)
    root = np.empty(n, np.int64)
    for i in range(n):
        top = np.int64(i)
        sense = False
        while parent[top] != top:
            sense ^= odd[top]
            top = parent[top]
        root[i] = top
        turn[i] = sense
        total[top] += 1
        odds[top] += sense
    for i in range(n):
        if 2 * odds[root[i]] > total[root[i]]:
            turn[i] = not turn[i]
    return turn
