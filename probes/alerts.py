"""Spikes told while the run goes: the detector on the rows as they are handed to the writer, never inside a step."""

from __future__ import annotations

__all__ = ["Alerts", "json_lines", "print_line", "webhook"]

import json
import logging
import queue
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .flight import BY_PARAMETER, FlightRecorder
from .records import plain
from .spikes import Spike, SpikeFinder

OnSpike = Callable[[Spike], object]
WEBHOOK_SECONDS = 5.0
PIECE = 64  # rows the flight recorder takes at a time: it must hear of a spike while it has the steps before it
MOST_WAITING = 100  # alerts on their way to a webhook; more are dropped, and counted

_log = logging.getLogger(__name__)


class Alerts:
    """A `TraceWriter` that also looks for spikes in the rows it is handed, and tells each as soon as it is over.

    It stands in the place of the writer: `Recorder(Alerts(writer, on_spike=[print_line]), sensors)`, which is what
    `watch(..., on_spike=...)` does. The recorder hands rows over in blocks (64 steps or some seconds); detector and
    callbacks run in a thread of their own, so no step waits for them, and an alert comes at most a block after its
    spike has closed. Spikes still open at the end are told then. Each is also an event of kind `spike` in the trace.
    After the start of a resumed run it needs a baseline of 64 steps before it finds any.

    A callback that raises is logged, and doesn't stop the run or the other callbacks. `wait()` returns when all rows so
    far have been looked at. `thresholds` are the detector's. With `flight` the same thread feeds a flight recorder.

    Raises ValueError for an unknown detector or threshold.

    >>> class Writer:
    ...     layers = ("patch_embed",)
    ...     def extend(self, steps, values): pass
    ...     def event(self, step, kind, text): print(step, kind, text)
    ...     def close(self, status="finished", message=""): pass
    >>> alerts = Alerts(Writer(), on_spike=[], detector="robust_z")
    >>> norms = np.full((1, 200), 0.5); norms[0, 150] = 4.0
    >>> alerts.extend(np.arange(200), {"grad_norm": norms}); alerts.wait()
    150 spike patch_embed rose 8.0-fold at step 150
    """

    def __init__(
        self,
        writer: Any,
        on_spike: OnSpike | Sequence[OnSpike],
        *,
        detector: str = "robust",
        warmup_steps: int = 0,
        flight: FlightRecorder | None = None,
        **thresholds: float,
    ) -> None:
        self.writer, self.layers = writer, tuple(writer.layers)
        self.on_spike = (on_spike,) if callable(on_spike) else tuple(on_spike)
        # NaN is a layer that was not measured: the sensors record a broken gradient as Inf.
        self._finder = SpikeFinder(self.layers, detector, warmup_steps, nan="gap", **thresholds)
        self._flight = flight
        self._rows: queue.Queue[tuple[np.ndarray, np.ndarray, np.ndarray | None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._look, name="foreshock-alerts", daemon=True)
        self._thread.start()

    def extend(self, steps: np.ndarray, values: Mapping[str, Any]) -> None:
        """Hand rows on to the writer, and to the thread that looks at them."""
        details = values.get(BY_PARAMETER)
        self.writer.extend(steps, {name: value for name, value in values.items() if name != BY_PARAMETER})
        if "grad_norm" in values:
            self._rows.put((np.array(steps), np.array(values["grad_norm"], float), details))

    def wait(self) -> None:
        """Wait until all rows so far have been looked at."""
        self._rows.join()

    def close(self, status: str = "finished", message: str = "") -> None:
        """Look at what is left, tell the spikes that are still open, and close the writer."""
        if self._thread.is_alive():
            self._rows.put(None)
            self._thread.join()
            still_open = self._finder.close()
            for spike in still_open:
                self._tell(spike)
            if self._flight is not None:
                self._flight.close(status, still_open)
        self.writer.close(status, message)

    def _look(self) -> None:
        while (rows := self._rows.get()) is not None:
            steps, norms, details = rows
            piece = len(steps) if self._flight is None else PIECE
            for start in range(0, len(steps), piece):
                at = slice(start, start + piece)
                try:
                    self._look_at(steps[at], norms[:, at], None if details is None else details[:, at])
                except Exception:  # this thread is not the training: it tells what is wrong and goes on
                    _log.exception("foreshock: could not look for spikes from step %s on", steps[at][:1])
            self._rows.task_done()

    def _look_at(self, steps: np.ndarray, norms: np.ndarray, details: np.ndarray | None) -> None:
        closed: list[Spike] = []
        try:
            closed = self._finder.update(steps, norms)
        finally:  # what the detector refuses is recorded all the same
            if self._flight is not None and details is not None:
                self._flight.feed(steps, details, [*closed, *self._finder.open_events()])
        for spike in closed:
            self._tell(spike)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)  # event, flush, path and whatever else a writer has

    def _tell(self, spike: Spike) -> None:
        self.writer.event(spike.peak, "spike", in_words(spike))
        for callback in self.on_spike:
            try:
                callback(spike)
            except Exception:  # an alert must never end the run that it is about; it is logged, with its traceback
                _log.exception("foreshock: an on_spike callback failed on %s", in_words(spike))


def in_words(spike: Spike) -> str:
    """A spike as a phrase.

    >>> in_words(Spike("norm", 7, 7, 8, 9, 3.25, 6.0, 1.0, "level_shift", warmup=True))
    'norm rose 3.2-fold at step 7 and stayed (warm-up)'
    """
    if spike.kind == "nonfinite":
        text = f"{spike.layer} was not finite at step {spike.onset}"
    else:
        stayed = " and stayed" if spike.kind == "level_shift" else ""
        text = f"{spike.layer} rose {spike.ratio:.1f}-fold at step {spike.onset}{stayed}"
    return text + (" (warm-up)" if spike.warmup else "")


def print_line(spike: Spike) -> None:
    """Print a spike as a line in the terminal, on standard error."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[bold yellow]spike[/] {escape(in_words(spike))}", highlight=False)


def json_lines(path: str | PathLike[str]) -> OnSpike:
    """A callback that appends each spike to the file `path`, one JSON object a line."""

    def write(spike: Spike) -> None:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(asdict(spike)), allow_nan=False) + "\n")

    return write


def webhook(url: str, *, seconds: float = WEBHOOK_SECONDS) -> OnSpike:
    """A callback that posts each spike as JSON (`text` and the fields of `Spike`) to `url`, in a thread of its own.

    A post that fails or takes longer than `seconds` is logged and not tried again; training never waits for it. Raises
    ValueError for a URL that is not http or https.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"the webhook {url!r} must begin with http:// or https://")
    waiting: queue.Queue[Spike] = queue.Queue(MOST_WAITING)

    def post() -> None:
        while True:
            spike = waiting.get()
            body = json.dumps({"text": in_words(spike)} | plain(asdict(spike)), allow_nan=False).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                    pass
            except OSError as error:
                _log.warning("foreshock: the webhook %s did not take an alert: %s", url, error)
            finally:
                waiting.task_done()

    thread = threading.Thread(target=post, name="foreshock-webhook", daemon=True)
    thread.start()

    def send(spike: Spike) -> None:
        waiting.put_nowait(spike)  # queue.Full is logged by whoever calls

    send.wait = waiting.join  # pyright: ignore[reportFunctionMemberAccess]
    return send
