"""The errors of a trace: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "SourceFormatError",
    "TraceChangedError",
    "TraceCorruptError",
    "TraceError",
    "TraceExistsError",
    "TraceForeignError",
    "TraceLockedError",
    "TraceNotFoundError",
    "TraceUnreachableError",
    "TraceVersionError",
    "TraceWriteError",
    "UnknownSeriesError",
]


class TraceError(ValueError):
    """Anything wrong with a trace; the message names the place and the remedy."""


class TraceNotFoundError(TraceError):
    """There is no trace at this place (any more)."""


class TraceUnreachableError(TraceNotFoundError):
    """The place can't be read at the moment: no rights, no network, a disk that fails."""


class TraceForeignError(TraceError):
    """There is a zarr store at this place, but nothing in it says that it is a trace."""


class TraceCorruptError(TraceError):
    """The trace contradicts its own format: a damaged chunk, a wrong type, an impossible shape."""


class TraceVersionError(TraceError):
    """The trace was written in a format version that this installation doesn't know."""


class TraceExistsError(TraceError):
    """There is a trace already, and the caller asked neither to overwrite nor to resume it."""


class TraceLockedError(TraceError):
    """Another writer holds this trace; a writer that died doesn't."""


class SourceFormatError(TraceError):
    """A file of another tool that is to be converted is damaged, or is not what it is said to be."""


class TraceChangedError(TraceError):
    """The run was restarted or replaced after this snapshot was taken: `refresh()` it."""


class TraceWriteError(TraceError):
    """Rows could not be committed before the writer was closed."""


class UnknownSeriesError(TraceError):
    """A series, scalar or layer by this name is not in the trace; the message lists those that are.

    >>> print(UnknownSeriesError("series", "grad_nrm", ["grad_norm", "loss"], "runs/a"))
    runs/a has no series 'grad_nrm' (did you mean 'grad_norm'?); it has: grad_norm, loss
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], where: str) -> None:
        names = list(known)
        near = get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
        super().__init__(f"{where} has no {kind} {name!r}{hint}; it has: {shown or 'none'}")
