"""What is measured, and what the measurements mean: spikes, dips, and which precedes which.

Importing this needs numpy only; `watch`, which attaches to a training loop, imports torch when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .dips import Dip, DipFinder, find_dips
from .layers import group_layers
from .precursors import Precedence, preceding
from .spikes import Spike, SpikeFinder, find_spikes

if TYPE_CHECKING:
    from .watch import watch

__all__ = [
    "Dip",
    "DipFinder",
    "Precedence",
    "Spike",
    "SpikeFinder",
    "find_dips",
    "find_spikes",
    "group_layers",
    "preceding",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name == "watch":
        from .watch import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
