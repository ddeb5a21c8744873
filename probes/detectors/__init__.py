"""The detectors, one file each; the folder is the registry.

A detector judges every step of **one** series of non-negative numbers (a layer's gradient norm, RMS_t, the loss). Its
file holds a frozen dataclass `Thresholds`, which validates itself and has at least `merge` (flagged steps at most this
many measured steps apart form one event), and one pure function

    detect(values: f64[n], state: State | None, thresholds: Thresholds) -> tuple[Scores, State]

that takes the next `n` values and what it returned last time (None at the start). The state is explicit and plain JSON:
nothing else is remembered, so a block of a million values, a million blocks of one, and a run resumed from a checkpoint
give identical scores. A detector never looks ahead, leaves the state it was given as it is, gives every flagged step a
score (inf if need be, not NaN), and flags every non-finite value as `NONFINITE` without letting it into its baseline.
Grouping flagged steps into events is the business of `foreshock.probes.grouping`. To add a detector, add a file.

Two functions more a file may have:
- `finish(state, thresholds) -> tuple[Scores, State]`: the detector needs to know what follows a step. Then `detect`
  returns the scores of those steps, in order, that it can judge by now, and `finish`, at the end, of the rest.
- `rule(thresholds) -> foreshock.probes.robust_scan.Rule`: it is one of the robust family, whose kernel judges all
  layers at once, with the same result as `detect`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..robust_scan import Rule

__all__ = [
    "CALM",
    "FLAGGED",
    "LEVEL_SHIFT",
    "NONFINITE",
    "Detector",
    "Scores",
    "State",
    "detector",
    "known",
    "require",
]

CALM, FLAGGED, LEVEL_SHIFT, NONFINITE = range(4)
"""What a step is. LEVEL_SHIFT: flagged, and the step after which the detector took the new level as its baseline."""

State = dict[str, Any]


class Scores(NamedTuple):
    """A detector's verdict on `n` steps.

    Attributes:
        flags: u8[n], one of CALM, FLAGGED, LEVEL_SHIFT, NONFINITE.
        score: f64[n], the detector's own statistic (z for most); NaN while there is no baseline yet.
        baseline: f64[n], the value it was compared with, in the series' unit; NaN while there is none.
    """

    flags: np.ndarray
    score: np.ndarray
    baseline: np.ndarray

    @staticmethod
    def blank(values: np.ndarray) -> Scores:
        """Scores before judging `values`: calm and unknown, but NONFINITE with score inf where a value is not finite.

        >>> Scores.blank(np.array([1.0, np.nan])).flags.sum()
        np.uint64(3)
        """
        broken = ~np.isfinite(values)
        unknown = np.full(len(values), np.nan)
        return Scores(np.where(broken, NONFINITE, CALM).astype(np.uint8), np.where(broken, np.inf, np.nan), unknown)


@dataclass(frozen=True)
class Detector:
    """A loaded detector: its name, the class of its thresholds, and its functions; None for those it does without."""

    name: str
    Thresholds: type[Any]
    detect: Callable[[np.ndarray, State | None, Any], tuple[Scores, State]]
    finish: Callable[[State | None, Any], tuple[Scores, State]] | None = None
    rule: Callable[[Any], Rule] | None = None

    def configure(self, given: Mapping[str, float]) -> Any:
        """Its thresholds, those in `given` changed; ValueError names an unknown one and lists the allowed.

        >>> detector("robust").configure({"ratio": 3}).ratio
        3
        """
        allowed = sorted(field.name for field in fields(self.Thresholds))
        for name in given:
            if name not in allowed:
                raise ValueError(
                    f"unknown threshold {name!r} for detector {self.name!r}; allowed are {', '.join(allowed)}"
                )
        return self.Thresholds(**given)


def known() -> tuple[str, ...]:
    """Name the detectors in this folder, in alphabetical order.

    >>> "robust" in known()
    True
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def detector(name: str) -> Detector:
    """Load a detector by the name of its file.

    Raises:
        ValueError: there is no such file; the message lists those there are.

    >>> detector("robust").Thresholds().ratio
    2.0
    """
    if name not in known():
        raise ValueError(f"unknown detector {name!r}; known are {', '.join(known())}")
    module = importlib.import_module(f"{__name__}.{name}")
    optional = getattr(module, "finish", None), getattr(module, "rule", None)
    return Detector(name, module.Thresholds, module.detect, *optional)


def require(thresholds: object, name: str, *, low: float, high: float = np.inf, strict: bool = False) -> None:
    """Raise ValueError unless threshold `name` is a number from `low` (beyond it if `strict`) to `high`.

    A threshold whose default is an int must be one: half a step is no window.
    """
    value = getattr(thresholds, name)
    whole = isinstance(getattr(type(thresholds), name), int)
    sort = "a whole number" if whole else "a number"
    good = isinstance(value, int | np.integer) if whole else isinstance(value, int | float | np.number)
    if isinstance(value, bool) or not good or not (low < value if strict else low <= value) or not value <= high:
        bound = f"{'above' if strict else 'at least'} {low:g}" + (f", at most {high:g}" if high < np.inf else "")
        raise ValueError(f"threshold {name}={value!r} must be {sort} {bound}")
