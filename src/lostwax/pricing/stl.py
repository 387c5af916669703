"""Reads binary and ASCII STL into triangles without trusting a byte of the file.

The file is mapped, not loaded; what it claims is held against its size before anything is allocated. Coordinates are
taken as millimetres: STL has no unit. Attribute bytes and stored normals are ignored.
"""

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.pricing.measure import ModelUnreadable

HEADER = 84
RECORD = 50
FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# The shortest facet that the grammar allows, in bytes: it bounds how many triangles an ASCII file can hold.
_SHORTEST_FACET = len("facet normal 0 0 0 outer loop vertex 0 0 0 vertex 0 0 0 vertex 0 0 0 endloop endfacet ")


class Triangles(NamedTuple):
    """`corners`: float32 or float64 (n, 3 corners, 3 coordinates) mm, n >= 1, read-only, perhaps unaligned and not yet
    known to be finite; `notes`: what was odd about the file."""

    corners: npt.NDArray[Any]
    notes: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> Triangles:
    """Triangles of an STL file. Raises ModelUnreadable with code empty, truncated, size_mismatch, zero_triangles,
    unsupported_format, not_stl, ascii_syntax or nonfinite; OSError when the file cannot be opened.

    Whether a binary file's coordinates are finite and near enough is checked by `mesh.measure`, in its one pass.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ModelUnreadable("empty", "The file is empty: nothing arrived of the model. Please upload it again.")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data: npt.NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8)
    head = mapped[: min(len(mapped), 65536)]
    count = int.from_bytes(head[80:84], "little") if size >= HEADER else 0
    # Size before words: many programs start a binary file with "solid", none writes a text of exactly this length.
    if size >= HEADER and size == HEADER + RECORD * count:
        return _binary(mapped, count, ())
    other = _other_format(head)
    if other:
        raise ModelUnreadable(
            "unsupported_format", f"The file looks like {other}, which is not yet read here. Please export it as STL."
        )
    if _is_ascii_stl(head):
        return _ascii(data)
    if _is_text(head):
        raise ModelUnreadable("not_stl", "The file is a text, but not an STL model. Please export the model as STL.")
    if size < HEADER:
        raise ModelUnreadable(
            "truncated", f"The file has only {size} bytes, too few for an STL model. Please upload it again."
        )
    claimed = HEADER + RECORD * count
    if size < claimed:
        raise ModelUnreadable(
            "truncated",
            f"The file is cut short: it announces {count:,} triangles ({claimed:,} bytes) but has {size:,} bytes. "
            "Please upload it again.",
        )
    if size - claimed >= RECORD:
        raise ModelUnreadable(
            "size_mismatch",
            f"The file announces {count:,} triangles ({claimed:,} bytes) but has {size:,} bytes, so part of the model "
            "would be missing. Please export it again.",
        )
    return _binary(mapped, count, (f"{size - claimed} stray bytes after the last triangle were ignored",))


def _no_triangles() -> ModelUnreadable:
    return ModelUnreadable("zero_triangles", "The file holds no triangles: the model is empty. Please export it again.")


def _binary(mapped: mmap.mmap, count: int, notes: tuple[str, ...]) -> Triangles:
    if count == 0:
        raise _no_triangles()
    return Triangles(np.frombuffer(mapped, dtype=FACET, count=count, offset=HEADER)["corners"], notes)


def _ascii(data: npt.NDArray[np.uint8]) -> Triangles:
    corners = np.empty((len(data) // _SHORTEST_FACET + 1, 3, 3))
    count, problem, at, ended = _parse_ascii(data, corners)
    if problem == _CUT:
        raise ModelUnreadable(
            "truncated", f"The file is cut short: it ends within triangle {count + 1:,}. Please upload it again."
        )
    if problem:
        line = int(np.count_nonzero(data[:at] == ord("\n"))) + 1
        if problem == _NOT_FINITE:
            raise ModelUnreadable("nonfinite", f"Line {line:,} of the file has a coordinate that is not a number.")
        raise ModelUnreadable(
            "ascii_syntax", f"Line {line:,} of the file is not what an STL model says there. Please export it again."
        )
    if count == 0:
        raise _no_triangles()
    return Triangles(corners[:count], () if ended else ("the file does not say where it ends (no endsolid)",))


def _is_ascii_stl(head: bytes) -> bool:
    words = head[:4096].lstrip().lower()
    return words.startswith(b"solid") and (b"facet" in head.lower() or b"endsolid" in words or _is_text(head))


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head[:4096])


_MAGIC = (
    (b"PK\x03\x04", "a 3MF or another zip archive"),
    (b"glTF", "a GLB"),
    (b"ISO-10303-21", "a STEP"),
    (b"ply\n", "a PLY"),
    (b"ply\r", "a PLY"),
    (b"OFF\n", "an OFF"),
    (b"3D Geometry File Format", "a Rhino 3DM"),
    (b"Kaydara FBX", "an FBX"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"<?xml", "an XML file (AMF, X3D or the like)"),
    (b"{", "a JSON file (glTF or the like)"),
)
_OBJ_WORDS = (b"v ", b"vn ", b"vt ", b"f ", b"o ", b"g ", b"s ", b"mtllib ", b"usemtl ")


def _other_format(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if b"\0" in head[:4096]:
        return None
    lines = [line.lstrip() for line in head[:4096].splitlines()]
    spoken = [line for line in lines if line and not line.startswith(b"#")]
    return "an OBJ" if spoken and spoken[0].startswith(_OBJ_WORDS) else None


_OK, _CUT, _SYNTAX, _NOT_FINITE = 0, 1, 2, 3
_POWERS = np.array([10.0**e for e in range(23)])


@njit(cache=True, inline="always")
def _blank(c):  # type: ignore[no-untyped-def]
    return c == 32 or (9 <= c <= 13)


@njit(cache=True, inline="always")
def _word_is(data, at, end, word):  # type: ignore[no-untyped-def]
    """Whether the token data[at:end] is `word` (lower-case letters), in either case."""
    same = end - at == len(word)
    k = 0
    while same and k < len(word):
        same = (data[at + k] | 32) == word[k]
        k += 1
    return same


@njit(cache=True)
def _number(data, at):  # type: ignore[no-untyped-def]
    """(value, position after it, problem) of the decimal number that starts after blanks at `at`.

    Right to the last bit for up to 15 digits and small exponents, as exporters write; else within a few ulp. What
    matters for closedness is that equal texts give equal numbers.
    """
    size = len(data)
    while at < size and _blank(data[at]):
        at += 1
    if at >= size:
        return 0.0, at, _CUT
    negative = data[at] == 45
    if negative or data[at] == 43:
        at += 1
    mantissa = np.int64(0)
    exponent = 0
    digits = 0
    kept = 0
    while at < size and 48 <= data[at] <= 57:
        digits += 1
        if kept < 18:
            mantissa = mantissa * 10 + (data[at] - 48)
            kept += mantissa != 0
        else:
            exponent += 1
        at += 1
    if at < size and data[at] == 46:
        at += 1
        while at < size and 48 <= data[at] <= 57:
            digits += 1
            if kept < 18:
                mantissa = mantissa * 10 + (data[at] - 48)
                kept += mantissa != 0
                exponent -= 1
            at += 1
    if digits == 0:
        if at >= size:
            return 0.0, at, _CUT
        letter = data[at] | 32
        return 0.0, at, _NOT_FINITE if letter == 110 or letter == 105 else _SYNTAX
    if at < size and (data[at] | 32) == 101:
        at += 1
        down = at < size and data[at] == 45
        if down or (at < size and data[at] == 43):
            at += 1
        power = 0
        first = at
        while at < size and 48 <= data[at] <= 57:
            if power < 10000:
                power = power * 10 + (data[at] - 48)
            at += 1
        if at == first:
            return 0.0, at, _CUT if at >= size else _SYNTAX
        exponent += -power if down else power
    if at < size and not _blank(data[at]):
        return 0.0, at, _SYNTAX
    value = np.float64(mantissa)
    if mantissa != 0:
        if exponent > 400:
            value = np.float64(np.inf)
        elif exponent < -400:
            value = np.float64(0.0)
        while exponent > 0:
            step = min(exponent, 22)
            value *= _POWERS[step]
            exponent -= step
        while exponent < 0 and value != 0.0:
            step = min(-exponent, 22)
            value /= _POWERS[step]
            exponent += step
    if not np.isfinite(value):
        return 0.0, at, _NOT_FINITE
    return (-value if negative else value), at, _OK


_W_SOLID = np.frombuffer(b"solid", dtype=np.uint8)
_W_FACET = np.frombuffer(b"facet", dtype=np.uint8)
_W_NORMAL = np.frombuffer(b"normal", dtype=np.uint8)
_W_OUTER = np.frombuffer(b"outer", dtype=np.uint8)
_W_LOOP = np.frombuffer(b"loop", dtype=np.uint8)
_W_VERTEX = np.frombuffer(b"vertex", dtype=np.uint8)
_W_ENDLOOP = np.frombuffer(b"endloop", dtype=np.uint8)
_W_ENDFACET = np.frombuffer(b"endfacet", dtype=np.uint8)
_W_ENDSOLID = np.frombuffer(b"endsolid", dtype=np.uint8)


@njit(cache=True, inline="always")
def _token(data, at):  # type: ignore[no-untyped-def]
    """(start, end) of the next word after `at`; start == len(data) when there is none."""
    size = len(data)
    while at < size and _blank(data[at]):
        at += 1
    end = at
    while end < size and not _blank(data[end]):
        end += 1
    return at, end


@njit(cache=True)
def _parse_ascii(data, corners):  # type: ignore[no-untyped-def]
    """Fills `corners`; returns (triangles, problem, byte where it was met, whether the text ended with endsolid).

    Grammar, any number of times:
    `solid NAME eol (facet normal n n n outer loop (vertex x y z){3} endloop endfacet)* endsolid NAME eol`.
    """
    size = len(data)
    count = 0
    at = 0
    ended = False
    while True:
        start, at = _token(data, at)
        if start >= size:
            return count, _OK, start, ended
        if _word_is(data, start, at, _W_FACET):
            ended = False
            start, at = _token(data, at)
            if start >= size:
                return count, _CUT, start, ended
            if not _word_is(data, start, at, _W_NORMAL):
                return count, (_CUT if at >= size else _SYNTAX), start, ended
            for _ in range(3):
                # Normals are not used, and some programs write "nan" for that of a sliver.
                start, at = _token(data, at)
            start, at = _token(data, at)
            if not _word_is(data, start, at, _W_OUTER):
                return count, (_CUT if at >= size else _SYNTAX), start, ended
            start, at = _token(data, at)
            if not _word_is(data, start, at, _W_LOOP):
                return count, (_CUT if at >= size else _SYNTAX), start, ended
            if count >= len(corners):
                return count, _SYNTAX, start, ended
            for corner in range(3):
                start, at = _token(data, at)
                if not _word_is(data, start, at, _W_VERTEX):
                    return count, (_CUT if at >= size else _SYNTAX), start, ended
                for axis in range(3):
                    value, at, problem = _number(data, at)
                    if problem != _OK:
                        return count, problem, at, ended
                    corners[count, corner, axis] = value
            start, at = _token(data, at)
            if not _word_is(data, start, at, _W_ENDLOOP):
                return count, (_CUT if at >= size else _SYNTAX), start, ended
            start, at = _token(data, at)
            if not _word_is(data, start, at, _W_ENDFACET):
                return count, (_CUT if at >= size else _SYNTAX), start, ended
            count += 1
        elif _word_is(data, start, at, _W_SOLID) or _word_is(data, start, at, _W_ENDSOLID):
            ended = at - start == 8
            while at < size and data[at] != 10 and data[at] != 13:
                at += 1
        else:
            return count, (_CUT if at >= size else _SYNTAX), start, ended


def warm() -> None:
    """Compiles (or loads from numba's cache) the ASCII parser."""
    facet = b"facet normal 0 0 1 outer loop vertex 0 0 0 vertex 1 0 0 vertex 0 1 0 endloop endfacet"
    _ascii(np.frombuffer(b"solid a\n" + facet + b"\nendsolid a\n", dtype=np.uint8))
