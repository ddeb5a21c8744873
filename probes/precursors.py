"""Which spikes came before which dip, in steps: the pairing only, which says nothing about chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .dips import Dip
from .spikes import Spike

__all__ = ["Precedence", "preceding"]


@dataclass(frozen=True)
class Precedence:
    """A spike with its onset shortly before a dip's.

    Attributes:
        spike: the earlier event.
        dip: the later one.
        lag: steps from the spike's onset to the first bad evaluation, `dip.onset_by`: an upper bound, since the dip
            began somewhere after `dip.onset_after`.
    """

    spike: Spike
    dip: Dip
    lag: int


def preceding(spikes: Iterable[Spike], dips: Iterable[Dip], *, within: int = 64) -> list[Precedence]:
    """Pair each dip with the spikes that began in the `within` steps before it.

    The dip began at an unknown step of (onset_after, onset_by]; a spike counts if some step of that interval lies 1 to
    `within` steps after the spike's onset (event coincidence analysis, Donges et al. 2016). This is a list of who came
    before whom and no evidence by itself: where spikes are frequent most dips have one before them.

    Args:
        spikes: of any layers and kinds; filter them first (`spike.warmup`, `spike.layer`) as the question demands.
        dips: of the same run, in the same step numbers.
        within: the window, in steps.

    Returns:
        One entry a pair, sorted by dip, then by the spike's onset. A dip without a foreshock has none.

    Raises:
        ValueError: `within` is below 1.

    >>> spike = Spike("patch_embed", start=432, onset=432, peak=432, end=433, ratio=6.9, z=20, area=2.5, kind="spike")
    >>> dip = Dip(433, 434, 436, 450, depth=.1, area=.9, t50=9, t90=14, kind="dip", base=.55, staleness=24)
    >>> [pair.lag for pair in preceding([spike], [dip])]
    [2]
    """
    if isinstance(within, bool) or within < 1:
        raise ValueError(f"within={within!r}; the window before a dip is a whole number of steps, at least 1")
    spikes = sorted(spikes, key=lambda spike: spike.onset)
    return [
        Precedence(spike, dip, dip.onset_by - spike.onset)
        for dip in sorted(dips, key=lambda dip: dip.onset_by)
        for spike in spikes
        if dip.onset_after + 1 - within <= spike.onset < dip.onset_by
    ]
