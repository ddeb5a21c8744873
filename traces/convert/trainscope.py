"""Runs of trainscope: a folder of Arrow streams, one of the run and one a parameter; norms are L2; needs pyarrow."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SourceFormatError
from ._columns import Samples, Table

__all__ = ["SUFFIXES", "read", "recognises"]

SUFFIXES = ()
_RUN, _PLUGINS = "global.arrow", "plugin_metrics.arrow"
_LAYER_COLUMNS = {"grad_l2_norm": "grad_norm", "weight_l2_norm": "weight_norm"}


def recognises(path: Path) -> bool:
    """Whether it is a folder with a file `global.arrow`, or that file."""
    return (path / _RUN).is_file() or (path.is_file() and path.name == _RUN)


def read(path: Path, step_column: str | None = None) -> Table:
    """Read `grad_norm/PARAMETER` and `weight_norm/PARAMETER` of every parameter, and every number of the run itself.

    Other columns of a parameter (means, maxima, histograms) are named in `skipped`. trainscope writes 0 where a
    parameter has no gradient, and the number stays. `is_spike` becomes 0 or 1, a plug-in's number `PLUGIN/METRIC`, and
    `meta.json` the config. Parameters come in the order of their names, `blocks.2` before `blocks.10`.

    Raises SourceFormatError for damage, naming the file and the byte; the cut last batch of a run that was killed is
    not.
    """
    folder = path.parent if path.is_file() else path
    if step_column not in (None, "step"):
        raise ValueError(f"{folder} has no column {step_column!r} for the steps; trainscope counts them in 'step'")
    samples, skipped = Samples(), dict[str, None]()
    for row in _rows(folder / _RUN):
        step = row.pop("step")
        samples.row(step)
        for name, value in row.items():
            _add(samples, skipped, step, name, value)
    if (folder / _PLUGINS).is_file():
        for row in _rows(folder / _PLUGINS):
            _add(samples, skipped, row["step"], f"{row['plugin']}/{row['metric']}", row["value"])
    for file in sorted((folder / "layers").glob("*.arrow"), key=_natural):
        layer = urllib.parse.unquote(file.stem)
        for row in _rows(file):
            step = row.pop("step")
            for name, value in row.items():
                if name in _LAYER_COLUMNS:
                    _add(samples, skipped, step, f"{_LAYER_COLUMNS[name]}/{layer}", value)
                else:
                    skipped[name] = None
    if (folder / "moe.arrow").is_file():
        skipped["moe.arrow"] = None
    return samples.table(_config(folder / "meta.json"), skipped, ("weight_norm/LAYER",))


def _add(samples: Samples, skipped: dict[str, None], step: int, name: str, value: Any) -> None:
    if isinstance(value, bool | int | float):
        samples.add(step, name, float(value))
    elif value is not None:
        skipped[name] = None


def _natural(file: Path) -> list[tuple[int, str]]:
    """A key that puts `blocks.2` before `blocks.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.stem)]


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SourceFormatError(f"{file} is not JSON ({error}); mend or remove it") from error
    return config if isinstance(config, dict) else {}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow stream that may end anywhere, or of an Arrow file, as older versions wrote."""
    import pyarrow
    import pyarrow.ipc

    data = file.read_bytes()
    if data and not data.startswith((b"ARROW1", b"\xff\xff\xff\xff"[: len(data)])):
        raise SourceFormatError(f"{file} doesn't begin as Arrow does; give a run that trainscope wrote")
    source = pyarrow.BufferReader(data)
    try:
        if data[:6] == b"ARROW1":
            found = pyarrow.ipc.open_file(source)
            batches = iter([found.get_batch(index) for index in range(found.num_record_batches)])
        else:
            batches = iter(pyarrow.ipc.open_stream(source))
    except (pyarrow.ArrowException, OSError) as error:
        if source.tell() >= len(data):
            return  # killed before the first batch was whole
        raise SourceFormatError(f"{file} can't be read as Arrow ({error}); restore it from a copy") from error
    while True:
        at = source.tell()
        try:
            batch = next(batches, None)
        except (pyarrow.ArrowException, OSError) as error:
            if source.tell() >= len(data):
                return  # the last batch was cut
            raise SourceFormatError(f"{file}: the batch at byte {at} is damaged ({error}); restore it") from error
        if batch is None:
            return
        if not {"step"} <= set(batch.schema.names):
            raise SourceFormatError(f"{file} has no column 'step'; give a run that trainscope wrote")
        yield from batch.to_pylist()
