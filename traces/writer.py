"""TraceWriter: takes rows, one a step, from a training loop and commits them about once a second off its thread."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from operator import index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from .committer import Committer
from .documents import plain
from .errors import TraceWriteError
from .flights import FlightSpike, window_of
from .opening import begin, check_place, resume
from .places import place_of
from .rows import RowBlock, RowLayout
from .schema import GRAD_NORM, Series, check_layers

__all__ = ["TraceWriter"]

_BUFFER_BYTES = 64 << 20


class TraceWriter:
    """Writes the trace of a run into the folder `path`, where others may read it at any time.

    `path` may also be a URL that fsspec understands, such as `s3://bucket/runs/a`.

    layers: the layers' names, the order of every layer series' first axis. series: the layer series (and scalars
    with a unit of their own); any other number given to `append` is a scalar. config, meta: kept in the trace.
    parameters: `{parameter name: layer}`, for `add_flight`; without them the trace has no flight recorder.

    A trace that is there already raises TraceExistsError, unless `overwrite` replaces it, or `resume_at=s`
    continues it: its rows of step s and later are dropped. TraceLockedError: somebody else is writing it.

    fsync: wait at each commit until the disk has it, so that a loss of power costs no committed row either.
    rounding_bits: keep so many bits of the mantissa of layer series (11: a relative error of at most 2.4e-4, in half
    the bytes); scalars keep all. A resumed trace goes on as it was begun.

    `append` and `extend` only hand rows over. A thread commits them after `flush_rows` rows or `flush_seconds`
    seconds; a failing disk never raises here: it is logged once, rows are kept (up to 64 MiB) and tried again. With
    `background=False` the caller's own thread commits. One thread may append at a time.

    >>> import tempfile
    >>> from foreshock.traces import open_trace
    >>> folder = tempfile.TemporaryDirectory()
    >>> with TraceWriter(folder.name + "/a", layers=["patch_embed", "norm"]) as writer:
    ...     for step in range(100):
    ...         writer.append(step, {"grad_norm": np.full(2, step), "loss": 1 / (step + 1)})
    >>> len(open_trace(folder.name + "/a"))
    100
    >>> with TraceWriter(folder.name + "/a", layers=["patch_embed", "norm"], resume_at=60) as writer:
    ...     writer.append(60, {"loss": 0.5})
    >>> trace = open_trace(folder.name + "/a")
    >>> len(trace), trace["loss"][-1].item(), trace["grad_norm"][:, -1].tolist(), trace.generation
    (61, 0.5, [nan, nan], 1)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        layers: Sequence[str],
        series: Sequence[Series] = (GRAD_NORM,),
        parameters: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        resume_at: int | None = None,
        overwrite: bool = False,
        flush_rows: int = 256,
        flush_seconds: float = 1.0,
        background: bool = True,
        fsync: bool = False,
        rounding_bits: int | None = None,
    ) -> None:
        place = place_of(path, fsync)
        self.location = place.location
        self.path = Path(place.location)
        self.layers = check_layers(layers)
        if rounding_bits is not None and not 1 <= rounding_bits <= 52:
            raise ValueError(
                f"rounding_bits is {rounding_bits}; give 1 to 52 bits of mantissa, or None to keep them all"
            )
        if flush_rows < 1 or not flush_seconds > 0:
            raise ValueError(f"flush_rows={flush_rows} and flush_seconds={flush_seconds} must both be positive")
        check_place(place, resume_at, overwrite)
        self._pid = os.getpid()
        self._closed = False
        self._lock = place.lock()
        try:
            check_place(place, resume_at, overwrite)  # again, now that nobody else can write
            if resume_at is None:
                files = begin(place, self.layers, series, parameters, config, meta, rounding_bits)
            else:
                files = resume(place, self.layers, series, parameters, resume_at, config, meta)
        except BaseException:
            self._lock.release()
            raise
        self._last_step, self._flight = files.last_step, files.flight
        self.flight_windows = [dict(window) for window in files.flight.windows] if files.flight else []
        kinds = {name: table.values.dtype for name, table in files.tables.items()}
        self._layout = RowLayout(len(self.layers), kinds, list(files.scalars))
        self._committer = Committer(
            files,
            self._lock,
            lambda: RowBlock(flush_rows, self._layout),
            max_rows=max(4 * flush_rows, _BUFFER_BYTES // self._layout.row_bytes),
            flush_seconds=flush_seconds,
            background=background,
        )
        atexit.register(self._flush_at_exit)

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row: a number for each scalar, [L] for each layer series; what is missing reads as NaN.

        A scalar by a new name begins here. Raises ValueError if `step` isn't greater than the last one, or if a
        value has another shape; the row is then not appended.
        """
        step = index(step)
        with self._committer.changed:
            self._check_next(step)
            block = self._committer.room()
            try:
                block.steps[block.rows] = step
                self._layout.fill(block, values)
            except BaseException:
                block.clear_row()
                raise
            block.rows += 1
            self._last_step = step

    def extend(self, steps: np.ndarray, values: Mapping[str, Any]) -> None:
        """Append n rows at once: steps i64[n], [n] for each scalar, [L, n] for each layer series.

        Raises ValueError if the steps don't increase strictly, or if an array has another shape; then no row is
        appended.
        """
        steps = np.asarray(steps)
        if steps.ndim != 1 or (steps.size and steps.dtype.kind not in "iu"):
            raise ValueError(f"steps has shape {steps.shape} and type {steps.dtype}; give integers in one dimension")
        if not steps.size:
            return
        late = np.flatnonzero(steps[1:] <= steps[:-1])
        if late.size:
            raise _not_increasing(int(steps[late[0] + 1]), int(steps[late[0]]))
        with self._committer.changed:
            self._check_next(int(steps[0]))
            layer_rows, scalar_rows = self._layout.split(values, len(steps))
            done = 0
            while done < len(steps):
                block = self._committer.room()
                block.reserve_scalars()
                count = min(block.room, len(steps) - done)
                ours, theirs = slice(block.rows, block.rows + count), slice(done, done + count)
                block.steps[ours] = steps[theirs]
                for name, array in layer_rows.items():
                    block.layers[name][ours] = array[:, theirs].T
                for column, array in scalar_rows.items():
                    block.scalars[ours, column] = array[theirs]
                block.rows += count
                done += count
            self._last_step = int(steps[-1])

    def event(self, step: int, kind: str, text: str) -> None:
        """Keep a remark about a step in the trace, such as a spike, a restart or a change of the learning rate."""
        with self._committer.changed:
            self._check_open()
            self._committer.add_event({"step": index(step), "kind": str(kind), "text": str(text)})

    def add_flight(
        self,
        steps: np.ndarray,
        grad_norm: np.ndarray,
        *,
        cause: Literal["spike", "error"] = "spike",
        spikes: Sequence[FlightSpike] = (),
        spike_count: int | None = None,
        cut: bool = False,
        extend: bool = False,
    ) -> None:
        """Keep a window of the flight recorder: steps i64[n] and the norms of the trace's `parameters`, [P, n].

        With `extend` the rows belong to the last window, of which the rest then says all that is known. Raises
        ValueError for other shapes, steps that don't increase, and a trace without parameters.
        """
        with self._committer.changed:
            self._check_open()
            if self._flight is None:
                raise ValueError(f"{self.location} has no flight recorder: give the writer parameters={{name: layer}}")
            told = window_of(cause, spikes, len(spikes) if spike_count is None else spike_count, cut)
            self._committer.add_flight(*self._flight.checked(steps, grad_norm), told, extend)

    def update_meta(self, **meta: Any) -> None:
        """Set entries of the trace's free-form `meta`."""
        with self._committer.changed:
            self._check_open()
            self._committer.meta.update(plain(meta))
            self._committer.touched = True

    def flush(self) -> bool:
        """Wait until everything appended so far is committed; False if the disk fails (that was logged)."""
        self._check_open()
        return self._committer.flush()

    def close(self, status: str = "finished", message: str = "") -> None:
        """Commit what is left, with a status ("finished" or "failed") and a one-line message, and end the thread.

        Raises TraceWriteError if rows could not be committed. Closing twice does nothing.
        """
        if status not in ("finished", "failed"):
            raise ValueError(f"status is {status!r}; use 'finished' or 'failed'")
        if self._closed or os.getpid() != self._pid:  # a forked child must not end its parent's trace
            return
        self._closed = True
        atexit.unregister(self._flush_at_exit)
        done = self._committer.stop(status, message)
        if not self._committer.alive:
            self._lock.release()
        if not done:
            error = self._committer.failure
            raise TraceWriteError(
                f"the last rows of {self.location} are lost, up to step {self._last_step}: {error}; the trace holds "
                f"what was committed before"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        lines = str(error).strip().splitlines()
        try:
            self.close("failed", ": ".join([type(error).__name__, *lines[:1]]))
        except TraceWriteError as lost:
            error.add_note(str(lost))  # the error that ended the run is the one to see

    def _check_open(self) -> None:
        if self._closed or os.getpid() != self._pid:
            owner = "it is closed" if self._closed else f"it belongs to process {self._pid}"
            raise ValueError(f"the writer of {self.location} can't be used: {owner}; open another with resume_at")

    def _check_next(self, step: int) -> None:
        if self._closed:
            self._check_open()
        if self._last_step is not None and step <= self._last_step:
            raise _not_increasing(step, self._last_step)

    def _flush_at_exit(self) -> None:
        # A script that forgot close(): the rows are worth having, the status stays "running".
        if not self._closed and os.getpid() == self._pid:
            self._committer.flush(30.0)


def _not_increasing(step: int, last: int) -> ValueError:
    return ValueError(
        f"step {step} was given after step {last}; steps must increase strictly: "
        f"reopen the trace with resume_at={step} to go back"
    )
