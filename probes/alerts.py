"""Spikes told while the run goes: the detector on the rows as they are handed to the writer, never inside a step."""

from __future__ import annotations

__all__ = ["Alerts", "json_lines", "print_line", "webhook"]

import json
import logging
import queue
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from http.client import HTTPException
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
    A run that is resumed goes on from `state_dict()`; without it a baseline of 64 steps is needed before any is found.

    A callback that raises is logged, and doesn't stop the run or the other callbacks; one with a `close()` is closed at
    the end. `wait()` returns when all rows so far have been looked at. `thresholds` are the detector's. With `flight`
    the same thread feeds a flight recorder.

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
        self.tell_open = True  # at the end; False where another process goes on from `state_dict()`
        self._in_trace: set[tuple[int, str]] = set()
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
            for spike in still_open if self.tell_open else ():
                self._tell(spike)
            if self._flight is not None:
                self._flight.close(status, still_open)
            for callback in self.on_spike:
                if hasattr(callback, "close"):
                    callback.close()  # pyright: ignore[reportFunctionMemberAccess]
        self.writer.close(status, message)

    def state_dict(self) -> dict[str, Any]:
        """The detector's memory, spikes under way included, as plain values; call `wait()` first."""
        return self._finder.state_dict()

    def load_state_dict(self, state: dict[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> None:
        """Go on from `state_dict()`; what stands among `events`, the trace's, was told and is not told again.

        Raises ValueError for the state of another detector or of other layers.
        """
        self._finder.load_state_dict(state)
        self._in_trace = {(event["step"], event["text"]) for event in events if event["kind"] == "spike"}

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
        text = in_words(spike)
        if (spike.peak, text) in self._in_trace:
            return
        for callback in self.on_spike:
            try:
                callback(spike)
            except Exception:  # an alert must never end the run that it is about; it is logged, with its traceback
                _log.exception("foreshock: an on_spike callback failed on %s", text)
        self.writer.event(spike.peak, "spike", text)  # last: killed in between, a run tells it twice rather than never


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
    """A callback that appends each spike to the file `path`, one JSON object a line.

    The file is made at once, with its folder; OSError if that can't be.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    def write(spike: Spike) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(plain(asdict(spike)), allow_nan=False) + "\n")

    return write


def webhook(url: str, *, seconds: float = WEBHOOK_SECONDS, failed: Callable[[str], object] | None = None) -> _Webhook:
    """A callback that posts each spike as JSON (`text` and the fields of `Spike`) to `url`, in a thread of its own.

    A post that fails or takes longer than `seconds` is not tried again: `failed` gets a sentence on it, by default it
    is logged. Training never waits for a post; its end does, for at most `seconds`. Raises ValueError for a URL that is
    not http or https.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the webhook {url!r} must begin with http:// or https://, and name a host")
    return _Webhook(url, parts.hostname, seconds, failed or _log_failure)


class _Webhook:
    """What `webhook` returns. It names the host only: whoever has the whole URL can post to it."""

    def __init__(self, url: str, host: str, seconds: float, failed: Callable[[str], object]) -> None:
        self._url, self._host, self._seconds, self._failed = url, host, seconds, failed
        self._waiting: queue.Queue[Spike] = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._post_all, name="foreshock-webhook", daemon=True).start()

    def __call__(self, spike: Spike) -> None:
        try:
            self._waiting.put_nowait(spike)
        except queue.Full:
            self._lose(spike, f"{MOST_WAITING} others wait already")

    def wait(self, seconds: float | None = None) -> int:
        """Wait until every alert has gone out or failed, but no longer than `seconds`; how many are left."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, seconds)
            return self._waiting.unfinished_tasks

    def close(self) -> None:
        """Give what is on its way the time of one post."""
        if left := self.wait(self._seconds):
            self._failed(f"the webhook {self._host} was too slow at the end: {left} alerts did not reach it")

    def _post_all(self) -> None:
        while True:
            spike = self._waiting.get()
            body = json.dumps({"text": in_words(spike)} | plain(asdict(spike)), allow_nan=False).encode()
            try:
                request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310
                with urllib.request.urlopen(request, timeout=self._seconds):  # noqa: S310
                    pass
            except (OSError, HTTPException, ValueError) as error:  # no answer, no HTTP, no URL
                self._lose(spike, str(error) or type(error).__name__)
            finally:
                self._waiting.task_done()

    def _lose(self, spike: Spike, reason: str) -> None:
        self._failed(f"the webhook {self._host} did not take the alert that {in_words(spike)}: {reason}")


def _log_failure(text: str) -> None:
    _log.warning("foreshock: %s", text)
