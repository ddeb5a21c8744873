"""The kernel of the robust detectors, one series and one pass, in natural-log units: plain Python, exact to the bit.

`foreshock.probes.robust_compiled` is the same thing for many series in machine code. Both do the same operations in the
same order on IEEE doubles, so they agree bit for bit, and a state that one leaves the other can take up.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .detectors import CALM, FLAGGED, LEVEL_SHIFT, NONFINITE, State
from .rolling import CONSISTENT, median_and_mad

__all__ = ["BROKEN", "POSITIVE", "UNMEASURED", "ZERO", "Rule", "blank", "kinds_and_logs", "scan"]

POSITIVE, ZERO, BROKEN, UNMEASURED = range(4)
"""What a value is: it has a logarithm, it is 0, it is not finite, or it was not measured and is passed over."""

# Reaching a threshold up to rounding is reaching it, so multiplying a series by a constant can't change its events.
ROUNDING = 1e-9
CLIP = 5.0  # of z, before it enters a mean: one wild step is the business of the single-step threshold
TAIL = 2.5  # the lower tail begins so far below the median
MOST_EXCESS = 4.0  # and one value counts as at most so far beyond that
MOST_TAIL = 0.03  # share of steps; more than that is no tail
MEMORY = 4000.0  # steps over which the tail and the spread of the means are averaged
PRIOR = 500.0  # steps that the starting values below count for
REFRESH = 64  # judged steps between two looks at the threshold; each step of the lower tail is one more
SHORT, LONG = 3, 8  # steps of the two means
TUNING = (ROUNDING, CLIP, TAIL, MOST_EXCESS, MOST_TAIL, MEMORY, PRIOR, REFRESH)


class Rule(NamedTuple):
    """What the kernel asks of a detector's thresholds.

    Attributes:
        rise: least natural log of value over baseline at the opening.
        z: single-step threshold; `lift`: how far a heavy lower tail may raise it; `chance`: the false alarms that it
            then aims at, per step.
        short, long: thresholds of the means of 3 and of 8 steps, in their own standard deviations; inf: not used.
        close, window, minimum, rebaseline, merge, floor: as in `foreshock.probes.detectors.robust.Thresholds`.
        sure: natural log of value over baseline from which `z` is enough, whatever `lift` has made of it.
    """

    rise: float
    z: float
    lift: float
    chance: float
    short: float
    long: float
    close: float
    window: int
    minimum: int
    rebaseline: int
    merge: int
    floor: float
    sure: float = math.inf


def blank(rule: Rule) -> State:
    """What is known at the start of a series, as plain JSON.

    `window`: the unflagged logarithms; `held`: those of the event under way; `recent`: the last 8 clipped z;
    `spread`: variances of the means, times 3 and 8; `tail`: share of steps in the lower tail, and their excess.
    """
    return {
        "window": [],
        "held": [],
        "open": False,
        "quiet": 0,
        "judged": 0,
        "recent": [0.0] * LONG,
        "spread": [1.6, 1.8],
        "tail": [0.0062, 0.0020],  # of normal noise
        "threshold": rule.z,
    }


def kinds_and_logs(values: np.ndarray, measured: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What each value is, u8, and its natural logarithm (0 where it has none), f64, both in the values' shape.

    >>> kinds, logs = kinds_and_logs(np.array([1.0, 0.0, np.inf]))
    >>> kinds.tolist(), logs.tolist()
    ([0, 1, 2], [0.0, 0.0, 0.0])
    """
    finite = np.isfinite(values)
    kinds = np.where(finite, np.where(values == 0, ZERO, POSITIVE), BROKEN).astype(np.uint8, order="C")
    if measured is not None:
        kinds[~measured] = UNMEASURED
    # Contiguous, so that numpy takes the same road to each logarithm however the values were cut and laid out.
    logs = np.log(np.where(kinds == POSITIVE, values, 1.0).astype(np.float64, order="C"))
    return kinds, logs


