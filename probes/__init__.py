"""What is measured, and what the measurements mean: spikes, dips, and which precedes which, in steps.

Importing this needs numpy only. `watch`, which attaches to a training loop, is here too, and imports torch when it is
first asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .compare import compare
from .compare_report import Comparison
from .dips import Dip, DipFinder, find_dips
from .findings import Finding, findings
from .frames import to_frame
from .layers import group_layers
from .leaderboard import leaderboard
from .leaderboard_report import Leaderboard
from .model_alarm import ModelEvent, layers_needed, model_events
from .model_finder import ModelEventFinder
from .onset_order import onset_order
from .onset_report import OnsetOrder
from .precursor_report import PrecursorReport
from .precursors import Precedence, preceding, precursors
from .scores import RunScores, run_scores, spike_score
from .spikes import Spike, SpikeFinder, find_spikes

if TYPE_CHECKING:
    from .watch import watch as watch

# `watch` is not listed, so that `import *` works without torch.
__all__ = [
    "Comparison",
    "Dip",
    "DipFinder",
    "Finding",
    "Leaderboard",
    "ModelEvent",
    "ModelEventFinder",
    "OnsetOrder",
    "Precedence",
    "PrecursorReport",
    "RunScores",
    "Spike",
    "SpikeFinder",
    "compare",
    "find_dips",
    "find_spikes",
    "findings",
    "group_layers",
    "layers_needed",
    "leaderboard",
    "model_events",
    "onset_order",
    "preceding",
    "precursors",
    "run_scores",
    "spike_score",
    "to_frame",
]


class _Package(ModuleType):
    """This package, with `watch` always the function.

    The function and the file it lives in have the same name, and importing the file sets the package's attribute to the
    module: with a plain `__getattr__` the second `foreshock.probes.watch` would no longer be callable.
    """

    @property
    def watch(self) -> Any:
        from .watch import watch

        return watch

    @watch.setter
    def watch(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
