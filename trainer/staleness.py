"""Is a dip of the kNN curve one of the network, or of a queue that lags behind it? Accuracies from 0 to 1."""

__all__ = ["StalenessControl"]

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..probes.dips import Dip, DipFinder
from ..probes.sensors.feature_knn import FeatureKNN
from .batches import batches
from .config import TrainConfig
from .data import ImageSet
from .distributed import Processes
from .encoder import Encoder, both
from .folder import ImageFolder
from .gathering import gather_views


class StalenessControl:
    """At the first bad evaluation of each dip, the same queries against the queue's images encoded anew.

    The features in the queue are up to queue / batch steps old (arXiv 2104.02057, appendix): after a jump of the
    network fresh queries meet stale keys, and the accuracy falls even if the features are as good as before. What a
    step saw follows from the seed and its number, so the queue's images are drawn again, the same crops, and encoded by
    the network as it is. What stays lost is the network's. What the accuracy regains is at most what staleness took:
    fresh keys are better than stale ones at any time, before the fall as well.

    `observe` reads the accuracy, so the host waits for the device at every evaluation; a dip costs the forward pass of
    the queue. Nothing of the training changes: no gradient, no random number, no statistic of a BatchNorm.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ImageSet | ImageFolder,
        encoder: Encoder,
        autocast: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._config, self._data, self._encoder, self._autocast = config, data, encoder, autocast
        self._device, self._processes = device, processes
        self._finder = DipFinder()

    def observe(
        self, step: int, knn: FeatureKNN, accuracy: Tensor, features: Tensor, labels: Tensor
    ) -> tuple[float, str] | None:
        """Look at the evaluation of `step`; if a dip begins with it, the fresh accuracy and what to say of it.

        Args:
            step: the step.
            knn: the monitor, before or after it queued this step's features.
            accuracy: f32[], what it found; NaN if it did not evaluate.
            features, labels: `[2N, D]` and `[2N]`, the queries of all processes.
        """
        self._finder.update(step, float(accuracy), queries=len(labels) / 2)
        opened = [dip for dip in self._finder.open_events() if dip.onset_by == step]
        if not opened:
            return None
        fresh, steps = self._fresh(step, knn, features, labels)
        return fresh, _in_words(opened[0], float(accuracy), fresh, steps)

    def _fresh(self, step: int, knn: FeatureKNN, features: Tensor, labels: Tensor) -> tuple[float, int]:
        """The accuracy against fresh keys, and how many steps back they reach."""
        settings = knn.state_dict()["settings"]
        steps = min(step, -(-settings["queue_size"] // len(labels)))
        keys, classes = self._encoded(step - steps, step)
        size = min(len(classes), settings["queue_size"])
        anew = FeatureKNN(
            size,
            settings["dim"],
            settings["num_classes"],
            k=settings["k"],
            temperature=settings["temperature"],
            device=self._device,
        )
        anew.feed(keys[-size:], classes[-size:])
        anew.observe()
        anew.feed(features, labels)
        return float(anew.observe()["knn_accuracy"]), steps

    @torch.no_grad()
    def _encoded(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Features and classes of the views of steps `start` up to, but not, `stop`, in the order of the queue."""
        keys, classes = [], []
        with _statistics_kept(self._encoder.backbone):
            for batch in batches(self._data, self._config, self._device, start, stop, self._processes):
                assert batch.labels is not None  # or there were no accuracy
                views = both(batch.x1, batch.x2)
                with self._autocast():
                    backbone = self._encoder.backbone
                    halves = [views] if self._encoder.one_pass else views.chunk(2)
                    found = torch.cat([backbone(half) for half in halves])
                keys.append(gather_views(found))
                classes.append(gather_views(batch.labels.repeat(2)))
        return torch.cat(keys), torch.cat(classes)

    def state_dict(self) -> dict[str, Any]:
        """What is known of the curve so far."""
        return self._finder.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._finder.load_state_dict(state)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Whatever the forward passes inside do to buffers (BatchNorm's running statistics) is undone."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)


def _in_words(dip: Dip, stale: float, fresh: float, steps: int) -> str:
    """What a fall comes from, in one sentence."""
    told = f"kNN accuracy {100 * stale:.1f} % against a queue of the last {steps} steps, {100 * fresh:.1f} % against"
    share = min(1.0, max(0.0, (fresh - stale) / (dip.base - stale)))
    what = f"up to {100 * share:.0f} % of the fall from {100 * dip.base:.1f} % is staleness"
    return f"{told} the same images encoded anew: {what}"
