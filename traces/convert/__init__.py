"""Converters between traces and what other tools write: one file a format, found by its name; steps as logged.

A format is a file `NAME.py` of this folder (no underscore in front) that defines

    SUFFIXES: tuple[str, ...]                          file endings that stand for it, such as (".csv",)
    recognises(path: Path) -> bool                     whether the file or folder is one (only needed for `read`)
    read(path: Path, step_column: str | None) -> Table     every number in it, by column
    write(trace: Trace, path: Path) -> None            every series of a trace, one column each

`read` or `write` may be left out. A reader raises SourceFormatError for damage, naming the place; what isn't a number
(a picture, a word) goes into `Table.skipped`. Packages that foreshock doesn't need are imported inside the functions,
and a missing one is a ModuleNotFoundError.
"""

from __future__ import annotations

from ._columns import Mapping, Table
from ._running import Converted, convert, formats

__all__ = ["Converted", "Mapping", "Table", "convert", "formats"]
