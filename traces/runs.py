"""Finds the traces below a folder, or below a URL that fsspec understands."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from .errors import TraceError
from .places import is_url, location_of
from .record import parse_root
from .schema import FORMAT

__all__ = ["find_runs"]

_DEPTH = 3


def find_runs(root: str | PathLike[str]) -> list[Path]:
    """Return every trace at `root` or up to three folders below it, the one with the newest heartbeat first.

    Links are never followed, so nothing outside `root` is found. A damaged trace is listed too (last), so that
    opening it can say what is wrong. A folder that doesn't exist holds no traces. Below a URL (`s3://bucket/runs`) the
    same: its paths, such as `s3:/bucket/runs/a`, are what open_trace takes for that URL. Raises OSError if the store
    of a URL can't be reached.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("old", "new"):
    ...     TraceWriter(f"{folder.name}/{name}", layers=["norm"]).close()
    >>> [path.name for path in find_runs(folder.name)]
    ['new', 'old']
    >>> folder.cleanup()
    """
    location = location_of(root)
    found = _below_url(location) if is_url(location) else _below_folder(Path(root))
    return [path for _, path in sorted(found, key=lambda item: (-item[0], item[1]))]


def _below_folder(top: Path) -> list[tuple[float, Path]]:
    found = []
    for folder, below, files in os.walk(top, followlinks=False):
        path = Path(folder)
        document = path / "zarr.json"
        heartbeat = None
        if "zarr.json" in files and not document.is_symlink():
            try:
                heartbeat = _heartbeat(document.read_bytes(), folder)
            except OSError:
                heartbeat = None
        if heartbeat is not None:
            found.append((heartbeat, path))
        if heartbeat is not None or len(path.relative_to(top).parts) >= _DEPTH:
            below.clear()
    return found


def _below_url(url: str) -> list[tuple[float, Path]]:
    """Look level by level: a listing a folder, and the documents of a level at once."""
    from .url_place import UrlPlace

    place = UrlPlace(url)
    found, level = [], [""]
    for depth in range(_DEPTH + 1):
        documents = place.get_all([f"{folder}zarr.json" for folder in level])
        below = []
        for folder in level:
            data = documents.get(f"{folder}zarr.json")
            heartbeat = None if data is None else _heartbeat(data, f"{url}/{folder}")
            if heartbeat is not None:
                found.append((heartbeat, Path(f"{url}/{folder}")))
            elif depth < _DEPTH:
                below += place.folders(folder)
        level = below
    return found


def _heartbeat(data: bytes, where: str) -> float | None:
    """Return the time of the last commit, 0 if the trace is damaged, None if it isn't a trace."""
    if f'"{FORMAT}"'.encode() not in data:
        return None
    try:
        return float(parse_root(data, where).attrs["heartbeat"])
    except TraceError:
        return 0.0
