"""What a run says while it runs: a bar in a terminal, lines elsewhere; times are in seconds."""

__all__ = ["Progress", "duration"]

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts steps from `start` to `total`; a context manager.

    >>> with Progress(0, 900, Console(width=120)) as progress:
    ...     progress.advance()
    ...     progress.show(0, {"loss": 4.43, "lr": 0.0}, every=1)
    step   0/900  loss 4.430  lr 0
    """

    def __init__(self, start: int, total: int, console: Console | None = None) -> None:
        self.start, self.total = start, total
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._began = self._last = time.perf_counter()
        self._bar: Bar | None = None
        if self._console.is_terminal:
            columns = (BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=total, completed=start)

    def __enter__(self) -> Self:
        self._began = self._last = time.perf_counter()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Time since the start of the loop."""
        return time.perf_counter() - self._began

    def advance(self) -> None:
        """A step is done."""
        if self._bar:
            self._bar.advance(self._task)

    def show(self, step: int, values: Mapping[str, float], every: int) -> None:
        """Show what `step` measured; `every` is the number of steps since the last call."""
        now = time.perf_counter()
        shown = "  ".join(f"{name} {_short(name, value)}" for name, value in values.items())
        rate = every / (now - self._last)
        self._last = now
        if self._bar:
            self._bar.update(self._task, description=shown)
        elif step == self.start:
            self.say(f"step {step:>{len(str(self.total))}}/{self.total}  {shown}")
        else:
            left = duration((self.total - step - 1) / rate)
            self.say(f"step {step:>{len(str(self.total))}}/{self.total}  {shown}  {rate:.1f} steps/s  {left} left")

    def say(self, text: str, style: str = "") -> None:
        """Print a line, above the bar if there is one; from any thread."""
        self._console.print(text, markup=False, style=style)


def _short(name: str, value: float) -> str:
    return f"{value:.3g}" if name == "lr" else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725), duration(65)
    ('1:02:05', '1:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
