"""What befell a run as a whole: divergence, collapse, plateau, each with its step, its evidence and a sentence.

A curve (loss, kNN accuracy, spread of the features) is cut into at most 100 pieces of 5 values or more, and their
medians are compared: single steps, and spikes, decide nothing. Curves of fewer than 50 values are too short to tell,
except that a loss which ends in values that are not finite has diverged whatever its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .rolling import CONSISTENT
from .series import is_trace, step_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["Finding", "find_collapse", "find_divergence", "find_feature_collapse", "find_plateau", "findings"]

Kind = Literal["divergence", "collapse", "plateau"]
_FEWEST = 50  # values of a curve
_LASTING = 0.05  # share of the run for which something must have stayed to be for good
_LONG = 0.25  # share of the run without progress that makes a plateau
_COLLAPSED = 0.1  # of the spread that features have when they fill the sphere


@dataclass(frozen=True)
class Finding:
    """One thing that befell a run.

    Attributes:
        kind: `divergence`: the loss left the finite numbers or rises, for good; `collapse`: the features carry nothing
            any more; `plateau`: no progress for a quarter of the run or more.
        series: the curve that shows it.
        step: where it began; of a rise, where half of it was done. Good to a hundredth of the run.
        evidence: the numbers behind it, in the curve's own unit, by name.
        text: a sentence.
    """

    kind: Kind
    series: str
    step: int
    evidence: Mapping[str, float] = field(hash=False)
    text: str


def findings(trace: Trace, *, chance: float | None = None) -> list[Finding]:
    """Everything that the curves of a trace show, by step.

    Args:
        trace: its scalars `loss`, `knn_accuracy` and `feature_std` are looked at, those that it has.
        chance: kNN accuracy of guessing, such as 1 / classes (default: from the trace's `meta["knn"]["classes"]`; where
            that is missing too, the kNN curve is not searched for a collapse).

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter, open_trace
    >>> folder = tempfile.TemporaryDirectory()
    >>> with TraceWriter(folder.name + "/a", layers=["norm"]) as writer:
    ...     writer.extend(np.arange(400), {"loss": np.r_[np.linspace(7, 3, 300), np.linspace(3, 8, 100)]})
    >>> found, = findings(open_trace(folder.name + "/a"))
    >>> found.kind, found.text
    ('divergence', 'The loss rises for good from step 345: from 3.03 to 7.65 at the end.')
    >>> folder.cleanup()
    """
    steps, known = trace.steps, trace.scalars
    classes = (trace.meta.get("knn") or {}).get("classes")
    chance = 1 / classes if chance is None and classes else chance
    found: list[Finding | None] = []
    if "loss" in known:
        found.append(find_divergence(trace["loss"], steps, every_step=False))
        if found[-1] is None:
            found.append(find_plateau(trace["loss"], steps, series="loss"))
    if "knn_accuracy" in known:
        curve = trace["knn_accuracy"]
        queries = float(np.nanmedian(trace["knn_queries"])) if "knn_queries" in known and len(steps) else None
        collapse = None if chance is None else find_collapse(curve, steps, chance=chance, queries=queries)
        found.append(collapse or find_plateau(curve, steps, series="knn_accuracy", rising=True))
    if "feature_std" in known:
        found.append(find_feature_collapse(trace["feature_std"], steps))
    return sorted((one for one in found if one is not None), key=lambda one: one.step)


def find_divergence(
    loss: ArrayLike, steps: ArrayLike | None = None, *, series: str = "loss", every_step: bool = True
) -> Finding | None:
    """Tell whether a loss ends in values that are not finite, or rises and stays up.

    It rises for good if, to the end and for a twentieth of the run, it stays above the middle between its lowest and
    its last level, and these are apart by a tenth of the way it had come, and by four standard errors.

    Args:
        loss: f[T]; NaN: not finite if `every_step`, else (in a trace) not measured, unless it was at nine in ten steps.
        steps: i64[T] (default: indices).

    >>> find_divergence([2.0, 1.9, float("nan"), float("nan")]).text
    'The loss is not finite from step 2 to the end.'
    """
    values, steps = _curve(loss, steps)
    finite = np.isfinite(values)
    last = int(np.flatnonzero(finite)[-1]) if finite.any() else -1
    tail = values[last + 1 :]
    promised = every_step or np.isinf(tail).any() or (last >= 0 and finite[: last + 1].mean() >= 0.9)
    if len(tail) and promised:
        step = int(steps[last + 1])
        text = f"The {series} is not finite from step {step} to the end."
        return Finding("divergence", series, step, {"steps": len(tail)}, text)
    pieces = _Pieces.of(values, steps)
    if pieces is None:
        return None
    best = int(pieces.level.argmin())
    lowest, final = float(pieces.level[best]), float(np.median(pieces.level[-3:]))
    come = float(pieces.level[: best + 1].max()) - lowest
    since = pieces.stays(lambda level: level > (lowest + final) / 2)
    if final - lowest < max(0.1 * come, 4 * pieces.error) or not pieces.lasting(since):
        return None
    step = int(pieces.start[since])
    evidence = {"lowest": lowest, "final": final, "lowest_at": int(pieces.start[best])}
    text = f"The {series} rises for good from step {step}: from {lowest:.3g} to {final:.3g} at the end."
    return Finding("divergence", series, step, evidence, text)


def find_collapse(
    accuracy: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    chance: float,
    queries: float | None = None,
    series: str = "knn_accuracy",
) -> Finding | None:
    """Tell whether an accuracy falls to that of guessing and stays there, or never leaves it.

    Args:
        accuracy: f[T], fractions, NaN where it was not evaluated.
        steps: i64[T] (default: indices).
        chance: accuracy of guessing. At chance is what is at most one point, or three standard errors, above it.
        queries: images behind one evaluation, for the standard error.

    >>> curve = np.r_[np.linspace(0.1, 0.6, 150), np.full(50, 0.1)]
    >>> find_collapse(curve, chance=0.1).text
    'The knn_accuracy is at chance (0.1) from step 150 to the end; it had reached 0.593.'
    """
    if not 0 < chance < 1:
        raise ValueError(f"chance is {chance!r}; give the accuracy of guessing, such as 0.1 for ten classes")
    pieces = _Pieces.of(*_curve(accuracy, steps))
    if pieces is None:
        return None
    error = math.sqrt(chance * (1 - chance) / queries) if queries else 0.0
    since = pieces.stays(lambda level: level <= chance + max(3 * error, 0.01))
    if not pieces.lasting(since):
        return None
    step, reached = int(pieces.start[since]), float(pieces.level.max())
    before = f"; it had reached {reached:.3g}" if since else ": it never left it"
    text = f"The {series} is at chance ({chance:.3g}) from step {step} to the end{before}."
    return Finding("collapse", series, step, {"chance": chance, "reached": reached}, text)


def find_feature_collapse(
    spread: ArrayLike, steps: ArrayLike | None = None, *, series: str = "feature_std"
) -> Finding | None:
    """Tell whether the features end as good as equal: a spread below a tenth of what it is when they fill the sphere.

    >>> find_feature_collapse(np.r_[np.full(100, 0.8), np.full(20, 0.01)]).step
    100
    """
    pieces = _Pieces.of(*_curve(spread, steps))
    since = None if pieces is None else pieces.stays(lambda level: level < _COLLAPSED)
    if pieces is None or since is None or not pieces.lasting(since):
        return None
    step, final = int(pieces.start[since]), float(pieces.level[-1])
    text = f"The features collapsed at step {step}: their spread is {final:.2g} at the end, where 1 fills the sphere."
    return Finding("collapse", series, step, {"final": final, "highest": float(pieces.level.max())}, text)


def find_plateau(
    curve: ArrayLike, steps: ArrayLike | None = None, *, series: str = "loss", rising: bool = False
) -> Finding | None:
    """Tell whether a curve made no progress for the last quarter of the run or more, after it had made some.

    Progress is a new best level, better by a hundredth of the way come so far and by two standard errors.

    Args:
        curve: f[T], NaN where it was not measured.
        steps: i64[T] (default: indices).
        rising: whether progress means a rise (an accuracy) or a fall (a loss).

    >>> find_plateau(np.r_[np.linspace(7, 3, 200), np.full(200, 3.0)]).step
    205
    """
    pieces = _Pieces.of(*_curve(curve, steps))
    if pieces is None:
        return None
    level = -pieces.level if rising else pieces.level
    best, last = float(level[0]), 0
    for i, now in enumerate(level.tolist()):
        if best - now > max(0.01 * (float(level[0]) - now), 2 * pieces.error):
            best, last = now, i
    since = last + 1
    if last == 0 or (len(level) - since) / len(level) < _LONG:
        return None
    step, share = int(pieces.start[since]), (len(level) - since) / len(level)
    best = -best if rising else best
    text = f"The {series} made no progress from step {step} on, {share:.0%} of the run: it stays at {best:.3g}."
    return Finding("plateau", series, step, {"best": best, "share": share}, text)


@dataclass(frozen=True)
class _Pieces:
    """Medians of a curve's pieces, the first step of each, and the standard error of one median."""

    level: np.ndarray
    start: np.ndarray
    error: float

    @staticmethod
    def of(values: np.ndarray, steps: np.ndarray) -> _Pieces | None:
        finite = np.isfinite(values)
        values, steps = values[finite], steps[finite]
        if len(values) < _FEWEST:
            return None
        pieces = np.array_split(np.arange(len(values)), min(100, len(values) // 5))
        level = np.array([np.median(values[piece]) for piece in pieces])
        around = np.concatenate([values[piece] - middle for piece, middle in zip(pieces, level, strict=True)])
        scatter = CONSISTENT * float(np.median(np.abs(around)))
        return _Pieces(level, steps[[piece[0] for piece in pieces]], 1.25 * scatter / math.sqrt(len(pieces[0])))

    def stays(self, holds: Callable[[np.ndarray], np.ndarray]) -> int:
        """The first piece from which on it holds to the end; their number if it doesn't at the end."""
        fails = np.flatnonzero(~holds(self.level))
        return int(fails[-1]) + 1 if len(fails) else 0

    def lasting(self, since: int) -> bool:
        return len(self.level) - since >= max(2, _LASTING * len(self.level))


def _curve(values: ArrayLike, steps: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    curve = np.asarray(values, float)
    if curve.ndim != 1 or is_trace(values):
        raise ValueError(f"the curve has shape {curve.shape}; give one series [T]")
    return curve, step_numbers(np.arange(len(curve)) if steps is None else steps, len(curve))
