"""Reads the polygons of a Wavefront OBJ file without trusting a byte of it.

The file is mapped, not loaded; memory grows with what has been read, not with what is claimed. Coordinates are taken
as millimetres: OBJ has no unit. Groups, objects, materials, textures, normals, colours, points and lines are skipped;
free-form curves and surfaces, and calls of other files, are refused by name, because a price without them would be
wrong. A text has no end mark, so a file cut between two lines is noticed by its surface only, which then has holes.
"""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.scan import CUT, NOT_FINITE, OK, SYNTAX, decimal
from lostwax.pricing.triangles import Indexed, empty, no_triangles

SCAN = "198c50f41f12"
"""Digest of `scan`, whose kernels are compiled into those here; see there."""

_INDEX, _FREE_FORM, _CALL = 4, 5, 6

_NAMES = ("o", "g", "usemtl", "mtllib", "usemap", "maplib", "shadow_obj", "trace_obj")
"""Lines that end in a name: a backslash at their end is part of a path, not a continuation."""

_NUMBERS = ("vp", "s", "l", "p", "mg", "bevel", "lod", "c_interp", "d_interp", "ctech", "stech")
_CURVED = (
    *("cstype", "deg", "bmat", "step", "curv", "curv2", "surf", "parm", "trim", "hole", "scrv", "sp", "end", "con"),
    *("bsp", "bzp", "cdc", "cdp", "res"),
)
_CALLS = ("call", "csh")
_FIRST = ("v", "vn", "vt", "vp", "f", "fo", "g", "o", "s", "l", "p", "usemtl", "mtllib", "cstype")
"""Words by which an OBJ is recognised: not those with which a letter might begin."""

_CLIPPING_STEPS = 50_000_000
"""How many corners may be looked at, in one file, to divide concave faces: about a quarter of a second."""


def recognised(head: bytes) -> bool:
    """Whether a file with this beginning can be an OBJ: its first line that says anything starts with an OBJ word."""
    for line in head.removeprefix(b"\xef\xbb\xbf").splitlines():
        words = line.split(None, 1)
        if words and not words[0].startswith(b"#"):
            return words[0].decode("ascii", "replace") in _FIRST and b"\0" not in line
    return False


def read(path: str | os.PathLike[str]) -> Indexed:
    """Triangles of an OBJ file, polygons divided. Raises ModelUnreadable with code empty, truncated, obj_syntax,
    index, nonfinite, free_form, external or zero_triangles; OSError when the file cannot be opened."""
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise empty()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data: npt.NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8)
    points, index, polygons, problem, at = _parse(data)
    if problem:
        raise _refusal(problem, mapped, data, at)
    if len(index) == 0:
        raise no_triangles()
    notes: tuple[str, ...] = ()
    if len(polygons):
        crossed = _divide_concave(points, index, polygons, _CLIPPING_STEPS)
        if crossed:
            notes = (f"{crossed:,} concave faces could not be divided: their area may be counted too large",)
    return Indexed(points, index, notes)


def _refusal(problem: int, mapped: mmap.mmap, data: npt.NDArray[np.uint8], at: int) -> ModelUnreadable:
    line = int(np.count_nonzero(data[:at] == ord("\n"))) + 1
    if problem == CUT:
        return ModelUnreadable(
            "truncated", f"The file is cut short: it ends within line {line:,}. Please upload it again."
        )
    if problem == NOT_FINITE:
        return ModelUnreadable("nonfinite", f"Line {line:,} of the file has a coordinate that is not a number.")
    if problem == _INDEX:
        return ModelUnreadable(
            "index",
            f"Line {line:,} of the file has a face with a corner that is not in the file. Please export it again.",
        )
    words = mapped[at : at + 16].split()
    word = words[0].decode("ascii", "replace") if words else ""
    if problem == _FREE_FORM:
        return ModelUnreadable(
            "free_form",
            f"Line {line:,} of the file starts a free-form curve or surface (“{word}”), which is not read here. Please "
            "export the model as a mesh.",
        )
    if problem == _CALL:
        return ModelUnreadable(
            "external", f"Line {line:,} of the file refers to another file (“{word}”), which is not here."
        )
    return ModelUnreadable(
        "obj_syntax", f"Line {line:,} of the file is not what an OBJ model says there. Please export it again."
    )


