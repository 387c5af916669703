"""The scanner of plain rows: `<vertex x="" y="" z=""/>` and `<triangle v1="" v2="" v3=""/>`, nearly all of a 3MF."""

import numpy as np
from numba import njit

from lostwax.pricing.scan import OK, decimal

SCAN = "198c50f41f12"
"""Digest of `scan`, whose kernels are compiled into those here; see there."""

_VERTEX = np.frombuffer(b"<vertex", dtype=np.uint8)
_TRIANGLE = np.frombuffer(b"<triangle", dtype=np.uint8)
_SHORTEST_VERTEX = len('<vertex x="0"y="0"z="0"/>') - 2
_SHORTEST_TRIANGLE = len('<triangle v1="0"v2="0"v3="0"/>') - 2


@njit(cache=True, inline="always")
def _blank(c):  # type: ignore[no-untyped-def]
    """As XML has it: no other control character may stand between words."""
    return c == 32 or c == 10 or c == 9 or c == 13


@njit(cache=True)
def _tag(data, at, word):  # type: ignore[no-untyped-def]
    """(position after blanks and `word`, start of `word`, whether it is there, whether it may come with more text)."""
    size = len(data)
    while at < size and _blank(data[at]):
        at += 1
    start = at
    k = 0
    while k < len(word) and at < size and data[at] == word[k]:
        at += 1
        k += 1
    if at >= size:
        return at, start, False, True
    return at, start, k == len(word) and _blank(data[at]), False


@njit(cache=True)
def _ends(data, at):  # type: ignore[no-untyped-def]
    """(position after `/>` that stands at `at`, whether it is there, whether it may come with more text)."""
    if at + 1 >= len(data):
        return at, False, data[at] == 47 if at < len(data) else True
    return at + 2, data[at] == 47 and data[at + 1] == 62, False


@njit(cache=True, nogil=True)
def vertex_rows(data, at):  # type: ignore[no-untyped-def]
    """(points (n, 3), position after the last row, whether the text only ended): plain `<vertex x="" y="" z=""/>`."""
    size = len(data)
    points = np.empty(((size - at) // _SHORTEST_VERTEX + 1, 3))
    count = 0
    row = np.zeros(3)
    while True:
        end, start, found, more = _tag(data, at, _VERTEX)
        if not found:
            # Blanks before what is not a row are nobody's.
            return points[:count].copy(), start, more
        seen = 0
        at = end
        while True:
            while at < size and _blank(data[at]):
                at += 1
            if at + 3 >= size:
                done, closed, more = _ends(data, at)
                if closed and seen == 7:
                    at = done
                    break
                return points[:count].copy(), start, True
            axis = data[at] - 120
            if data[at] == 47:
                done, closed, more = _ends(data, at)
                if not closed or seen != 7:
                    return points[:count].copy(), start, False
                at = done
                break
            quote = data[at + 2]
            if not (0 <= axis <= 2) or data[at + 1] != 61 or (quote != 34 and quote != 39) or seen >> axis & 1:
                return points[:count].copy(), start, False
            at += 3
            while at < size and _blank(data[at]):
                at += 1
            value, at, problem = decimal(data, at)
            while at < size and _blank(data[at]):
                at += 1
            if at >= size:
                return points[:count].copy(), start, True
            if problem != OK or data[at] != quote:
                return points[:count].copy(), start, False
            at += 1
            if not (data[at] == 47 if at < size else True) and not (at < size and _blank(data[at])):
                return points[:count].copy(), start, False
            row[axis] = value
            seen |= 1 << axis
        points[count] = row
        count += 1


@njit(cache=True)
def _name_end(data, at):  # type: ignore[no-untyped-def]
    """Position after the attribute name (letters, digits, `_`, `:`, `-`, `.`) that starts at `at`."""
    size = len(data)
    while at < size:
        c = data[at]
        letter = 97 <= (c | 32) <= 122
        if not (letter or 48 <= c <= 57 or c == 95 or c == 58 or c == 45 or c == 46):
            break
        at += 1
    return at


@njit(cache=True, nogil=True)
def triangle_rows(data, at):  # type: ignore[no-untyped-def]
    """(index (n, 3), position after the last row, whether the text only ended): plain `<triangle v1="" .../>`, any
    other attributes skipped but for declarations of name spaces."""
    size = len(data)
    index = np.empty(((size - at) // _SHORTEST_TRIANGLE + 1, 3), np.int32)
    count = 0
    row = np.zeros(3, np.int32)
    while True:
        end, start, found, more = _tag(data, at, _TRIANGLE)
        if not found:
            return index[:count].copy(), start, more
        seen = 0
        at = end
        while True:
            while at < size and _blank(data[at]):
                at += 1
            if at < size and data[at] == 47:
                done, closed, more = _ends(data, at)
                if more:
                    return index[:count].copy(), start, True
                if not closed or seen != 7:
                    return index[:count].copy(), start, False
                at = done
                break
            name = at
            at = _name_end(data, at)
            if at + 1 >= size:
                return index[:count].copy(), start, True
            quote = data[at + 1]
            if at == name or data[at] != 61 or (quote != 34 and quote != 39):
                return index[:count].copy(), start, False
            corner = data[name + 1] - 49 if at - name == 2 and data[name] == 118 else 9
            if at - name >= 5 and data[name] == 120 and data[name + 1] == 109:
                return index[:count].copy(), start, False
            at += 2
            if 0 <= corner <= 2:
                value = 0
                first = at
                while at < size and 48 <= data[at] <= 57 and at - first < 9:
                    value = value * 10 + (data[at] - 48)
                    at += 1
                if at >= size:
                    return index[:count].copy(), start, True
                if at == first or data[at] != quote or seen >> corner & 1:
                    return index[:count].copy(), start, False
                row[corner] = value
                seen |= 1 << corner
            else:
                while at < size and data[at] != quote and data[at] != 60 and data[at] != 38:
                    at += 1
                if at >= size:
                    return index[:count].copy(), start, True
                if data[at] != quote:
                    return index[:count].copy(), start, False
            at += 1
            if at < size and data[at] != 47 and not _blank(data[at]):
                return index[:count].copy(), start, False
        index[count] = row
        count += 1


def warm() -> None:
    """Compiles, or loads from numba's cache, both scanners."""
    vertex_rows(np.frombuffer(b'<vertex x="0" y="0" z="0"/>', dtype=np.uint8), 0)
    triangle_rows(np.frombuffer(b'<triangle v1="0" v2="1" v3="2"/>', dtype=np.uint8), 0)
    decimal(np.frombuffer(b"0", dtype=np.uint8), 0)
