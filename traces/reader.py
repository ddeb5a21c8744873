"""Reads a trace: steps are the trainer's own numbers, rows count from 0, times are in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import TraceError, UnknownSeriesError
from .event_log import merge_events
from .flights import Flight, flights_in
from .following import follow
from .frames import as_dataset, as_frame
from .overview import Overview, overview_cells
from .places import location_of
from .rows import Rows
from .schema import EVENTS
from .snapshot import Snapshot
from .steps import Steps

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["STALLED_AFTER", "Rows", "Trace", "open_trace"]

STALLED_AFTER = 60.0  # seconds without a commit after which a running trace counts as stalled


def open_trace(path_or_url: str | PathLike[str]) -> Trace:
    """Open the trace at a path, or at a URL that fsspec understands (`s3://…`), as of its last commit.

    Raises TraceNotFoundError, TraceForeignError (another kind of zarr store), TraceVersionError or
    TraceCorruptError; all are TraceError, which is a ValueError.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> with TraceWriter(folder.name + "/a", layers=["patch_embed", "norm"]) as writer:
    ...     writer.append(0, {"grad_norm": np.array([1.5, 0.5]), "loss": 7.25})
    >>> trace = open_trace(folder.name + "/a")
    >>> trace
    <Trace 'a': 1 step, 2 layers, finished>
    >>> trace["grad_norm"].tolist(), trace["loss"].tolist()
    ([[1.5], [0.5]], [7.25])
    >>> folder.cleanup()
    """
    return Trace(Snapshot(location_of(path_or_url)))


class Trace:
    """An immutable view of a trace as of one commit; `refresh()` gives a newer one.

    Reading raises TraceChangedError once the run was restarted from an earlier step: the rows of this snapshot
    may then be gone. Names of series and scalars are in `series` and `scalars`, all attributes in `attrs`.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> writer = TraceWriter(folder.name + "/a", layers=["patch_embed", "norm"])
    >>> writer.extend(np.arange(0, 50_000, 10), {"loss": np.where(np.arange(5000) == 777, 9.0, 1.0)})
    >>> writer.close()
    >>> trace = open_trace(folder.name + "/a")
    >>> trace.steps[-1].item(), trace.read("loss", start=776, stop=779).tolist(), trace.rows(95, 120)
    (49990, [1.0, 9.0, 1.0], slice(10, 13, None))
    >>> trace.since(49_970).steps.tolist(), sum(len(rows) for rows in trace.follow(after=40_000))
    ([49980, 49990], 999)
    >>> cells = trace.overview("loss", columns=100)
    >>> len(cells.max), cells.max.max().item(), cells.rows[0].item(), cells.first[cells.max.argmax()].item()
    (79, 9.0, 64, 7680)
    >>> trace.to_xarray()["loss"].sel(step=7770).item(), len(trace.refresh())
    (9.0, 5000)
    >>> float(trace.to_frame(start=770)["loss"].loc[7770])
    9.0
    >>> folder.cleanup()
    """

    def __init__(self, snapshot: Snapshot, known: Trace | None = None) -> None:
        record = snapshot.record
        self._snapshot = snapshot
        self._steps = Steps() if known is None else known._steps
        self._events: tuple[int, list[dict[str, Any]]] = (0, []) if known is None else known._events
        self.path = Path(snapshot.location)
        self.name: str = self.path.name
        self.layers: tuple[str, ...] = record.layers
        self.series: tuple[str, ...] = record.series
        self.scalars: tuple[str, ...] = record.scalars
        self.attrs: dict[str, Any] = record.attrs
        self.config: dict[str, Any] = record.attrs["config"]
        self.meta: dict[str, Any] = record.attrs["meta"]
        self.status: str = record.attrs["status"]
        self.message: str = record.attrs["message"]
        self.heartbeat: float = float(record.attrs["heartbeat"])
        self.generation: int = record.attrs["generation"]
        self.units: dict[str, str] = record.attrs["units"]

    def __repr__(self) -> str:
        steps = "1 step" if len(self) == 1 else f"{len(self)} steps"
        return f"<Trace {self.name!r}: {steps}, {len(self.layers)} layers, {self.state}>"

    def __len__(self) -> int:
        """The number of committed rows."""
        return self._snapshot.record.rows

    def __contains__(self, name: object) -> bool:
        return name in self.series or name in self.scalars or name == "step"

    @property
    def state(self) -> str:
        """ "running", "finished" or "failed" as written, or "stalled": running, but no commit for 60 s."""
        silent = self.status == "running" and time.time() - self.heartbeat > STALLED_AFTER
        return "stalled" if silent else self.status

    @property
    def steps(self) -> np.ndarray:
        """The step number of each row, i64[T], strictly increasing; read once."""
        try:
            return self._steps.upto(len(self), lambda start, stop: self._snapshot.read("step", start, stop))
        except TraceError:
            raise
        except ValueError as error:
            raise self._snapshot.corrupt(str(error)) from error

    @property
    def events(self) -> list[dict[str, Any]]:
        """Remarks `{step, kind, text}` in the order they were made; read once, after a refresh only the new ones."""
        record = self._snapshot.record
        if EVENTS not in record.documents:
            return record.attrs["events"]
        size, events = self._events
        if size < record.event_bytes:
            data = self._snapshot.read(EVENTS, size, record.event_bytes).tobytes()
            try:
                events = merge_events(events, data)
            except ValueError as error:
                raise self._snapshot.corrupt(f"the events can't be read ({error})") from error
            self._events = record.event_bytes, events
        return events

    @property
    def flights(self) -> tuple[Flight, ...]:
        """The flight recorder's windows, every parameter's gradient norm around each spike; empty without one."""
        return flights_in(self._snapshot.record.documents, self.layers, self._snapshot.read)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a whole series: f32[L, T] of a layer series, f64[T] of a scalar, i64[T] of "step".

        Raises UnknownSeriesError, which lists the known names.
        """
        return self.read(name)

    def read(self, name: str, *, start: int = 0, stop: int | None = None, layer: str | None = None) -> np.ndarray:
        """Return the rows [start, stop) of a series; [n] instead of [L, n] with `layer`.

        Negative numbers count from the end, as in a slice.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        if name == "step":
            return self.steps[start:stop]
        path, row = self._place(name, layer)
        return self._snapshot.read(path, start, max(start, stop), row)

    def _place(self, name: str, layer: str | None) -> tuple[str, int | None]:
        """Return the array that holds a series, and the row of it (None: all rows)."""
        if name in self.series:
            if layer is not None and layer not in self.layers:
                raise UnknownSeriesError("layer", layer, self.layers, str(self.path))
            return name, None if layer is None else self.layers.index(layer)
        if name in self.scalars:
            if layer is not None:
                raise UnknownSeriesError(f"layer series {name!r}, so no layer", layer, self.series, str(self.path))
            return "scalars", self.scalars.index(name)
        raise UnknownSeriesError("series", name, (*self.series, *self.scalars), str(self.path))

    def _lines(self, name: str | Sequence[str], layer: str | None) -> tuple[str, slice, Any]:
        """Return the array that holds a series or some scalars, the rows of it to read, and which of those count."""
        if isinstance(name, str):
            path, row = self._place(name, layer)
            return (path, slice(None), slice(None)) if row is None else (path, slice(row, row + 1), 0)
        unknown = next((one for one in name if one not in self.scalars), None)
        if unknown is not None or not name:
            raise UnknownSeriesError("scalar", unknown or "", self.scalars, str(self.path))
        rows = [self.scalars.index(one) for one in name]
        return "scalars", slice(min(rows), max(rows) + 1), [row - min(rows) for row in rows]

    def rows(self, first_step: int | None = None, last_step: int | None = None) -> slice:
        """Return the rows of the steps from `first_step` to `last_step`, both included."""
        start = 0 if first_step is None else int(np.searchsorted(self.steps, first_step))
        stop = len(self) if last_step is None else int(np.searchsorted(self.steps, last_step, side="right"))
        return slice(start, max(start, stop))

    def since(self, step: int | None) -> Rows:
        """Return the rows whose step is greater than `step`, or all of them for None."""
        start = 0 if step is None else int(np.searchsorted(self.steps, step, side="right"))
        return self._rows(start, len(self))

    def _rows(self, start: int, stop: int) -> Rows:
        values = {name: self.read(name, start=start, stop=stop) for name in self.series}
        table = self._snapshot.read("scalars", start, stop)
        values |= {name: table[row] for row, name in enumerate(self.scalars)}
        return Rows(self.steps[start:stop], values, self.generation)

    def refresh(self) -> Trace:
        """Return the trace as of its last commit, itself if that is its own; raises TraceNotFoundError if deleted."""
        if self._snapshot.newest:
            return self
        snapshot = Snapshot(self._snapshot.location)
        same = snapshot.record.identity == self._snapshot.record.identity
        return Trace(snapshot, self if same else None)

    def follow(self, *, poll: float = 0.5, timeout: float | None = None, after: int | None = None) -> Iterator[Rows]:
        """Yield the rows after step `after` (None: from the beginning), then new ones until the run has ended.

        Looks every `poll` seconds, and gives up when nothing new came for `timeout` seconds. When the run is
        restarted from an earlier step, the rows begin anew with another `generation`. Raises TraceNotFoundError if
        the trace is deleted, and TraceUnreachableError if it can't be reached for a minute.
        """
        return follow(self, poll, timeout, after)

    def overview(
        self,
        name: str | Sequence[str],
        *,
        start: int = 0,
        stop: int | None = None,
        columns: int = 1500,
        layer: str | None = None,
    ) -> Overview:
        """Return the rows [start, stop) as at most `columns` cells, with the exact maximum and minimum of each.

        Cells hold a power of two of rows and begin at multiples of it, so they don't move while a run grows.
        At most 16 times `columns` stored cells are read, however long the trace is. Several scalars are read at once,
        [n] each becomes [scalars, n]: they lie in the same chunks.
        """
        if columns < 1:
            raise ValueError(f"columns is {columns}; give a positive number, such as the pixels of the picture")
        start, stop, _ = slice(start, stop).indices(len(self))
        path, at, picked = self._lines(name, layer)
        first, cells = overview_cells(
            start,
            max(start, stop),
            columns,
            lambda a, b: self._snapshot.read(path, a, b, at),
            lambda level, a, b: self._snapshot.read(f"overview/{level}/{path}", a, b, at),
        )
        low, high, mean, count = cells[:, picked]
        end = np.append(first[1:], max(start, stop))[: len(first)]
        return Overview(self.steps[first], self.steps[end - 1], end - first, low, high, mean, count.astype(np.int64))

    def to_xarray(self) -> xarray.Dataset:
        """Return the trace as a dataset whose dimensions are named, read when used.

        Layer series are `[layer, step]` with the layers' names as a coordinate, scalars `[step]`. Needs xarray.
        """
        return as_dataset(self)

    def to_frame(self, series: str | None = None, *, start: int = 0, stop: int | None = None) -> pandas.DataFrame:
        """Return the rows [start, stop) as a pandas frame, indexed by step. Needs pandas.

        Columns are the scalars and `grad_norm/LAYER` of every layer series; with `series` only its layers, by their
        own names, or that one scalar. Everything is read at once: T times L values.
        """
        return as_frame(self, series, start, stop)
