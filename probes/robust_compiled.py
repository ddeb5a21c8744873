"""The kernel of the robust detectors for many series, in machine code: the twin of `foreshock.probes.robust_scan`.

Importing this file imports numba (the extra `fast`) and compiles, a few seconds. The result is kept in numba's cache,
beside the source or in the user's cache folder, so that later processes load it in a fraction of one; where neither
folder can be written, each process compiles anew. Natural-log units. The arrays hold one row a series:
    window f64[L, W]  a ring of logarithms      ordered f64[L, W]  the same, ascending    held f64[L, R]
    recent f64[L, 8]  clipped z                 real f64[L, 7]     spread (2), tail (2), threshold, median, scale
    whole i64[L, 7]   values in the window, place of the oldest, values held, open, quiet, judged, place of the MAD
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .detectors import CALM, FLAGGED, LEVEL_SHIFT, NONFINITE
from .robust_scan import (
    BROKEN,
    LONG,
    POSITIVE,
    SHORT,
    UNMEASURED,
    ZERO,
)
from .rolling import CONSISTENT

__all__ = ["scan_all", "settle_all"]

KNOWN, FIRST, HELD, OPEN, QUIET, JUDGED, MAD = range(7)
THRESHOLD, MIDDLE, SCALE = 4, 5, 6  # of `real`
# `rule` holds a Rule and TUNING. The numbers come as data, because numba's cache would not see them change elsewhere.
ROUNDING, CLIP, TAIL, MOST_EXCESS, MOST_TAIL, MEMORY, PRIOR, REFRESH = range(13, 21)


def _compile(signature: str) -> Callable[[Callable[..., Any]], Any]:
    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(signature, cache=True, nogil=True)(function)
        except (RuntimeError, OSError):  # there is no folder for the cache, or it is full
            return numba.njit(signature, nogil=True)(function)

    return compiled


@numba.njit(inline="always")
def _find(ordered: np.ndarray, n: int, value: float) -> int:
    """First place whose value is not below `value`, with no branch for the processor to guess wrong."""
    low = 0
    while n > 1:
        half = n >> 1
        low += half if ordered[low + half - 1] < value else 0
        n -= half
    return low + 1 if n == 1 and ordered[low] < value else low


@numba.njit(inline="always")
def _replace(ordered: np.ndarray, n: int, old: float, new: float) -> None:
    """Take one `old` out of the n ascending values and put `new` in: those between move up one place, eight at once."""
    i = _find(ordered, n, old)
    if new > old:
        while i + 8 < n and ordered[i + 8] < new:
            for j in range(8):
                ordered[i + j] = ordered[i + j + 1]
            i += 8
        while i + 1 < n and ordered[i + 1] < new:
            ordered[i] = ordered[i + 1]
            i += 1
    else:
        while i >= 8 and ordered[i - 8] > new:
            for j in range(8):
                ordered[i - j] = ordered[i - j - 1]
            i -= 8
        while i > 0 and ordered[i - 1] > new:
            ordered[i] = ordered[i - 1]
            i -= 1
    ordered[i] = new


@numba.njit(inline="always")
def _settle(ordered: np.ndarray, real: np.ndarray, whole: np.ndarray, minimum: int, floor: float) -> None:
    """Median and scale of the window. The k values nearest to the median begin about where they began last time."""
    n = whole[KNOWN]
    if n < minimum:
        real[MIDDLE] = real[SCALE] = math.nan
        return
    half = n // 2
    middle = ordered[half] if n % 2 else (ordered[half - 1] + ordered[half]) / 2
    k = (n + 1) // 2
    last = n - k
    low = min(whole[MAD], last)
    while low < last and middle - ordered[low] > ordered[low + k] - middle:
        low += 1
    while low > 0 and not middle - ordered[low - 1] > ordered[low - 1 + k] - middle:
        low -= 1
    whole[MAD] = low
    mad = max(abs(middle - ordered[low]), abs(ordered[low + k - 1] - middle))
    if n % 2 == 0:
        beyond = math.inf
        if low > 0:
            beyond = middle - ordered[low - 1]
        if low + k < n:
            beyond = min(beyond, ordered[low + k] - middle)
        mad = (mad + beyond) / 2
    real[MIDDLE], real[SCALE] = middle, max(CONSISTENT * mad, floor)


@numba.njit(inline="always")
def _mean(recent: np.ndarray, k: int, bar: float, real: np.ndarray, i: int, rate: float, rounding: float) -> bool:
    total = 0.0
    for j in range(LONG - k, LONG):
        total += recent[j]
    square, variance = total * total / k, real[i]
    if total < -rounding:
        real[i] = variance + rate * (1.03 * min(square, 9 * variance) - variance)
    return total > 0 and square >= bar * bar * variance * (1 - rounding)


@numba.njit(inline="always")
def _lower_tail(z: float, real: np.ndarray, rate: float, rule: np.ndarray) -> bool:
    excess = -z - rule[TAIL]
    inside = excess > rule[ROUNDING]
    real[2] += rate * ((1.0 if inside else 0.0) - real[2])
    real[3] += rate * ((min(excess, rule[MOST_EXCESS]) if inside else 0.0) - real[3])
    return inside


@numba.njit(inline="always")
def _threshold(real: np.ndarray, rule: np.ndarray) -> float:
    z, lift, chance = rule[1], rule[2], rule[3]
    share = min(max(real[2], 0.0), rule[MOST_TAIL])
    if share <= chance:
        return z
    growth = math.sqrt(math.sqrt(math.sqrt(share / chance))) - 1
    reached = rule[TAIL] + real[3] / real[2] * 7 * growth
    return min(max(reached, z), z + lift)


@numba.njit(inline="always")
def _judge(z: float, rise: float, recent: np.ndarray, real: np.ndarray, whole: np.ndarray, rule: np.ndarray) -> bool:
    """Whether a step with a baseline is part of an event."""
    for j in range(LONG - 1):
        recent[j] = recent[j + 1]
    recent[LONG - 1] = min(max(z, -rule[CLIP]), rule[CLIP])
    whole[JUDGED] += 1
    rate = max(1 / rule[MEMORY], 1 / (rule[PRIOR] + whole[JUDGED]))
    rounding = rule[ROUNDING]
    hit = z >= real[THRESHOLD] - rounding or (z >= rule[1] - rounding and rise >= rule[12] - rounding)
    hit |= _mean(recent, SHORT, rule[4], real, 0, rate, rounding)
    hit |= _mean(recent, LONG, rule[5], real, 1, rate, rounding)
    if _lower_tail(z, real, rate, rule) or whole[JUDGED] % int(rule[REFRESH]) == 0:
        real[THRESHOLD] = _threshold(real, rule)
    return z >= rule[6] - rounding and (whole[OPEN] == 1 or (hit and rise >= rule[0] - rounding))


@numba.njit(inline="always")
def _slide(window: np.ndarray, ordered: np.ndarray, whole: np.ndarray, y: float) -> None:
    """Let y into the window, and the oldest value out of a full one."""
    n = whole[KNOWN]
    if n < len(window):
        place = _find(ordered, n, y)
        for i in range(n, place, -1):
            ordered[i] = ordered[i - 1]
        ordered[place] = y
        window[(whole[FIRST] + n) % len(window)] = y
        whole[KNOWN] += 1
    else:
        first = whole[FIRST]
        _replace(ordered, n, float(window[first]), y)
        window[first] = y
        whole[FIRST] = 0 if first + 1 == n else first + 1


@numba.njit(inline="always")
def _shift(
    window: np.ndarray, ordered: np.ndarray, held: np.ndarray, real: np.ndarray, whole: np.ndarray, rule: np.ndarray
) -> None:
    """The values of the event become the baseline."""
    n = min(whole[HELD], len(window))
    window[:n] = held[whole[HELD] - n : whole[HELD]]
    ordered[:n] = np.sort(window[:n])
    whole[KNOWN], whole[FIRST], whole[HELD], whole[OPEN], whole[MAD] = n, 0, 0, 0, 0
    _settle(ordered, real, whole, int(rule[8]), rule[11])


@_compile("void(f8[:, ::1], f8[:, ::1], i8[:, ::1], f8[::1])")
def settle_all(ordered: np.ndarray, real: np.ndarray, whole: np.ndarray, rule: np.ndarray) -> None:
    """Work out median and scale of every series."""
    for row in range(len(whole)):
        _settle(ordered[row], real[row], whole[row], int(rule[8]), rule[11])


@_compile("void(u1[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], i8[:, ::1], "
          "f8[::1], u1[:, ::1], f8[:, ::1], f8[:, ::1])")  # fmt: skip
def scan_all(
    kinds: np.ndarray,
    logs: np.ndarray,
    windows: np.ndarray,
    orders: np.ndarray,
    helds: np.ndarray,
    recents: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
    rule: np.ndarray,
    flags: np.ndarray,
    zs: np.ndarray,
    middles: np.ndarray,
) -> None:
    """Judge the next values [L, n] of every series; write flags, z and median, and change what is remembered."""
    minimum, rebaseline, merge, floor = int(rule[8]), int(rule[9]), int(rule[10]), rule[11]
    for row in range(kinds.shape[0]):
        window, ordered, held, recent = windows[row], orders[row], helds[row], recents[row]
        real, whole = reals[row], wholes[row]
        for t in range(kinds.shape[1]):
            kind, y = kinds[row, t], logs[row, t]
            flag, z, middle = CALM, math.nan, real[MIDDLE]
            if kind == POSITIVE:
                if whole[KNOWN] >= minimum:
                    z = (y - middle) / real[SCALE]
                    whole[OPEN] = _judge(z, y - middle, recent, real, whole, rule)
                else:
                    whole[OPEN] = 0
            elif kind == ZERO:
                z, whole[OPEN] = -math.inf, 0
            elif kind == BROKEN:
                flag, z, whole[OPEN] = NONFINITE, math.inf, 1
            zs[row, t], middles[row, t] = z, middle
            if kind == UNMEASURED:
                continue
            if kind == POSITIVE and whole[OPEN] == 1:
                flag = FLAGGED
                held[whole[HELD]] = y
                whole[HELD] += 1
                if whole[HELD] >= rebaseline:
                    flag = LEVEL_SHIFT
                    _shift(window, ordered, held, real, whole, rule)
            elif kind == POSITIVE:
                _slide(window, ordered, whole, y)
                _settle(ordered, real, whole, minimum, floor)
            whole[QUIET] = whole[QUIET] + 1 if flag == CALM else 0
            if whole[QUIET] >= merge:
                whole[HELD] = 0
            flags[row, t] = flag
