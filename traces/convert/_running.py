"""`convert`: finds the formats at both ends, and brings a run from one to the other; steps stay as they were logged."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType

from ..places import is_url
from ..reader import open_trace
from ._columns import Mapping
from ._laying_out import lay_out, write_trace

__all__ = ["Converted", "convert", "formats"]

TRACE = "trace"


@dataclass(frozen=True)
class Converted:
    """What was done: formats of both ends, rows, layers and scalars; repeated and skipped as in `Table`."""

    source_format: str
    target_format: str
    rows: int
    layers: tuple[str, ...]
    series: tuple[str, ...]
    scalars: tuple[str, ...]
    repeated: int = 0
    skipped: tuple[str, ...] = ()


def formats(verb: str | None = None) -> list[str]:
    """Names of the formats, of those that can `"read"` or `"write"` if asked.

    >>> formats("write")
    ['csv', 'jsonl', 'netcdf', 'parquet', 'tensorboard']
    """
    names = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_"))
    return [name for name in names if verb is None or hasattr(_module(name), verb)]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    step_column: str | None = None,
    mapping: Mapping | None = None,
    warmup_steps: int | None = None,
    overwrite: bool = False,
) -> Converted:
    """Bring a run from another tool's files into a trace, or a trace into another tool's files.

    source, target: one of them is a trace's folder (or URL). A file's format follows from its suffix or contents
    unless it is named. `warmup_steps` is kept in the trace's meta. `overwrite` replaces what is at `target`.

    Raises SourceFormatError (damage, with its place), ValueError (unknown format or column), TraceError, OSError, and
    ModuleNotFoundError for a format whose package is missing.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "run.csv")
    >>> _ = path.write_text("step,loss,grad_norm/stem,grad_norm/head\\n0,2.5,1.5,0.5\\n10,2.25,,0.25\\n")
    >>> convert(path, folder.name + "/run").layers
    ('stem', 'head')
    >>> open_trace(folder.name + "/run")["grad_norm"].tolist()
    [[1.5, nan], [0.5, 0.25]]
    >>> folder.cleanup()
    """
    source_format = _check(source_format, "read") or _format_of_source(source)
    target_format = _check(target_format, "write") or _format_of_target(target)
    if (source_format == TRACE) == (target_format == TRACE):
        raise ValueError(
            f"{source} is read as {source_format} and {target} would be written as {target_format}; one of the two "
            f"must be a trace: convert to a trace first"
        )
    if source_format != TRACE:
        _refuse(target, overwrite, trace=True)
        table = _module(source_format).read(_existing(source), step_column)
        layout = lay_out(table, mapping or Mapping())
        meta = {"converted_from": source_format, "source": Path(source).name}
        meta |= {} if warmup_steps is None else {"warmup_steps": warmup_steps}
        write_trace(Path(target), table, layout, meta, overwrite)
        done = (len(table.steps), layout.layers, tuple(layout.series), tuple(layout.scalars))
        return Converted(source_format, TRACE, *done, table.repeated, table.skipped)
    path = Path(target)
    trace = open_trace(source)
    _refuse(target, overwrite, trace=False)
    _write_whole(_module(target_format), trace, path)
    return Converted(TRACE, target_format, len(trace), trace.layers, trace.series, trace.scalars)


def _write_whole(module: ModuleType, trace: object, path: Path) -> None:
    """Write beside the target and rename, so that a failure leaves nothing that looks finished."""
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    _remove(partial)
    try:
        module.write(trace, partial)
        _remove(path)
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check(name: str | None, verb: str) -> str | None:
    known = [TRACE, *formats(verb)]
    if name is not None and name not in known:
        raise ValueError(f"{name!r} is not a format that can be {_PAST[verb]}; known are {', '.join(known)}")
    return name


_PAST = {"read": "read", "write": "written"}


def _existing(source: str | PathLike[str]) -> Path:
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} doesn't exist; give a file or a folder")
    return path


def _format_of_source(source: str | PathLike[str]) -> str:
    if is_url(str(source)) or (Path(source) / "zarr.json").is_file():
        return TRACE
    path = _existing(source)
    known = formats("read")
    for name in known:
        if _module(name).recognises(path):
            return name
    raise ValueError(f"{path} is neither a trace nor a file of a known format; name it: --from {', '.join(known)}")


def _format_of_target(target: str | PathLike[str]) -> str:
    if is_url(str(target)) or not Path(target).suffix:
        return TRACE
    suffix = Path(target).suffix.lower()
    for name in formats("write"):
        if suffix in _module(name).SUFFIXES:
            return name
    return TRACE


def _refuse(target: str | PathLike[str], overwrite: bool, *, trace: bool) -> None:
    path = Path(target)
    if is_url(str(target)):
        return
    if not trace and not path.absolute().parent.is_dir():
        raise ValueError(f"{path} can't be written, since {path.absolute().parent} is not a folder; make it first")
    if not path.exists():
        return
    there = (path / "zarr.json").exists() if trace else not path.is_dir() or any(path.iterdir())
    if there and not overwrite:
        raise ValueError(f"{path} exists already; add --overwrite to replace it, or choose another place")
    if not trace and path.is_dir() and not any(path.glob("events.out.tfevents.*")) and any(path.iterdir()):
        raise ValueError(f"{path} is a folder with other things in it; choose another place")
