"""Spikes, dips, pairs and reports as pandas frames: one row a record, one column a field, in the fields' own units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from .compare_report import Comparison
from .leaderboard_report import Leaderboard
from .onset_report import OnsetOrder
from .precursor_report import PrecursorReport

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["to_frame"]

_REPORTS = (Comparison, Leaderboard, OnsetOrder, PrecursorReport)


def to_frame(
    found: Iterable[Any] | Comparison | Leaderboard | OnsetOrder | PrecursorReport, kind: type | None = None
) -> DataFrame:
    """Turn records into a pandas frame.

    Args:
        found: a list of `Spike`, `Dip`, `Precedence` or any other dataclass; or a report, whose `table()` is taken. A
            record within a record becomes columns with its field's name before theirs: `spike_layer`.
        kind: the class of the records, which names the columns when there are none.

    Raises:
        ImportError: pandas is not installed.
        ValueError: `found` holds something that is no record, or records of several classes.

    >>> from foreshock.probes import Spike
    >>> spike = Spike("patch_embed", start=7, onset=7, peak=8, end=9, ratio=6.5, z=20, area=2.5, kind="spike")
    >>> frame = to_frame([spike])
    >>> frame.loc[0, "ratio"].item(), len(to_frame([], Spike)), to_frame([], Spike).columns[0]
    (6.5, 0, 'layer')
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame() needs pandas: pip install 'foreshock[pandas]'") from error
    if isinstance(found, _REPORTS):
        return pandas.DataFrame(found.table())
    records = list(found)
    kinds = {type(record) for record in records} | ({kind} if kind else set())
    if len(kinds) > 1 or not all(isinstance(one, type) and is_dataclass(one) for one in kinds):
        told = ", ".join(sorted(getattr(one, "__name__", repr(one)) for one in kinds))
        raise ValueError(f"to_frame() was given {told}; give records of one class, such as Spike, or a report")
    columns = _columns(kinds.pop()) if kinds else []
    return pandas.DataFrame([_flat(record) for record in records], columns=columns)


def _flat(record: Any) -> dict[str, Any]:
    flat = {}
    for one in fields(record):
        value = getattr(record, one.name)
        if is_dataclass(value):
            flat |= {f"{one.name}_{name}": part for name, part in _flat(value).items()}
        else:
            flat[one.name] = value
    return flat


def _columns(kind: type) -> list[str]:
    hints = get_type_hints(kind)
    names = []
    for one in fields(kind):
        inner = hints[one.name]
        names += (
            [f"{one.name}_{name}" for name in _columns(inner)]
            if isinstance(inner, type) and is_dataclass(inner)
            else [one.name]
        )
    return names
