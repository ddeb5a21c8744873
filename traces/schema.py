"""Every series of a trace: its name, dimensions, dtype, unit and fill value, and the sizes of the store."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CELL_CHUNK",
    "EVENTS",
    "EVENT_CHUNK",
    "FLIGHT",
    "FLIGHT_CHUNK",
    "FLIGHT_NORMS",
    "FLIGHT_STEP",
    "FORMAT",
    "FORMAT_VERSION",
    "GRAD_NORM",
    "GRAD_NORM_CLIPPED",
    "LEVELS",
    "MAX_SCALARS",
    "SCALARS",
    "SCALAR_CHUNK",
    "SCALAR_ROWS",
    "SERIES_CHUNK",
    "STATISTICS",
    "STATUSES",
    "STEP_CHUNK",
    "Series",
    "check_layers",
]

FORMAT = "foreshock-trace"
FORMAT_VERSION = 2
STATUSES = ("running", "finished", "failed")

LEVELS = (16, 256, 4096)  # rows a cell of the overview pyramid covers
STATISTICS = ("min", "max", "mean", "count")  # of the values in a cell that are not NaN

SERIES_CHUNK = 1024  # rows a chunk of a layer series holds
SCALAR_ROWS = 4096  # rows a chunk of the scalars holds: a quarter of the files
STEP_CHUNK = 16384  # rows a chunk of `step` holds: few files, since every reader reads them all
SCALAR_CHUNK = 32  # scalars a chunk holds: a new name in mid-run rarely needs new files
CELL_CHUNK = 256  # cells a chunk of the pyramid holds
EVENT_CHUNK = 65536  # bytes of events a chunk holds
FLIGHT_CHUNK = 256  # rows of the flight recorder a chunk holds: about one window

EVENTS = "events"  # the array that holds the remarks
FLIGHT = "flight"  # the group of the flight recorder's windows, in a trace that has one
FLIGHT_STEP, FLIGHT_NORMS = f"{FLIGHT}/step", f"{FLIGHT}/grad_norm"
_RESERVED = ("step", "scalars", "overview", EVENTS, FLIGHT)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MAX_LAYERS = 65_536
MAX_SCALARS = 4_096


@dataclass(frozen=True)
class Series:
    """One measured quantity: `dims` is `("layer", "step")` for a value per layer, `("step",)` for a scalar.

    A layer series is stored as an array of its own, `name[layer, step]`; a scalar as a row of
    `scalars[scalar, step]`, float64. `fill` stands where nothing was measured.

    Raises ValueError for a name that can't be a folder name, or for dims and dtypes that the format lacks.

    >>> Series("update_rms", ("layer", "step"), unit="1").chunks(150)
    (150, 1024)
    """

    name: str
    dims: tuple[str, ...]
    dtype: str = "float32"
    unit: str = "1"
    fill: float = math.nan
    doc: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"series name {self.name!r} is not allowed: use letters, digits, '_' and '-', "
                f"starting with a letter, and none of {', '.join(_RESERVED)}"
            )
        if self.dims not in (("layer", "step"), ("step",)):
            raise ValueError(
                f"series {self.name!r} has dims {self.dims}; allowed are ('layer', 'step') for a value "
                f"per layer and ('step',) for a scalar"
            )
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"series {self.name!r} has dtype {self.dtype!r}; use 'float32' or 'float64'")
        if not math.isnan(self.fill):
            raise ValueError(f"series {self.name!r} has fill {self.fill}; use NaN, which means 'not measured'")

    @property
    def per_layer(self) -> bool:
        """Whether there is a value for each layer."""
        return len(self.dims) == 2

    def chunks(self, layers: int) -> tuple[int, ...]:
        """The shape of one chunk: all layers times 1,024 rows, or 32 scalars times 4,096."""
        return (layers, SERIES_CHUNK) if self.per_layer else (SCALAR_CHUNK, SCALAR_ROWS)


GRAD_NORM = Series(
    "grad_norm",
    ("layer", "step"),
    doc="L2 norm of each layer's gradient, after unscaling and before clipping; NaN: no gradient (frozen)",
)
GRAD_NORM_CLIPPED = Series(
    "grad_norm_clipped",
    ("layer", "step"),
    doc="L2 norm of each layer's gradient after clipping; NaN: no gradient (frozen)",
)


def _scalar(name: str, unit: str, doc: str) -> Series:
    return Series(name, ("step",), "float64", unit, doc=doc)


# The well-known scalars; a trace may hold any others, whose unit is then unknown.
SCALARS = {
    series.name: series
    for series in (
        _scalar("loss", "1", "training loss of this step"),
        _scalar("lr", "1", "learning rate that this step used"),
        _scalar("momentum", "1", "momentum of the momentum encoder"),
        _scalar("contrastive_accuracy", "1", "top-1 accuracy of the in-batch contrastive task, 0 to 1"),
        _scalar("chance_loss", "1", "the loss of a uniform guess"),
        _scalar("ideal_loss", "1", "the loss where every positive pair coincides and all others are orthogonal"),
        _scalar("knn_accuracy", "1", "kNN accuracy on features, 0 to 1; NaN where not evaluated"),
        _scalar("knn_queries", "images", "number of images behind that evaluation"),
        _scalar("knn_accuracy_fresh", "1", "the same queries against the queue's images encoded anew, in a dip"),
        _scalar("knn_accuracy_before", "1", "the same, queries too, with the weights from before the dip"),
        _scalar("wall_time", "s", "seconds since 1970-01-01 UTC"),
        _scalar("step_time", "s", "duration of the step"),
        _scalar("grad_norm_total", "1", "L2 norm of the whole gradient"),
        _scalar("images_per_second", "images/s", "throughput"),
    )
}


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layer names as a tuple, or raise ValueError naming what is wrong with them.

    >>> check_layers(["patch_embed", "blocks.00"])
    ('patch_embed', 'blocks.00')
    """
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}; give a list of names, such as [{layers!r}]")  # noqa: TRY004
    names = tuple(layers)
    if not 1 <= len(names) <= _MAX_LAYERS or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"layers has {len(names)} names; give 1 to {_MAX_LAYERS:,} non-empty strings")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"layers names {twice[:5]} more than once; give each layer a name of its own")
    return names
