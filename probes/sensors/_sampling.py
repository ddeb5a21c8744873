"""The turn of a sensor that measures every E-th step only; the other steps are NaN."""

from __future__ import annotations

__all__ = ["Sampling"]


class Sampling:
    """Counts the steps on the host: the first is a sample, then every `every`-th.

    `observed` is the number of steps so far. A run that resumes sets it, and samples the same steps as one that was
    never stopped. Raises ValueError for `every` below 1.

    >>> sampling = Sampling(3)
    >>> [sampling.take_turn() for _ in range(5)]
    [True, False, False, True, False]
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        self.every, self.observed = every, 0

    @property
    def due(self) -> bool:
        """Whether the step under way is a sample."""
        return self.observed % self.every == 0

    def take_turn(self) -> bool:
        """End the step: whether it was a sample."""
        due = self.due
        self.observed += 1
        return due
