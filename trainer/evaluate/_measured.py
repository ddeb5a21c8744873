"""The outcome of an evaluation: accuracies from 0 to 1, each with the protocol that it was measured by."""

__all__ = ["Measured", "accuracy"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...probes.coincidence import rate


@dataclass(frozen=True)
class Measured:
    """Results of one protocol on one checkpoint."""

    name: str
    protocol: Mapping[str, Any]
    """What was evaluated, on what, and how: goes with every number below."""
    results: Sequence[Mapping[str, Any]]
    """The table, a mapping a row."""
    headline: Mapping[str, Any]
    """The row to report."""
    notes: Sequence[str] = ()
    """What the reader should know, as sentences."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "evaluation": self.name,
            "protocol": dict(self.protocol),
            "headline": dict(self.headline),
            "results": [dict(row) for row in self.results],
            "notes": list(self.notes),
        }


def accuracy(right: int, images: int) -> dict[str, float]:
    """The share of `images` that are right, with its 95 % Wilson interval.

    >>> {name: round(value, 3) for name, value in accuracy(90, 100).items()}
    {'accuracy': 0.9, 'low': 0.826, 'high': 0.945}
    """
    share = rate(right, images)
    return {"accuracy": share.value, "low": share.low, "high": share.high}
