"""The flight recorder's windows: the gradient norm of every parameter (loss per weight) at each step around a spike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from .arrays import GrowingArray
from .documents import plain
from .schema import FLIGHT_CHUNK, FLIGHT_NORMS, FLIGHT_STEP

__all__ = [
    "Flight",
    "FlightArrays",
    "FlightSpike",
    "flights_in",
    "is_flight_metadata",
    "kept_before",
    "window_of",
]

CAUSES = ("spike", "error")
_COUNTS = ("rows", "first_step", "last_step", "spike_count")


@dataclass(frozen=True)
class FlightSpike:
    """A spike that made a window; the fields are those of `probes.Spike`."""

    layer: str
    start: int
    onset: int
    peak: int
    end: int
    ratio: float
    kind: str


@dataclass(frozen=True)
class Flight:
    """One window. `steps: i64[t]` and `grad_norm: f32[P, t]` are read when they are asked for.

    Attributes:
        first_step: the first step of the window.
        last_step: the last one, so far.
        cause: "spike"; or "error", where the run ended by one.
        spikes: those in the window, the four with the highest ratio, that first.
        spike_count: how many there were.
        cut: whether more belongs to it than is there: a spike was longer than what is kept, or the trace was full.
        parameters: the P parameters' names, the order of the first axis.
        layers: the layer of each parameter, P names.
        rows: the window's place in the arrays of the trace.
    """

    first_step: int
    last_step: int
    cause: str
    spikes: tuple[FlightSpike, ...]
    spike_count: int
    cut: bool
    parameters: tuple[str, ...] = field(repr=False)
    layers: tuple[str, ...] = field(repr=False)
    rows: slice
    _read: Callable[[str, int, int], np.ndarray] = field(repr=False, compare=False)

    def __len__(self) -> int:
        """The number of steps."""
        return self.rows.stop - self.rows.start

    @property
    def steps(self) -> np.ndarray:
        """The step numbers, i64[t]."""
        return self._read(FLIGHT_STEP, self.rows.start, self.rows.stop)

    @property
    def grad_norm(self) -> np.ndarray:
        """The L2 norm of every parameter's gradient, f32[P, t], unscaled and unclipped; NaN: it had no gradient."""
        return self._read(FLIGHT_NORMS, self.rows.start, self.rows.stop)


def flights_in(
    documents: Mapping[str, Mapping[str, Any]], layers: tuple[str, ...], read: Callable[[str, int, int], np.ndarray]
) -> tuple[Flight, ...]:
    """The windows that a checked root record holds, in the order of their steps.

    >>> flights_in({}, ("norm",), lambda path, start, stop: np.empty(0))
    ()
    """
    if FLIGHT_STEP not in documents:
        return ()
    told = documents[FLIGHT_NORMS]["attributes"]
    names, owners = tuple(told["parameters"]), tuple(layers[i] for i in told["layers"])
    found, row = [], 0
    for window in documents[FLIGHT_STEP]["attributes"]["windows"]:
        spikes = tuple(FlightSpike(**spike | {"ratio": float(spike["ratio"])}) for spike in window["spikes"])
        rows = slice(row, row + window["rows"])
        rest = {name: window[name] for name in ("first_step", "last_step", "cause", "spike_count", "cut")}
        found.append(Flight(**rest, spikes=spikes, parameters=names, layers=owners, rows=rows, _read=read))
        row = rows.stop
    return tuple(found)


