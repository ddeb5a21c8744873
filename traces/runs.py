"""Finds the traces below a folder."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from .errors import TraceError
from .record import parse_root
from .schema import FORMAT

__all__ = ["find_runs"]

_DEPTH = 3


def find_runs(root: str | PathLike[str]) -> list[Path]:
    """Return every trace at `root` or up to three folders below it, the one with the newest heartbeat first.

    Links are never followed, so nothing outside `root` is found. A damaged trace is listed too (last), so that
    opening it can say what is wrong. A folder that doesn't exist holds no traces.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("old", "new"):
    ...     TraceWriter(f"{folder.name}/{name}", layers=["norm"]).close()
    >>> [path.name for path in find_runs(folder.name)]
    ['new', 'old']
    >>> folder.cleanup()
    """
    found: list[tuple[float, Path]] = []
    top = Path(root)
    for folder, below, files in os.walk(top, followlinks=False):
        path = Path(folder)
        heartbeat = _heartbeat(path) if "zarr.json" in files else None
        if heartbeat is not None:
            found.append((heartbeat, path))
        if heartbeat is not None or len(path.relative_to(top).parts) >= _DEPTH:
            below.clear()
    return [path for _, path in sorted(found, key=lambda item: (-item[0], item[1]))]


def _heartbeat(path: Path) -> float | None:
    """Return the time of the last commit, 0 if the trace is damaged, None if it isn't a trace."""
    document = path / "zarr.json"
    try:
        data = document.read_bytes() if not document.is_symlink() else b""
    except OSError:
        return None
    if f'"{FORMAT}"'.encode() not in data:
        return None
    try:
        return float(parse_root(data, str(path)).attrs["heartbeat"])
    except TraceError:
        return 0.0
