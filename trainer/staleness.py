"""Is a dip of the kNN curve one of the network, or of a queue that lags behind it? Accuracies from 0 to 1."""

__all__ = ["Control", "StalenessControl"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

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

APART = 25  # good evaluations between two copies of the weights: the window of the dip finder's base
DEEPER = 1.25  # a dip that is so many times as deep as when it was looked at last is looked at again


class Control(NamedTuple):
    """What fresh keys say of one evaluation in a dip."""

    fresh: float
    """Accuracy of the same queries against the queue's images encoded anew."""
    before: float
    """The same of the network before the dip, which encodes queries and keys."""
    noise: float
    """Two standard errors of before - fresh, whose queries are the same images."""
    steps: int
    """How many steps back the keys reach."""
    since: int
    """The step whose weights the network before the dip has."""


class StalenessControl:
    """At the first bad evaluation of each dip, and as it gets deeper: what did the network itself lose?

    The features in the queue are up to queue / batch steps old (arXiv 2104.02057, appendix): after a jump of the
    network fresh queries meet stale keys, and the accuracy falls even if the features are as good as before. What a
    step saw follows from the seed and its number, so the queue's images are drawn again, the same crops, and encoded by
    the network as it is: the fresh accuracy. Fresh keys are better than stale ones at any time, so it is not held
    against the curve but against the fresh accuracy that the network from before the dip has on the same queries and
    the same images. Their difference is the real loss, with the noise of one pair of answers an image. That network is
    a copy of the weights, 25 to 49 good evaluations old, so that a slow fall is not in it yet.

    `observe` reads the accuracy, so the host waits for the device at every evaluation. A look costs two forward passes
    of the queue; the copies cost the memory of two backbones, in checkpoints too. Nothing of the training changes: no
    weight, no gradient, no random number, no statistic of a BatchNorm.
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
        self._copies: list[tuple[int, list[Tensor]]] = []  # step and weights, the older first
        self._good, self._depth = 0, 0.0  # evaluations since the newer copy; depth of the dip at the last look

    def observe(
        self, step: int, knn: FeatureKNN, accuracy: Tensor, features: Tensor, labels: Tensor
    ) -> tuple[Control, str] | None:
        """Look at the evaluation of `step`: the control, and what to say of it, if it is the lowest of a dip so far.

        Args:
            step: the step, before its update.
            knn: the monitor, before or after it queued this step's features.
            accuracy: f32[], what it found; NaN if it did not evaluate.
            features, labels: `[2N, D]` and `[2N]`, the queries of all processes.
        """
        found = float(accuracy)
        self._finder.update(step, found, queries=len(labels) / 2)
        if found != found:
            return None
        under_way = self._finder.open_events()
        if not under_way:
            self._remember(step)
            return None
        (dip,) = under_way
        if dip.onset_by == step:
            self._depth = 0.0
        if dip.nadir != step or dip.depth < DEEPER * self._depth:
            return None
        self._depth = dip.depth
        control = self._look(step, knn, features, labels)
        return control, _in_words(dip, found, control)

    def _remember(self, step: int) -> None:
        """Copy the weights now and then, while all is well; the last two copies stay."""
        if self._good % APART == 0:
            weights = [p.detach().clone() for p in self._encoder.backbone.parameters()]
            self._copies = [*self._copies[-1:], (step, weights)]
            self._good = 0
        self._good += 1

    def _look(self, step: int, knn: FeatureKNN, features: Tensor, labels: Tensor) -> Control:
        settings = knn.state_dict()["settings"]
        steps = min(step, -(-settings["queue_size"] // len(labels)))
        since, weights = self._copies[0]
        now, before, classes = self._encoded(step - steps, step + 1, weights)
        right = []
        for keys, queries in ((now, features), (before, before[-len(labels) :])):
            keys, names = keys[: -len(labels)], classes[: -len(labels)]  # without the queries themselves
            size = min(len(names), settings["queue_size"])
            anew = _Answers(
                size,
                settings["dim"],
                settings["num_classes"],
                k=settings["k"],
                temperature=settings["temperature"],
                device=self._device,
            )
            anew.feed(keys[-size:], names[-size:])
            anew.observe()
            anew.feed(queries, labels)
            anew.observe()
            right.append((torch.cat(anew.answers) == labels).double().unflatten(0, (2, -1)).mean(0))  # of an image
        lost = right[1] - right[0]
        noise = 2 * float(lost.std()) / len(lost) ** 0.5
        return Control(float(right[0].mean()), float(right[1].mean()), noise, steps, since)

    @torch.no_grad()
    def _encoded(self, start: int, stop: int, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the views of steps `start` up to, but not, `stop`, in the order of the queue: by the network as
        it is and by that with `weights`; and their classes.
        """
        now, before, classes = [], [], []
        backbone = self._encoder.backbone
        with _statistics_kept(backbone):
            for batch in batches(self._data, self._config, self._device, start, stop, self._processes):
                assert batch.labels is not None  # or there were no accuracy
                views = both(batch.x1, batch.x2)
                now.append(self._features(views))
                with _weights(backbone, weights):
                    before.append(self._features(views))
                classes.append(gather_views(batch.labels.repeat(2)))
        return torch.cat(now), torch.cat(before), torch.cat(classes)

    def _features(self, views: Tensor) -> Tensor:
        halves = [views] if self._encoder.one_pass else views.chunk(2)
        with self._autocast():
            return gather_views(torch.cat([self._encoder.backbone(half) for half in halves]))

    def state_dict(self) -> dict[str, Any]:
        """What is known of the curve so far, and the copies of the weights."""
        return {
            "finder": self._finder.state_dict(),
            "copies": [(step, [w.clone() for w in weights]) for step, weights in self._copies],
            "good": self._good,
            "depth": self._depth,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._finder.load_state_dict(state["finder"])
        self._copies = [(step, [w.to(self._device) for w in weights]) for step, weights in state["copies"]]
        self._good, self._depth = state["good"], state["depth"]


class _Answers(FeatureKNN):
    """A kNN classifier that keeps the class that it gave to each query."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answers: list[Tensor] = []

    def _classify(self, queries: Tensor) -> Tensor:
        self.answers.append(super()._classify(queries))
        return self.answers[-1]


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Whatever the forward passes inside do to buffers (BatchNorm's running statistics) is undone."""
    with _restored(list(module.buffers())):
        yield


@contextmanager
def _weights(module: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """The module has other weights inside."""
    with _restored(list(module.parameters())), torch.no_grad():
        for parameter, weight in zip(module.parameters(), weights, strict=True):
            parameter.copy_(weight)
        yield


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def _in_words(dip: Dip, stale: float, control: Control) -> str:
    """What of a fall is the network's, in one sentence.

    >>> dip = Dip(299, 300, 300, None, .14, .14, t50=None, t90=None, kind="unrecovered", base=.47, staleness=12)
    >>> print(_in_words(dip, 0.33, Control(0.48, 0.49, 0.03, 12, 260)))
    kNN accuracy fell by 14.0 points to 33.0 % against a queue of the last 12 steps; with keys encoded anew the same \
queries have 48.0 %, and had 49.0 % with the weights of step 260: the network lost 1.0 ± 3.0 points
    """
    fall, lost = dip.base - stale, control.before - control.fresh
    return (
        f"kNN accuracy fell by {100 * fall:.1f} points to {100 * stale:.1f} % against a queue of the last "
        f"{control.steps} steps; with keys encoded anew the same queries have {100 * control.fresh:.1f} %, and had "
        f"{100 * control.before:.1f} % with the weights of step {control.since}: the network lost "
        f"{100 * lost:.1f} ± {100 * control.noise:.1f} points"
    )
