"""How long before a dip the warning comes, in steps, with a bootstrap interval over events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LeadTime", "bootstrap_median", "in_words", "lead_time"]


@dataclass(frozen=True)
class LeadTime:
    """Steps from the nearest spike before a dip to that dip.

    Attributes:
        events: dips with a spike in the window.
        median: median over them of `onset_by` minus the spike's onset. The dip began by then, so this is an upper
            bound; NaN without events.
        low: lower end of the 95 % percentile bootstrap interval, dips drawn with replacement (Efron 1979).
        high: upper end.
        earliest: median of the lower bounds, max(1, onset_after + 1 - onset): the dip can't have begun before. The two
            medians are as far apart as the evaluations.
        chance: what the median would be if the same number of dips fell into the windows by chance: about (L + 1) / 2
            plus the width of the onset intervals. A median near it says nothing about a mechanism.
    """

    events: int
    median: float
    low: float
    high: float
    earliest: float
    chance: float


def in_words(lead: LeadTime) -> str:
    """The median with its interval, which a single event doesn't have.

    >>> in_words(LeadTime(3, 12.0, 10.0, 15.0, 11.0, 8.0)), in_words(LeadTime(0, math.nan, -1.0, 1.0, math.nan, 8.0))
    ('12 [10, 15]', '–')
    """
    if not lead.events:
        return "–"
    return f"{lead.median:g}" if lead.events == 1 else f"{lead.median:g} [{lead.low:g}, {lead.high:g}]"


def lead_time(
    upper: Sequence[int] | np.ndarray, lower: Sequence[int] | np.ndarray, chance: float, rng: np.random.Generator
) -> LeadTime:
    """Summarise the leads of the dips that had a warning.

    Args:
        upper: i64[n], `onset_by` minus onset, in steps.
        lower: i64[n], the least the lead can have been.
        chance: the median lead of surrogates.
        rng: the source of chance for the bootstrap.

    >>> lead_time([10, 12, 14, 20, 22], [9, 11, 13, 19, 21], 16.0, np.random.default_rng(0)).median
    14.0
    """
    if not len(upper):
        return LeadTime(0, math.nan, math.nan, math.nan, math.nan, chance)
    low, high = bootstrap_median(np.asarray(upper), rng)
    return LeadTime(len(upper), float(np.median(upper)), low, high, float(np.median(lower)), chance)


def bootstrap_median(
    values: np.ndarray, rng: np.random.Generator, *, draws: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median of [n] independent values.

    A single value gives (-inf, inf): one event says nothing about the scatter of events.

    >>> low, high = bootstrap_median(np.arange(1.0, 10.0), np.random.default_rng(0))
    >>> bool(low < 5 < high)
    True
    """
    if len(values) < 2:
        return -math.inf, math.inf
    medians = np.median(values[rng.integers(0, len(values), (draws, len(values)))], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
