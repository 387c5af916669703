"""Reads binary and ASCII STL into triangles without trusting a byte of the file.

The file is mapped, not loaded; what it claims is held against its size before anything is allocated. Coordinates are
taken as millimetres: STL has no unit. Attribute bytes and stored normals are ignored.
"""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.scan import CUT, NOT_FINITE, OK, SYNTAX, blank, decimal, token, word_is
from lostwax.pricing.triangles import Triangles, empty, no_triangles

SCAN = "198c50f41f12"
"""Digest of `scan`, whose kernels are compiled into those here; see there."""

HEADER = 84
RECORD = 50
FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# The shortest facet that the grammar allows, in bytes: it bounds how many triangles an ASCII file can hold.
_SHORTEST_FACET = len("facet normal 0 0 0 outer loop vertex 0 0 0 vertex 0 0 0 vertex 0 0 0 endloop endfacet ")


def read(path: str | os.PathLike[str]) -> Triangles:
    """Triangles of an STL file. Raises ModelUnreadable with code empty, truncated, size_mismatch, zero_triangles,
    not_a_model, ascii_syntax or nonfinite; OSError when the file cannot be opened.

    Whether a binary file's coordinates are finite and near enough is checked by `mesh.measure`, in its one pass.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise empty()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data: npt.NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8)
    head = mapped[: min(len(mapped), 65536)]
    count = int.from_bytes(head[80:84], "little") if size >= HEADER else 0
    # Size before words: many programs start a binary file with "solid", none writes a text of exactly this length.
    if is_binary(head, size):
        return _binary(mapped, count, ())
    if _is_ascii_stl(head):
        return _ascii(data)
    if _is_text(head):
        raise ModelUnreadable(
            "not_a_model", "The file is a text, but not a model. Please export your model as STL, 3MF or OBJ."
        )
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


def is_binary(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes is exactly as long as a binary STL with its beginning is."""
    return size >= HEADER and size == HEADER + RECORD * int.from_bytes(head[80:84], "little")


def _binary(mapped: mmap.mmap, count: int, notes: tuple[str, ...]) -> Triangles:
    if count == 0:
        raise no_triangles()
    return Triangles(np.frombuffer(mapped, dtype=FACET, count=count, offset=HEADER)["corners"], notes)


def _ascii(data: npt.NDArray[np.uint8]) -> Triangles:
    corners = np.empty((len(data) // _SHORTEST_FACET + 1, 3, 3))
    count, problem, at, ended = _parse_ascii(data, corners)
    if problem == CUT:
        raise ModelUnreadable(
            "truncated", f"The file is cut short: it ends within triangle {count + 1:,}. Please upload it again."
        )
    if problem:
        line = int(np.count_nonzero(data[:at] == ord("\n"))) + 1
        if problem == NOT_FINITE:
            raise ModelUnreadable("nonfinite", f"Line {line:,} of the file has a coordinate that is not a number.")
        raise ModelUnreadable(
            "ascii_syntax", f"Line {line:,} of the file is not what an STL model says there. Please export it again."
        )
    if count == 0:
        raise no_triangles()
    return Triangles(corners[:count], () if ended else ("the file does not say where it ends (no endsolid)",))


def _is_ascii_stl(head: bytes) -> bool:
    words = head[:4096].lstrip().lower()
    return words.startswith(b"solid") and (b"facet" in head.lower() or b"endsolid" in words or _is_text(head))


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head[:4096])


@njit(cache=True)
def _number(data, at):  # type: ignore[no-untyped-def]
    """`decimal` of the next word, which must be a number and nothing else."""
    while at < len(data) and blank(data[at]):
        at += 1
    value, at, problem = decimal(data, at)
    if problem == OK and at < len(data) and not blank(data[at]):
        problem = SYNTAX
    return value, at, problem


_W_SOLID = np.frombuffer(b"solid", dtype=np.uint8)
_W_FACET = np.frombuffer(b"facet", dtype=np.uint8)
_W_NORMAL = np.frombuffer(b"normal", dtype=np.uint8)
_W_OUTER = np.frombuffer(b"outer", dtype=np.uint8)
_W_LOOP = np.frombuffer(b"loop", dtype=np.uint8)
_W_VERTEX = np.frombuffer(b"vertex", dtype=np.uint8)
_W_ENDLOOP = np.frombuffer(b"endloop", dtype=np.uint8)
_W_ENDFACET = np.frombuffer(b"endfacet", dtype=np.uint8)
_W_ENDSOLID = np.frombuffer(b"endsolid", dtype=np.uint8)


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
        start, at = token(data, at)
        if start >= size:
            return count, OK, start, ended
        if word_is(data, start, at, _W_FACET):
            ended = False
            start, at = token(data, at)
            if start >= size:
                return count, CUT, start, ended
            if not word_is(data, start, at, _W_NORMAL):
                return count, (CUT if at >= size else SYNTAX), start, ended
            for _ in range(3):
                # Normals are not used, and some programs write "nan" for that of a sliver.
                start, at = token(data, at)
            start, at = token(data, at)
            if not word_is(data, start, at, _W_OUTER):
                return count, (CUT if at >= size else SYNTAX), start, ended
            start, at = token(data, at)
            if not word_is(data, start, at, _W_LOOP):
                return count, (CUT if at >= size else SYNTAX), start, ended
            if count >= len(corners):
                return count, SYNTAX, start, ended
            for corner in range(3):
                start, at = token(data, at)
                if not word_is(data, start, at, _W_VERTEX):
                    return count, (CUT if at >= size else SYNTAX), start, ended
                for axis in range(3):
                    value, at, problem = _number(data, at)
                    if problem != OK:
                        return count, problem, at, ended
                    corners[count, corner, axis] = value
            start, at = token(data, at)
            if not word_is(data, start, at, _W_ENDLOOP):
                return count, (CUT if at >= size else SYNTAX), start, ended
            start, at = token(data, at)
            if not word_is(data, start, at, _W_ENDFACET):
                return count, (CUT if at >= size else SYNTAX), start, ended
            count += 1
        elif word_is(data, start, at, _W_SOLID) or word_is(data, start, at, _W_ENDSOLID):
            ended = at - start == 8
            while at < size and data[at] != 10 and data[at] != 13:
                at += 1
        else:
            return count, (CUT if at >= size else SYNTAX), start, ended


def warm() -> None:
    """Compiles (or loads from numba's cache) the ASCII parser."""
    facet = b"facet normal 0 0 1 outer loop vertex 0 0 0 vertex 1 0 0 vertex 0 1 0 endloop endfacet"
    _ascii(np.frombuffer(b"solid a\n" + facet + b"\nendsolid a\n", dtype=np.uint8))
