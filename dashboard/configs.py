"""Configurations side by side: nested settings as dotted names, and which of them differ between runs."""

from __future__ import annotations

__all__ = ["differing", "flat", "shown"]

from collections.abc import Mapping, Sequence
from typing import Any

# Where a run writes to says nothing about what it does, and differs always.
_PLACES = ("trace", "checkpoint_dir", "data_root", "out", "path", "overwrite", "resume", "log_every", "wall_time")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; lists stay whole.

    >>> flat({"optim": {"base_lr": 0.1}, "seed": 1})
    {'optim.base_lr': 0.1, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def differing(configs: Sequence[Mapping[str, Any]], limit: int = 12) -> list[str]:
    """The dotted names whose values are not the same in all of `configs`, in the order of the first that has them.

    Left out are those that only say where a run writes to. At most `limit`, those with the fewest values first kept.

    >>> differing([{"lr": 0.1, "seed": 1, "trace": "a"}, {"lr": 0.1, "seed": 2, "trace": "b"}])
    ['seed']
    """
    flats = [flat(config) for config in configs]
    names = dict.fromkeys(name for one in flats for name in one)
    counts = {name: len({shown(one.get(name)) for one in flats}) for name in names if not _is_place(name)}
    telling = [name for name, count in counts.items() if count > 1]
    kept = sorted(telling, key=lambda name: counts[name])[:limit]
    return [name for name in telling if name in kept]


def _is_place(name: str) -> bool:
    return name.rpartition(".")[2] in _PLACES


def shown(value: Any) -> str:
    """A setting as text.

    >>> shown(None), shown(0.1), shown([1, 2]), shown(True)
    ('–', '0.1', '1, 2', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    return str(value)
