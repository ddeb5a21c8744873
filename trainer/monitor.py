"""The kNN monitor of a training run, in one process or several; accuracies from 0 to 1."""

__all__ = ["Monitor", "build_monitor"]

import torch
from torch import Tensor

from ..probes.sensors.feature_knn import FeatureKNN
from .config import TrainConfig
from .data import ImageSet
from .distributed import Processes
from .folder import ImageFolder
from .gathering import sum_over_processes


class Monitor(FeatureKNN):
    """The kNN sensor, whose newest accuracy stays at hand for the printed line.

    Every process has the whole queue, classifies its own part of the batch and is told how many all got right.
    """

    now: Tensor | None = None
    """f32[], the accuracy that the last `observe` found; NaN if it did not evaluate."""
    latest: Tensor | None = None
    """The last one that was found at all."""
    processes = Processes()

    def _count_right(self, features: Tensor, labels: Tensor) -> Tensor:
        parts = (x.chunk(self.processes.count)[self.processes.rank] for x in (features, labels))
        return sum_over_processes(super()._count_right(*parts))

    def observe(self) -> dict[str, Tensor]:
        """The values of the sensor."""
        values = super().observe()
        accuracy = self.now = values["knn_accuracy"]
        self.latest = accuracy if self.latest is None else torch.where(accuracy.isnan(), self.latest, accuracy)
        return values


def build_monitor(
    config: TrainConfig, data: ImageSet | ImageFolder, device: torch.device, processes: Processes
) -> Monitor | None:
    """The monitor that the configuration asks for; None without one, or without labels. ValueError if it can't vote."""
    probe = config.probe
    if probe.knn_every == 0 or data.labels is None:
        return None
    queue = round(probe.knn_queue * len(data))
    if queue < probe.knn_k:
        raise ValueError(
            f"probe.knn_queue {probe.knn_queue} of {len(data)} images are {queue}, fewer than the "
            f"probe.knn_k {probe.knn_k} neighbours that vote: raise the one or lower the other."
        )
    monitor = Monitor(
        queue,
        config.network.dim,
        len(data.classes),
        k=probe.knn_k,
        temperature=probe.knn_temperature,
        every=probe.knn_every,
        device=device,
    )
    monitor.processes = processes
    return monitor