def is_flight_metadata(step: object, norms: object, layers: int) -> bool:
    """Whether the attributes of the two arrays are what FORMAT.md says.

    >>> is_flight_metadata({"windows": []}, {"parameters": ["a"], "layers": [0]}, 1)
    True
    """
    if not isinstance(step, dict) or not isinstance(norms, dict) or not isinstance(step.get("windows"), list):
        return False
    names, owners = norms.get("parameters"), norms.get("layers")
    return (
        isinstance(names, list)
        and isinstance(owners, list)
        and len(names) == len(owners) == len({name for name in names if isinstance(name, str)}) > 0
        and all(_is_integer(i) and 0 <= i < layers for i in owners)
        and all(map(_is_window, step["windows"]))
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_window(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(_is_integer(value.get(name)) for name in _COUNTS)
        and value["rows"] > 0
        and value.get("cause") in CAUSES
        and isinstance(value.get("cut"), bool)
        and isinstance(value.get("spikes"), list)
        and all(map(_is_spike, value["spikes"]))
    )


def _is_spike(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {each.name for each in fields(FlightSpike)}:
        return False
    try:
        float(value["ratio"])
    except (TypeError, ValueError):
        return False
    return all(isinstance(value[name], str) for name in ("layer", "kind")) and all(
        _is_integer(value[name]) for name in ("start", "onset", "peak", "end")
    )


def kept_before(windows: Sequence[Mapping[str, Any]], steps: np.ndarray, step: int) -> list[dict[str, Any]]:
    """What is left of the windows, whose rows have `steps: i64[R]`, when a run is resumed at `step`.

    Rows and spikes of that step and later go; so does a window that is left without a row or without its spikes.

    >>> window = {"rows": 4, "first_step": 6, "last_step": 9, "cause": "error", "spikes": [], "spike_count": 0}
    >>> [(kept["rows"], kept["last_step"]) for kept in kept_before([window], np.arange(6, 10), 8)]
    [(2, 7)]
    """
    kept, row = [], 0
    for window in windows:
        rows = int(np.searchsorted(steps[row : row + window["rows"]], step))
        spikes = [spike for spike in window["spikes"] if spike["start"] < step]
        if not rows or (window["spikes"] and not spikes):
            break  # windows are in order: what follows is later still
        last = int(steps[row + rows - 1])
        if rows < window["rows"]:
            spikes = [spike | {at: min(spike[at], last) for at in ("onset", "peak", "end")} for spike in spikes]
            count = window["spike_count"] if len(spikes) == len(window["spikes"]) else len(spikes)
            window = {**window, "rows": rows, "last_step": last, "spikes": spikes, "spike_count": count}
        kept.append(dict(window))
        row += rows
    return kept


class FlightArrays:
    """The two arrays of a trace in the making; `parameters` is `{parameter name: layer}`."""

    def __init__(self, parameters: Mapping[str, str], layers: Sequence[str]) -> None:
        unknown = sorted(set(parameters.values()) - set(layers))
        if not parameters or unknown:
            raise ValueError(
                f"parameters has {len(parameters)} names, of the layers {unknown[:5]} that the trace lacks; give "
                "{parameter name: layer}, with the trace's layers"
            )
        self.parameters = dict(parameters)
        self.windows: list[dict[str, Any]] = []
        self.last_given: int | None = None  # step of the last row that `checked` let through
        size = len(self.parameters)
        self.step = GrowingArray(FLIGHT_STEP, (), (FLIGHT_CHUNK,), "int64", ("flight_row",))
        self.norms = GrowingArray(FLIGHT_NORMS, (size,), (size, FLIGHT_CHUNK), "float32", ("parameter", "flight_row"))
        owners = [list(layers).index(layer) for layer in self.parameters.values()]
        self.norms.attributes = {"parameters": list(self.parameters), "layers": owners}
        self.step.attributes = {"windows": self.windows}

    @property
    def arrays(self) -> list[GrowingArray]:
        """Both arrays."""
        return [self.step, self.norms]

    def checked(self, steps: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows as they are stored; ValueError unless they are steps i64[n], behind the last, and norms [P, n]."""
        steps, norms = np.array(steps, np.int64), np.array(norms, np.float32)
        if steps.ndim != 1 or norms.shape != (len(self.parameters), len(steps)):
            raise ValueError(
                f"a flight has steps of shape {steps.shape} and norms of shape {norms.shape}; give [n] and "
                f"[{len(self.parameters)}, n], a row for each of the trace's parameters"
            )
        before = steps[:1] - 1 if self.last_given is None else np.array([self.last_given])
        if (np.diff(np.concatenate([before, steps])) <= 0).any():
            raise ValueError(
                f"a flight has the steps {steps[0]} to {steps[-1]} after step {self.last_given}; they must increase"
            )
        self.last_given = int(steps[-1]) if len(steps) else self.last_given
        return steps, norms

    def append(self, steps: np.ndarray, norms: np.ndarray, window: Mapping[str, Any], extend: bool) -> None:
        """Append rows as a window, or to the last one, of which `window` then says all that is known."""
        self.step.append(steps)
        self.norms.append(norms)
        rows: dict[str, Any] = {}
        if extend and self.windows:
            rows = self.windows.pop()
        elif not len(steps):
            return
        if len(steps):
            first = rows.get("first_step", int(steps[0]))
            rows |= {"rows": rows.get("rows", 0) + len(steps), "first_step": first, "last_step": int(steps[-1])}
        self.windows.append(rows | plain(window))


def window_of(cause: str, spikes: Sequence[FlightSpike], spike_count: int, cut: bool) -> dict[str, Any]:
    """What a trace tells of a window beside its rows.

    >>> window_of("error", [], 0, False)["cause"]
    'error'
    """
    return {"cause": cause, "cut": cut, "spike_count": spike_count, "spikes": [asdict(spike) for spike in spikes]}
