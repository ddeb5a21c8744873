"""What `--trace` adds to the loop: gradient norms of all layers, the kNN monitor and other sensors, at every step.

Gradients are in units of the loss per weight, accuracies from 0 to 1. Without `--trace` none of this is built. With
several processes all of them measure, since each holds a part of what is measured, and rank 0 writes.
"""

__all__ = ["Tracing"]

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..probes.alerts import Alerts
from ..probes.flight import FlightRecorder
from ..probes.interventions._acting import ACTED, Intervention, Tells
from ..probes.nowhere import Nowhere
from ..probes.recorder import Recorder
from ..probes.sensors._choice import choose_sensors
from ..traces.reader import Trace, open_trace
from ..traces.schema import GRAD_NORM_CLIPPED
from ..traces.writer import TraceWriter
from .alerting import Alerting
from .clipping import clips
from .config import TrainConfig
from .config_saved import config_to_save
from .data import ImageSet
from .distributed import Processes
from .folder import ImageFolder
from .gathering import gather_views
from .methods import Output
from .monitor import Monitor, build_monitor
from .observed import Gradients, observed_layers
from .schedules import Schedules

if TYPE_CHECKING:
    from .staleness import StalenessControl


class Tracing:
    """The recorder of a training run with its sensors; a context manager that closes the trace in any case.

    `resume_at` continues the trace that is there: its rows from that step on are dropped, and made anew by the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        gradients: Gradients,
        model: nn.Module,
        optimizer: Optimizer,
        data: ImageSet | ImageFolder,
        schedules: Schedules,
        device: torch.device,
        processes: Processes,
        resume_at: int | None = None,
        control: "StalenessControl | None" = None,
        intervention: Intervention | None = None,
    ) -> None:
        assert config.trace is not None
        self.path = config.trace
        self.seconds = 0.0
        self.processes = processes
        self.knn = build_monitor(config, data, device, processes)
        self.staleness = control if self.knn else None
        self.others = choose_sensors(config.probe.sensors, model, optimizer, observed_layers(model))
        self.batch_size = config.batch_size
        sensors = (gradients, *([self.knn] if self.knn else []), *self.others.values())
        noted = [GRAD_NORM_CLIPPED] if clips(config) else []
        self.writer = self.alerts = self.alerting = None
        if processes.main:
            self.alerting = Alerting(config.alert)
            self.writer = TraceWriter(
                config.trace,
                layers=gradients.layers,
                series=[s for sensor in sensors for s in sensor.series if s.per_layer] + noted,
                parameters=gradients.parameters if config.probe.flight_recorder else None,
                config=config_to_save(config),
                meta=_meta(config, self.knn, schedules) | {"processes": processes.count},
                resume_at=resume_at,
                overwrite=config.overwrite,
            )
            flight = FlightRecorder(self.writer) if config.probe.flight_recorder else None
            if self.alerting.ways or flight:
                warmup = schedules.warmup_steps
                self.alerts = Alerts(self.writer, self.alerting.ways, warmup_steps=warmup, flight=flight)
        told = self.alerts or self.writer or Nowhere()
        if intervention:
            noted = [*noted, ACTED]
            told = Tells(told, intervention) if self.writer else told
        self.recorder = Recorder(told, sensors, noted=noted)  # pyright: ignore[reportArgumentType]
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def observe(self, step: int, output: Output, labels: Tensor | None, scalars: Mapping[str, Tensor | float]) -> None:
        """Record `step`: after the last backward and unscaling, before the optimizer's step."""
        start = time.perf_counter()
        seen = None
        if self.knn and labels is not None:
            seen = gather_views(output.features), gather_views(labels.repeat(2))
            self.knn.feed(*seen, images=len(seen[1]) // 2)
        self._feed(step, output.features)
        self.recorder.observe(step, **scalars)
        if self.staleness and self.knn and seen:
            assert self.knn.now is not None
            found = self.staleness.observe(step, self.knn, self.knn.now, *seen)
            if found:
                control, text = found
                self.recorder.note(knn_accuracy_fresh=control.fresh, knn_accuracy_before=control.before)
                self.event(step, "staleness", text)
        self.seconds += time.perf_counter() - start

    def _feed(self, step: int, features: Tensor) -> None:
        if not self.recorder.rows:
            for sensor in self.others.values():
                if hasattr(sensor, "observed"):
                    sensor.observed = step  # a resumed run samples the steps that it would have sampled
        collapse, throughput = self.others.get("collapse"), self.others.get("throughput")
        if collapse and collapse.due:
            collapse.feed(gather_views(features))
        if throughput:
            throughput.feed(self.batch_size)

    def _after_step(self, *_: object) -> None:
        """Called by the optimizer when it has stepped."""
        start = time.perf_counter()
        self.recorder.after_step()
        self.seconds += time.perf_counter() - start

    def note(self, values: Mapping[str, Tensor]) -> None:
        """Add to the row just observed what was known only after it."""
        start = time.perf_counter()
        self.recorder.note(**values)
        self.seconds += time.perf_counter() - start

    def event(self, step: int, kind: str, text: str) -> None:
        """Mark `step` in the trace."""
        if self.writer:
            self.writer.event(step, kind, text)

    def commit(self) -> None:
        """Put every row so far on the disk: a checkpoint must never be ahead of its trace."""
        start = time.perf_counter()
        self.recorder.flush()
        if self.alerts:
            self.alerts.wait()  # what is told by now, and the flight recorder's windows, are what a resumed run finds
        if self.writer:
            self.writer.flush()
        self.seconds += time.perf_counter() - start

    def close(self, status: str, message: str = "", *, goes_on: bool = False) -> None:
        """Commit the rest, with the final status; a run that `goes_on` later tells spikes under way then."""
        self._hook.remove()
        if self.alerts:
            self.alerts.tell_open = not goes_on
        self.recorder.close(status, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hook.remove()
        self.recorder.__exit__(kind, error, at)

    def state_dict(self) -> dict[str, Any]:
        """The state of the kNN queue, and of what watches its curve and the gradients."""
        parts = {"knn": self.knn, "staleness": self.staleness, "alerts": self.alerts}
        return {name: part.state_dict() if part else None for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        if self.knn and state["knn"]:
            self.knn.load_state_dict(state["knn"])
        if self.staleness and state.get("staleness"):
            self.staleness.load_state_dict(state["staleness"])
        if self.alerts and state.get("alerts"):
            self.alerts.load_state_dict(state["alerts"], open_trace(self.path).events)

    def results(self) -> tuple[dict[str, float], dict[str, float], int | None]:
        """What the whole trace ends with: `last` and `best` kNN accuracy and the `best_step`; the last look at the
        features, `effective_rank` and `feature_std`; the number of spikes that were told. What was never measured is
        left out, and without a look at spikes the number is None.

        Rank 0 knows them, the other processes have no trace.
        """
        if not self.writer:
            return {}, {}, None
        trace = open_trace(self.path)
        spikes = sum(event["kind"] == "spike" for event in trace.events) if self.alerts else None
        found = {name: _measured(trace, name) for name in ("knn_accuracy", "effective_rank", "feature_std")}
        features = {name: float(v[-1]) for name, (_, v) in found.items() if name != "knn_accuracy" and len(v)}
        steps, accuracy = found["knn_accuracy"]
        if not len(accuracy):
            return {}, features, spikes
        best = int(accuracy.argmax())
        knn = {"last": float(accuracy[-1]), "best": float(accuracy[best]), "best_step": int(steps[best])}
        return knn, features, spikes


def _measured(trace: Trace, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a scalar where it was measured; empty if it never was."""
    values = trace[name] if name in trace.scalars else np.full(len(trace), np.nan)
    seen = np.isfinite(values)
    return trace.steps[seen], values[seen]


def _meta(config: TrainConfig, knn: Monitor | None, schedules: Schedules) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "trainer": config.method.name,
        "total_steps": schedules.total_steps,
        "warmup_steps": schedules.warmup_steps,
        "steps_per_epoch": schedules.steps_per_epoch,
        "batch_size": config.batch_size,
        "dataset": config.data.dataset,
    }
    if knn:
        settings = {"k": knn.k, "temperature": knn.temperature, "queue": knn.state_dict()["settings"]["queue_size"]}
        meta["knn"] = settings | {
            "metric": "cosine",
            "classes": knn.num_classes,
            "every": knn.every,
            "features": f"{config.network.feature} of augmented crops",
        }
    return meta