def scan(
    kinds: Iterable[int], logs: Iterable[float], state: State, rule: Rule
) -> tuple[list[int], list[float], list[float], State]:
    """Judge the next values of one series.

    Returns:
        Flags, z (NaN without a baseline, -inf at a zero, inf where not finite), the median that each was compared with,
        and the new state. Values that were not measured are CALM with z NaN.

    >>> kinds, logs = kinds_and_logs(np.r_[np.ones(64), 9.0])
    >>> rule = Rule(0.7, 4.5, 3.0, 1e-4, 4.2, 3.5, 2.0, 256, 64, 128, 10, 0.05)
    >>> flags, z, _, _ = scan(kinds.tolist(), logs.tolist(), blank(rule), rule)
    >>> flags[-1], round(z[-1], 1)
    (1, 43.9)
    """
    window, held, recent = list(state["window"]), list(state["held"]), list(state["recent"])
    is_open, quiet, judged, threshold = state["open"], state["quiet"], state["judged"], state["threshold"]
    spread, tail = list(state["spread"]), list(state["tail"])
    ordered = sorted(window)
    middle, scale = _baseline(ordered, rule)
    flags, zs, middles = [], [], []
    for kind, y in zip(kinds, logs, strict=True):
        flag, z = CALM, math.nan
        if kind == BROKEN:
            flag, z, is_open = NONFINITE, math.inf, True
        elif kind == ZERO:
            z, is_open = -math.inf, False
        elif kind == POSITIVE and len(ordered) < rule.minimum:
            is_open = False
        elif kind == POSITIVE:
            z = (y - middle) / scale
            recent = [*recent[1:], min(max(z, -CLIP), CLIP)]
            judged += 1
            rate = max(1 / MEMORY, 1 / (PRIOR + judged))
            hit = z >= threshold - ROUNDING or (z >= rule.z - ROUNDING and y - middle >= rule.sure - ROUNDING)
            hit |= _mean(recent, SHORT, rule.short, spread, 0, rate)
            hit |= _mean(recent, LONG, rule.long, spread, 1, rate)
            if _lower_tail(z, tail, rate) or judged % REFRESH == 0:
                threshold = _threshold(tail, rule)
            is_open = z >= rule.close - ROUNDING and (is_open or (hit and y - middle >= rule.rise - ROUNDING))
        flags.append(flag)
        zs.append(z)
        middles.append(middle)
        if kind == UNMEASURED:
            continue
        if is_open and flag == CALM:
            flags[-1] = flag = FLAGGED
            held.append(y)
            if len(held) >= rule.rebaseline:
                flags[-1], is_open = LEVEL_SHIFT, False
                window, held = held[-rule.window :], []
                ordered = sorted(window)
                middle, scale = _baseline(ordered, rule)
        elif kind == POSITIVE:
            window.append(y)
            insort(ordered, y)
            if len(window) > rule.window:
                del ordered[bisect_left(ordered, window.pop(0))]
            middle, scale = _baseline(ordered, rule)
        quiet = quiet + 1 if flag == CALM else 0
        if quiet >= rule.merge:
            held = []
    return (
        flags,
        zs,
        middles,
        {
            "window": window,
            "held": held,
            "open": is_open,
            "quiet": quiet,
            "judged": judged,
            "recent": recent,
            "spread": spread,
            "tail": tail,
            "threshold": threshold,
        },
    )


def _baseline(ordered: list[float], rule: Rule) -> tuple[float, float]:
    """Median and scale of the window, NaN while it holds fewer than `minimum` values."""
    if len(ordered) < rule.minimum:
        return math.nan, math.nan
    middle, mad = median_and_mad(ordered)
    return middle, max(CONSISTENT * mad, rule.floor)


def _mean(recent: list[float], k: int, bar: float, spread: list[float], i: int, rate: float) -> bool:
    """Whether the mean of the last k clipped z reaches `bar` of its standard deviations; learn that from its falls.

    Falls are noise, rises may be events: so the second moment below zero stands for the variance (the 1.03 makes good
    what cutting squares off at 9 takes away from a normal one).
    """
    total = 0.0
    for z in recent[-k:]:
        total += z
    square, variance = total * total / k, spread[i]
    if total < -ROUNDING:
        spread[i] = variance + rate * (1.03 * min(square, 9 * variance) - variance)
    return total > 0 and square >= bar * bar * variance * (1 - ROUNDING)


def _lower_tail(z: float, tail: list[float], rate: float) -> bool:
    """Take a step into the account of the lower tail; whether it lies there."""
    excess = -z - TAIL
    inside = excess > ROUNDING
    tail[0] += rate * ((1.0 if inside else 0.0) - tail[0])
    tail[1] += rate * ((min(excess, MOST_EXCESS) if inside else 0.0) - tail[1])
    return inside


def _threshold(tail: list[float], rule: Rule) -> float:
    """Where the lower tail, mirrored, leaves `chance` a step: a generalised Pareto tail of shape 1/8."""
    share = min(max(tail[0], 0.0), MOST_TAIL)
    if share <= rule.chance:
        return rule.z
    growth = math.sqrt(math.sqrt(math.sqrt(share / rule.chance))) - 1
    reached = TAIL + tail[1] / tail[0] * 7 * growth  # (1 - 1/8) / (1/8) = 7
    return min(max(reached, rule.z), rule.z + rule.lift)