def _fnv(word: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in word:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _hashes(words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    return np.array([_fnv(word.encode()) for word in words], dtype=np.uint64)


_H_NAMES, _H_NUMBERS = _hashes(_NAMES), _hashes(_NUMBERS)
_H_CURVED, _H_CALLS = _hashes(_CURVED), _hashes(_CALLS)
_FNV_START = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


@njit(cache=True, inline="always")
def _one_of(value, values):  # type: ignore[no-untyped-def]
    found = False
    for known in values:
        found |= value == known
    return found


@njit(cache=True, inline="always")
def _line_end(c):  # type: ignore[no-untyped-def]
    return c == 10 or c == 13


@njit(cache=True, inline="always")
def _space(c):  # type: ignore[no-untyped-def]
    return c == 32 or c == 9 or c == 11 or c == 12


@njit(cache=True)
def _continued(data, at):  # type: ignore[no-untyped-def]
    """Position after a backslash and line end that stand at `at`; `at` when they do not stand there."""
    if data[at] != 92 or at + 1 >= len(data) or not _line_end(data[at + 1]):
        return at
    return at + 3 if data[at + 1] == 13 and at + 2 < len(data) and data[at + 2] == 10 else at + 2


@njit(cache=True)
def _gap(data, at):  # type: ignore[no-untyped-def]
    """(position of what comes after spaces and continuations, whether the line or its useful part ends there)."""
    size = len(data)
    while at < size:
        if _space(data[at]):
            at += 1
        elif data[at] == 92:
            after = _continued(data, at)
            if after == at:
                break
            at = after
        else:
            break
    return at, at >= size or _line_end(data[at]) or data[at] == 35


@njit(cache=True)
def _line_over(data, at, joins):  # type: ignore[no-untyped-def]
    """Position of the line end at or after `at`; `joins`: a backslash before it joins the next line on."""
    size = len(data)
    while True:
        while at < size and not _line_end(data[at]):
            at += 1
        if at >= size or not joins or data[at - 1] != 92:
            return at
        at = _continued(data, at - 1)


@njit(cache=True)
def _reference(data, at):  # type: ignore[no-untyped-def]
    """(number, position after it, problem) of a signed whole number; 0 stands for one beyond all bounds."""
    size = len(data)
    negative = at < size and data[at] == 45
    if negative or (at < size and data[at] == 43):
        at += 1
    first = at
    value = np.int64(0)
    while at < size and 48 <= data[at] <= 57:
        if value < 1_000_000_000_000:
            value = value * 10 + (data[at] - 48)
        at += 1
    if at == first:
        return np.int64(0), at, CUT if at >= size else SYNTAX
    if value > 2_000_000_000:
        value = np.int64(0)
    return (-value if negative else value), at, OK


@njit(cache=True)
def _corner(data, at):  # type: ignore[no-untyped-def]
    """(vertex number as written, position after it, problem) of v, v/vt, v//vn or v/vt/vn."""
    size = len(data)
    vertex, at, problem = _reference(data, at)
    for _ in range(2):
        if problem == OK and at < size and data[at] == 47:
            at += 1
            if at < size and (data[at] == 45 or 48 <= data[at] <= 57):
                _, at, problem = _reference(data, at)
    if problem == OK and at < size:
        c = data[at]
        if not (_space(c) or _line_end(c) or c == 35 or _continued(data, at) != at):
            problem = SYNTAX
    return vertex, at, problem


@njit(cache=True)
def _longer_points(points):  # type: ignore[no-untyped-def]
    longer = np.empty((len(points) * 3 // 2, 3))
    longer[: len(points)] = points
    return longer


@njit(cache=True)
def _longer(rows):  # type: ignore[no-untyped-def]
    longer = np.empty((len(rows) * 3 // 2, rows.shape[1]), np.int32)
    longer[: len(rows)] = rows
    return longer


@njit(cache=True, nogil=True)
def _parse(data):  # type: ignore[no-untyped-def]
    """(points (m, 3), index (n, 3), polygons (k, 2), problem, byte where it was met).

    `polygons` says of each face with more than three corners where its fan of triangles begins and how many it has.
    """
    size = len(data)
    # As many as a file that somebody's program wrote will have; others make the arrays grow.
    points = np.empty((max(64, size // 64), 3))
    index = np.empty((max(64, size // 48), 3), np.int32)
    polygons = np.empty((64, 2), np.int32)
    used = 0
    faces = 0
    divided = 0
    highest = np.int64(-1)
    highest_at = 0
    problem = OK
    at = 3 if size >= 3 and data[0] == 239 and data[1] == 187 and data[2] == 191 else 0
    while at < size:
        if _space(data[at]) or _line_end(data[at]):
            at += 1
            continue
        start = at
        c = data[at]
        after = data[at + 1] if at + 1 < size else np.uint8(10)
        if c == 35:
            at = _line_over(data, at, False)
        elif c == 118 and (_space(after) or after == 92):
            if used == len(points):
                points = _longer_points(points)
            at += 1
            for axis in range(3):
                at, over = _gap(data, at)
                if over:
                    problem = CUT if at >= size else SYNTAX
                    break
                value, at, problem = decimal(data, at)
                if problem != OK:
                    break
                if at < size:
                    end = data[at]
                    if not (_space(end) or _line_end(end) or end == 35 or _continued(data, at) != at):
                        problem = SYNTAX
                        break
                points[used, axis] = value
            if problem != OK:
                break
            used += 1
            # A weight or a colour may follow.
            at = _line_over(data, at, True)
        elif c == 102 and (
            _space(after)
            or after == 92
            or (after == 111 and at + 2 < size and (_space(data[at + 2]) or data[at + 2] == 92))
        ):
            at += 2 if after == 111 else 1
            corners = 0
            first = np.int32(0)
            last = np.int32(0)
            while True:
                at, over = _gap(data, at)
                if over:
                    break
                number, at, problem = _corner(data, at)
                if problem != OK:
                    break
                vertex = number - 1 if number > 0 else used + number
                if number == 0 or vertex < 0:
                    problem = _INDEX
                    break
                if vertex > highest:
                    highest = vertex
                    highest_at = start
                if corners == 0:
                    first = np.int32(vertex)
                elif corners >= 2:
                    if faces == len(index):
                        index = _longer(index)
                    index[faces, 0] = first
                    index[faces, 1] = last
                    index[faces, 2] = vertex
                    faces += 1
                last = np.int32(vertex)
                corners += 1
            if problem == OK and corners < 3:
                problem = CUT if at >= size else SYNTAX
            if problem != OK:
                break
            if corners > 3:
                if divided == len(polygons):
                    polygons = _longer(polygons)
                polygons[divided, 0] = faces - (corners - 2)
                polygons[divided, 1] = corners - 2
                divided += 1
            at = _line_over(data, at, False)
        elif c == 118 and (after == 110 or after == 116) and (at + 2 >= size or data[at + 2] <= 32):
            at = _line_over(data, at, True)
        else:
            name = _FNV_START
            while at < size and not (_space(data[at]) or _line_end(data[at])):
                name = (name ^ np.uint64(data[at])) * _FNV_PRIME
                at += 1
            if _one_of(name, _H_NAMES):
                at = _line_over(data, at, False)
            elif _one_of(name, _H_NUMBERS):
                at = _line_over(data, at, True)
            else:
                problem = SYNTAX
                if _one_of(name, _H_CURVED):
                    problem = _FREE_FORM
                elif _one_of(name, _H_CALLS):
                    problem = _CALL
                at = start
                break
    if problem == OK and highest >= used:
        problem = _INDEX
        at = highest_at
    elif problem == _INDEX:
        at = start
    return points[:used], index[:faces], polygons[:divided], problem, at


@njit(cache=True, nogil=True)
def _divide_concave(points, index, polygons, steps):  # type: ignore[no-untyped-def]
    """Divides anew, by clipping ears, each face whose fan has a triangle that faces backwards; how many resisted.

    A fan of a concave face has the right volume but too much area. At most `steps` corners are looked at.
    """
    left = 0
    for p in range(len(polygons)):
        start = polygons[p, 0]
        count = polygons[p, 1]
        n = count + 2
        ring = np.empty(n, np.int32)
        ring[0] = index[start, 0]
        ring[1] = index[start, 1]
        for k in range(count):
            ring[k + 2] = index[start + k, 2]
        # Twice the area of the face as a vector: the sum over its fan.
        nx = 0.0
        ny = 0.0
        nz = 0.0
        for k in range(1, n - 1):
            x, y, z = _across(points, ring[0], ring[k], ring[k + 1])
            nx += x
            ny += y
            nz += z
        length = nx * nx + ny * ny + nz * nz
        backwards = False
        for k in range(1, n - 1):
            x, y, z = _across(points, ring[0], ring[k], ring[k + 1])
            backwards |= x * nx + y * ny + z * nz < -1e-9 * length
        if not backwards:
            continue
        # Seen along the axis that it faces most, and so that it is counter-clockwise.
        flat = np.empty((n, 2))
        drop = 0 if abs(nx) >= max(abs(ny), abs(nz)) else (1 if abs(ny) >= abs(nz) else 2)
        u = (drop + 1) % 3
        v = (drop + 2) % 3
        facing = nx if drop == 0 else (ny if drop == 1 else nz)
        sense = 1.0 if facing > 0 else -1.0
        for k in range(n):
            flat[k, 0] = points[ring[k], u] * sense
            flat[k, 1] = points[ring[k], v]
        triangles, looked = _clip_ears(flat, 1e-9 * abs(facing), steps)
        steps -= looked
        if len(triangles) != count:
            left += 1
            continue
        for k in range(count):
            for j in range(3):
                index[start + k, j] = ring[triangles[k, j]]
    return left


@njit(cache=True)
def _across(points, a, b, c):  # type: ignore[no-untyped-def]
    ux = points[b, 0] - points[a, 0]
    uy = points[b, 1] - points[a, 1]
    uz = points[b, 2] - points[a, 2]
    vx = points[c, 0] - points[a, 0]
    vy = points[c, 1] - points[a, 1]
    vz = points[c, 2] - points[a, 2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit(cache=True, inline="always")
def _turn(flat, a, b, c):  # type: ignore[no-untyped-def]
    return (flat[b, 0] - flat[a, 0]) * (flat[c, 1] - flat[a, 1]) - (flat[b, 1] - flat[a, 1]) * (flat[c, 0] - flat[a, 0])


@njit(cache=True)
def _clip_ears(flat, slack, steps):  # type: ignore[no-untyped-def]
    """(triangles (n - 2, 3) of a counter-clockwise polygon, corners looked at); fewer triangles when it cannot be
    divided without overlap (its outline crosses itself) or not within `steps`. `slack`: of an area, for rounding."""
    n = len(flat)
    before = np.empty(n, np.int64)
    after = np.empty(n, np.int64)
    for k in range(n):
        before[k] = (k - 1) % n
        after[k] = (k + 1) % n
    triangles = np.empty((n - 2, 3), np.int32)
    done = 0
    looked = 0
    tip = np.int64(0)
    tried = 0
    while done < n - 3:
        if tried > n - done or looked > steps:
            return triangles[:done], looked
        a = before[tip]
        c = after[tip]
        bend = _turn(flat, a, tip, c)
        ear = bend >= 0.0
        if bend > 0.0:
            k = after[c]
            while ear and k != a:
                looked += 1
                # Corners in the same place as one of the ear's own belong to a slit, not into the ear.
                apart = True
                for own in (a, tip, c):
                    apart &= flat[k, 0] != flat[own, 0] or flat[k, 1] != flat[own, 1]
                if apart and _turn(flat, a, tip, k) >= 0 and _turn(flat, tip, c, k) >= 0 and _turn(flat, c, a, k) >= 0:
                    ear = False
                k = after[k]
        else:
            looked += 1
        if ear:
            triangles[done, 0] = a
            triangles[done, 1] = tip
            triangles[done, 2] = c
            done += 1
            after[a] = c
            before[c] = a
            tried = 0
            tip = a
        else:
            tried += 1
            tip = c
    if _turn(flat, before[tip], tip, after[tip]) < -slack:
        return triangles[:done], looked
    triangles[done, 0] = before[tip]
    triangles[done, 1] = tip
    triangles[done, 2] = after[tip]
    return triangles[: done + 1], looked


def warm() -> None:
    """Compiles, or loads from numba's cache, the parser and the division of concave faces."""
    text = b"v 0 0 0\nv 2 0 0\nv 2 2 0\nv 1 0.5 0\nf 2 3 4 1\n"
    points, index, polygons, _, _ = _parse(np.frombuffer(text, dtype=np.uint8))
    _divide_concave(points, index, polygons, _CLIPPING_STEPS)
