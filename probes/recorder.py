"""The way from the sensors to the trace: rows wait on the device and go to the host in blocks; times are in seconds."""

from __future__ import annotations

__all__ = ["Recorder", "layer_parameters", "series_of"]

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from .sensors import Sensor, layer_parameters, series_of
from .sensors._by_layer import observe_together
from .sensors._to_host import start_copy

if TYPE_CHECKING:
    from ..traces.schema import Series
    from ..traces.writer import TraceWriter

FLUSH_SECONDS, FLUSH_SECONDS_CPU = 5.0, 1.0  # on a CPU a copy to the host costs nothing: a fresher live view


class Recorder:
    """Reads sensors once a step and hands the rows to a `TraceWriter`, without making a step wait for the device.

    The protocol of a step:

    1. `backward()`, as often as gradients are accumulated; unscale, if there is a GradScaler;
    2. `observe(step, loss=loss, lr=lr)`: **before** clipping, so that the gradients are whole and unclipped;
    3. clip, `optimizer.step()`, and whatever else;
    4. `after_step()`, if a sensor has a value only now (`update_ratio`), and `note(momentum=m)` for anything else that
       is known only now: both go into the same row.

    Values are numbers or tensors of one element; those of a layer series, which a sensor or `noted` declares, are
    tensors `[L]`. A tensor stays on its device, in a ring of float64 rows, until there
    are `flush_steps` rows or `flush_seconds` have passed (default 5 s, on a CPU 1 s). Then the whole block is copied
    at once; on CUDA into pinned memory and not waited for: a later step hands it on when the copy is done.
    Every row gets `wall_time` (unix s) and `step_time` (s since the last observe, NaN at first), both the host's, which
    runs ahead of an accelerator by the launch queue.

    `with Recorder(...)` closes the writer on the way out: "finished", or "failed" with the exception's text and with
    the rows before it; on a KeyboardInterrupt too. `seconds` is the time spent in here since the start.

    Raises ValueError for a step that does not increase, a value with several elements, a layer series whose length
    changes, and a note without a row.

    >>> class Print:
    ...     extend = staticmethod(lambda steps, values: print(steps, values["loss"]))
    ...     close = staticmethod(lambda status, message: print(status))
    >>> with Recorder(Print(), []) as recorder:
    ...     recorder.observe(7, loss=torch.tensor(0.5))
    ...     recorder.observe(8, loss=0.25)
    [7 8] [0.5  0.25]
    finished
    """

    def __init__(
        self,
        writer: TraceWriter,
        sensors: Sequence[Sensor],
        *,
        noted: Sequence[Series] = (),
        flush_steps: int = 64,
        flush_seconds: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if flush_steps < 1:
            raise ValueError(f"flush_steps is {flush_steps}; it must be at least 1")
        self.writer, self.sensors = writer, tuple(sensors)
        self.flush_steps, self.flush_seconds = flush_steps, flush_seconds
        self.seconds, self.rows = 0.0, 0  # both since the start
        self._layer_names = {series.name for series in (*series_of(sensors), *noted) if series.per_layer}
        self._layer_names |= {name for sensor in sensors for name in getattr(sensor, "details", ())}
        for sensor in self.sensors:
            theirs, kept = getattr(sensor, "layers", ()), getattr(writer, "layers", ())
            if theirs and kept and tuple(theirs) != tuple(kept):
                raise ValueError(f"the writer has layers {kept}, {type(sensor).__name__} {theirs}: give both the same")
        self._clock, self._closed, self._block_start = clock, False, clock()
        self._steps: list[int] = []  # of the open block; its length is the number of rows that count
        self._numbers: list[dict[str, float]] = []  # host values of the open block
        self._rings: dict[torch.device, _Ring] = {}
        self._under_way: list[_Block] = []
        self._last_step: int | None = None
        self._last_time = math.nan

    def observe(self, step: int, **scalars: Tensor | float) -> None:
        """Add the row of `step`: what every sensor sees now, and `scalars`. Steps must increase."""
        if self._closed:
            raise ValueError(f"got step {step} after close(): make a new recorder")
        if self._last_step is not None and step <= self._last_step:
            raise ValueError(f"got step {step} after step {self._last_step}: steps must increase from row to row")
        with self._timed():
            # The last row stays open for note() until here.
            if len(self._steps) >= self.flush_steps or self._block_is_old():
                self._start_transfer()
            self._hand_on_what_arrived()
            now = self._clock()
            values: dict[str, Any] = {"wall_time": time.time(), "step_time": now - self._last_time}
            values |= observe_together(self.sensors)
            numbers: dict[str, float] = {}
            self._store(values | scalars, row=len(self._steps), numbers=numbers)
            # Only now does the row count: an interrupt before this line leaves no half of it.
            self._numbers.append(numbers)
            self._steps.append(step)
            self._last_step, self._last_time = step, now
            self.rows += 1

    def note(self, **scalars: Tensor | float) -> None:
        """Add `scalars` to the row just observed; a name that it has already is replaced."""
        if not self._steps:
            raise ValueError(f"got a note of {list(scalars)} but no open row: call note() after observe()")
        with self._timed():
            self._store(scalars, row=len(self._steps) - 1, numbers=self._numbers[-1])

    def after_step(self) -> None:
        """Add to the row just observed what sensors know only once the optimizer has stepped."""
        for sensor in self.sensors:
            if hasattr(sensor, "after_step") and self._steps:
                with self._timed():
                    values = sensor.after_step()  # pyright: ignore[reportAttributeAccessIssue]
                    self._store(values, row=len(self._steps) - 1, numbers=self._numbers[-1])

    def flush(self) -> None:
        """Hand over every row so far, waiting for the device; afterwards `note` needs a new row."""
        with self._timed():
            self._hand_on_what_arrived(wait=True)  # first: a device that fails in the next copy takes less along
            self._start_transfer()
            self._hand_on_what_arrived(wait=True)

    def close(self, status: str = "finished", message: str = "") -> None:
        """Flush, and close the writer with `status` ("finished" or "failed"); a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            for sensor in self.sensors:
                if hasattr(sensor, "close"):  # its hooks
                    sensor.close()  # pyright: ignore[reportAttributeAccessIssue]
            self.writer.close(status, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        try:
            self.close("failed", message)
        except Exception as second:  # the training's own error is the one to see, with this one told beside it
            error.add_note(f"foreshock could not save the last rows: {type(second).__name__}: {second}")

    def _store(self, values: dict[str, Any], *, row: int, numbers: dict[str, float]) -> None:
        for name, value in values.items():
            is_layers = name in self._layer_names
            shape = list(value.shape if isinstance(value, Tensor) else np.shape(value))
            if (len(shape) != 1 or not isinstance(value, Tensor)) if is_layers else math.prod(shape) != 1:
                allowed = "its sensor's tensor [L]" if is_layers else "one element: reduce it first"
                raise ValueError(f"{name} has shape {shape}; allowed is {allowed}")
            if not isinstance(value, Tensor):
                numbers[name] = float(value)
                continue
            if value.device not in self._rings:
                self._rings[value.device] = _Ring(value.device, self.flush_steps)
            self._rings[value.device].write(row, name, value.detach().reshape(-1))
            numbers.pop(name, None)

    def _block_is_old(self) -> bool:
        default = FLUSH_SECONDS_CPU if all(device.type == "cpu" for device in self._rings) else FLUSH_SECONDS
        return self._clock() - self._block_start >= (default if self.flush_seconds is None else self.flush_seconds)

    def _start_transfer(self) -> None:
        """Begin the copy of the open block to the host, and open a new block."""
        if self._steps:
            rings = self._rings.values()
            self._under_way.append(_Block(self._steps, self._numbers, rings, self._layer_names))
            self._steps, self._numbers = [], []
            for ring in rings:
                ring.clear()
        self._block_start = self._clock()

    def _hand_on_what_arrived(self, wait: bool = False) -> None:
        """Give the writer the blocks whose copies are done, in order."""
        while self._under_way and (wait or self._under_way[0].arrived()):
            block = self._under_way.pop(0)
            self.writer.extend(block.steps, block.values())

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - start


class _Ring:
    """Rows of one device's values, float64 (MPS: float32) `[flush_steps, width]`, NaN where nothing was written."""

    def __init__(self, device: torch.device, rows: int) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.table = torch.full((rows, 0), math.nan, dtype=dtype, device=device)
        self.slots: dict[str, slice] = {}  # name -> its columns

    @torch.no_grad()
    def write(self, row: int, name: str, value: Tensor) -> None:
        if name not in self.slots:  # widen the table, on the device: nothing waits
            start = self.table.shape[1]
            self.slots[name] = slice(start, start + len(value))
            more = self.table.new_full((len(self.table), len(value)), math.nan)
            self.table = torch.cat([self.table, more], 1)
        target = self.table[row, self.slots[name]]
        if len(target) != len(value):
            raise ValueError(f"{name} has {len(value)} values and had {len(target)} before: keep the layers of a run")
        target.copy_(value)

    def clear(self) -> None:
        self.table = torch.full_like(self.table, math.nan)  # a new one: the old may still be on its way


class _Block:
    """Rows on their way to the host: `arrived` never waits, `values` does."""

    def __init__(
        self, steps: list[int], numbers: list[dict[str, float]], rings: Iterable[_Ring], layer_names: set[str]
    ) -> None:
        self.steps = np.array(steps, np.int64)
        self._numbers, self._layer_names = numbers, layer_names
        self._copies = [(dict(ring.slots), start_copy(ring.table[: len(steps)])) for ring in rings]

    def arrived(self) -> bool:
        return all(copy.arrived() for _, copy in self._copies)

    def values(self) -> dict[str, np.ndarray]:
        """`[n]` a scalar, `[L, n]` a layer series; NaN where a row lacks the name."""
        parts: list[tuple[str, np.ndarray]] = []
        for slots, copy in self._copies:
            rows = copy.values().numpy()
            parts += [(n, rows[:, at].T if n in self._layer_names else rows[:, at.start]) for n, at in slots.items()]
        for name in dict.fromkeys(name for row in self._numbers for name in row):
            parts.append((name, np.array([row.get(name, np.nan) for row in self._numbers])))
        values: dict[str, np.ndarray] = {}
        for name, part in parts:  # a name may be a number in one row, and a tensor of this device or that in another
            values[name] = np.where(np.isnan(part), values.get(name, np.nan), part)
        return values
