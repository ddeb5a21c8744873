"""Settings of how spikes are told while a run goes, as a frozen dataclass; without any of them nobody is told."""

__all__ = ["AlertConfig"]

from dataclasses import dataclass


@dataclass(frozen=True)
class AlertConfig:
    """Tell each gradient spike as soon as it is over, by as many of these as are wanted; the trace then notes it too.

    Over a run and those that resume it each spike is told once; but those that a killed run told of the steps after its
    last checkpoint are told again, when these steps are made again.
    """

    line: bool = False
    """Print a line in the terminal."""
    file: str | None = None
    """Append each spike to this file, one JSON object a line."""
    webhook: str | None = None
    """Post each spike as JSON (a sentence in `text`) to this http or https URL, of which traces and checkpoints keep
    the host only. Training never waits for it."""
