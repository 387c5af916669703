"""Words and numbers in a byte array, for the readers of texts. Compiled into each of them.

numba's cache of a kernel goes by the content of the kernel's own file alone, so a change here would leave stale kernels
behind in `stl`, `obj` and `threemf`. Each of them therefore names the digest of this file (a test holds them to it).
"""

import numpy as np
from numba import njit

OK, CUT, SYNTAX, NOT_FINITE = 0, 1, 2, 3
_POWERS = np.array([10.0**e for e in range(23)])


@njit(cache=True, inline="always")
def blank(c):  # type: ignore[no-untyped-def]
    return c == 32 or (9 <= c <= 13)


@njit(cache=True, inline="always")
def word_is(data, at, end, word):  # type: ignore[no-untyped-def]
    """Whether the token data[at:end] is `word` (lower-case letters), in either case."""
    same = end - at == len(word)
    k = 0
    while same and k < len(word):
        same = (data[at + k] | 32) == word[k]
        k += 1
    return same


@njit(cache=True, inline="always")
def token(data, at):  # type: ignore[no-untyped-def]
    """(start, end) of the next word after `at`; start == len(data) when there is none."""
    size = len(data)
    while at < size and blank(data[at]):
        at += 1
    end = at
    while end < size and not blank(data[end]):
        end += 1
    return at, end


@njit(cache=True)
def _is_nan_or_inf(data, at):  # type: ignore[no-untyped-def]
    if at + 2 >= len(data):
        return False
    a, b, c = data[at] | 32, data[at + 1] | 32, data[at + 2] | 32
    return (a == 110 and b == 97 and c == 110) or (a == 105 and b == 110 and c == 102)


@njit(cache=True)
def decimal(data, at):  # type: ignore[no-untyped-def]
    """(value, position after it, problem) of the decimal number that starts at `at`; what follows is not looked at.

    Right to the last bit for up to 15 digits and small exponents, as exporters write; else within a few ulp. What
    matters for closedness is that equal texts give equal numbers.
    """
    size = len(data)
    if at >= size:
        return 0.0, at, CUT
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
            return 0.0, at, CUT
        return 0.0, at, NOT_FINITE if _is_nan_or_inf(data, at) else SYNTAX
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
            return 0.0, at, CUT if at >= size else SYNTAX
        exponent += -power if down else power
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
        return 0.0, at, NOT_FINITE
    return (-value if negative else value), at, OK
