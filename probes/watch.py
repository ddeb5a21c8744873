"""Attach to anybody's training loop: one row of gradient norms, scalars and times (s) for every optimizer step."""

from __future__ import annotations

__all__ = ["Watch", "watch"]

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from ..traces.errors import TraceExistsError
from ..traces.writer import TraceWriter
from .alerts import Alerts, OnSpike
from .flight import FlightRecorder
from .interventions import intervention_class
from .interventions._acting import ACTED, Intervention, Tells
from .nowhere import Nowhere
from .recorder import Recorder
from .sensors import Sensor, series_of
from .sensors._choice import Layers, choose_layers, choose_sensors
from .sensors.grad_norm import GradNorm
from .watchable import check_watchable, has_closure, is_sharded


def watch(
    model: nn.Module,
    optimizer: Optimizer,
    path: str | PathLike[str],
    *,
    layers: Layers | None = None,
    sensors: Sequence[Sensor | str] = (),
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume_at: int | None = None,
    enabled: bool = True,
    on_spike: OnSpike | Sequence[OnSpike] = (),
    intervene: Intervention | str | None = None,
    flight_recorder: bool = False,
    flush_steps: int = 64,
    flush_seconds: float | None = None,
) -> Watch:
    """Record every layer's gradient norm at every step of `optimizer` into a trace at `path`.

    Three lines in a loop; `w.step` may stand before or after `zero_grad`:

        with watch(model, optimizer, "runs/mine") as w:
            ...
            loss.backward(); optimizer.step(); w.step(loss=loss); optimizer.zero_grad()

    **When it looks.** A hook reads the gradients as the optimizer is about to use them: after all backward passes of an
    accumulated batch, after DDP's averaging, with GradScaler's factor divided out. Nothing of the training changes:
    with and without `watch` the weights are the same bits.

    **Its blind spots.**

    - It sees **clipped** gradients, which hides the height of a spike: call `w.observe()` between `backward()` (with
      AMP: `scaler.unscale_`) and the clip, and that is what is recorded.
    - When a GradScaler skips a step that overflowed, the hook isn't called: `w.step` then reads the gradients as they
      are (Inf, or NaN if `zero_grad` came before).
    - With `optimizer.step(closure)` it reads, after the step, the gradients of the closure's last evaluation;
      `update_ratio` is then not measured.
    - Parameters that join the model later are not seen, nor a gradient that never reaches `.grad` (an optimizer that
      steps inside `backward`).

    - `layers`: by default `group_layers`' (patch_embed, blocks.00, …). `"per-parameter"`, a compiled regular expression
      whose groups are the layer, a function from a parameter's name to its layer (None leaves it out), or
      `{layer: [parameter names]}` choose others. `foreshock layers` shows a grouping.
    - `sensors`: more of `probes.sensors`, by name (`"update_rms"`) or built by you, such as a `FeatureKNN`. One that
      wants to be fed is at `w.sensors[name]`: `w.sensors["collapse"].feed(features)`.
    - `on_spike`: called with each `Spike` of the gradient norms once it is over, as the rows are handed to the writer
      and never in a step; `probes.alerts` has a line in the terminal, a file and a webhook.
    - `intervene`: one of `probes.interventions`, by name (`"skip_update"`) or built by you (`Clip("patch_embed",
      ratio=3.0)`): where a layer spikes it acts on the gradients as soon as they are looked at, before this very
      update, and that is an event of the trace. It is at `w.intervention`, with its state for your checkpoint. It has
      the blind spots above; in a closure call `w.observe()` after `backward()`.
    - `flight_recorder`: look for spikes while the run goes, and keep the gradient norm of every parameter around each
      (128 steps before to 128 after) and of the last 256 steps of a run that fails: `open_trace(path).flights`.
    - `config`: kept with the trace.
    - `overwrite` replaces a trace at `path`; `resume_at=s` keeps its rows before step `s` and goes on with `s`, the
      number of optimizer steps that the checkpoint had taken.
    - `enabled=False` records nothing: `enabled=rank == 0` for data-parallel runs. An intervention acts all the same, as
      all processes have to make the same update: give it to each. With several optimizers give the first to step.
    - A model in shards (FSDP2's `fully_shard`) is measured as the whole it is, by all processes together: call `watch`
      and `w.step` in each of them, with the same `intervene`, `sensors` and `flight_recorder`.

    Steps are numbered from 0 (or `resume_at`). Raises TraceExistsError for an existing trace at `path`, ValueError for
    a model without trainable weights, an optimizer without any of them, and layers that don't fit the model.

    >>> import tempfile, torch
    >>> from foreshock.traces import open_trace
    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with watch(model, optimizer, f"{folder}/mine") as w:
    ...         for _ in range(3):
    ...             loss = model(torch.ones(4, 2)).sum()
    ...             loss.backward()
    ...             optimizer.step()
    ...             w.step(loss=loss)
    ...             optimizer.zero_grad()
    ...     print(open_trace(f"{folder}/mine")["grad_norm"])
    [[6.928203 6.928203 6.928203]]
    """
    sharded = is_sharded(model)
    if not (enabled or sharded or intervene is not None):
        return Watch(None, None, 0)
    grouped = choose_layers(model, layers)
    check_watchable(model, optimizer)
    gradients = GradNorm(grouped, by_parameter=flight_recorder)
    if isinstance(intervene, str):
        intervene = intervention_class(intervene)()
    intervention = intervene.attach(grouped, optimizer) if intervene is not None else None
    chosen = choose_sensors(sensors, model, optimizer, grouped) if enabled or sharded else {}
    every_sensor = (gradients, *chosen.values())
    for sensor in every_sensor:
        if hasattr(sensor, "observed"):  # which steps it samples
            sensor.observed = resume_at or 0  # pyright: ignore[reportAttributeAccessIssue]
    told: Any = Nowhere()
    try:
        writer = enabled and TraceWriter(
            path,
            layers=list(grouped),
            series=series_of(every_sensor),
            parameters=gradients.parameters if flight_recorder else None,
            config=dict(config or {}),
            overwrite=overwrite,
            resume_at=resume_at,
        )
    except TraceExistsError as error:
        error.add_note("watch(..., overwrite=True) replaces it; watch(..., resume_at=STEP) goes on from a checkpoint")
        raise
    if writer:
        flight = FlightRecorder(writer) if flight_recorder else None
        told = Alerts(writer, on_spike, flight=flight) if on_spike or flight_recorder else writer
        told = Tells(told, intervention) if intervention else told
    pace = {"flush_steps": flush_steps, "flush_seconds": flush_seconds}
    recorder = Recorder(told, every_sensor, noted=[ACTED] if intervention else [], **pace)  # pyright: ignore
    return Watch(recorder, optimizer, resume_at or 0, chosen, intervention)


class Watch:
    """What `watch` returns; it owns the optimizer hooks, and removes them on the way out.

    Use it in a `with` block, or call `close()` at the end of a notebook's training.
    """

    def __init__(
        self,
        recorder: Recorder | None,  # whose first sensor is the GradNorm
        optimizer: Optimizer | None,
        first_step: int,
        sensors: Mapping[str, Any] | None = None,
        intervention: Intervention | None = None,
    ) -> None:
        self.recorder = recorder  # its `.seconds` is what watching has cost
        self.sensors = dict(sensors or {})  # those that were asked for, by name
        self.intervention = intervention
        self.next_step = first_step
        self._optimizer = optimizer
        # The row at hand: "none", "early" (observe() made it, and the optimizer has yet to step), or "stepped".
        self._row: Literal["none", "early", "stepped"] = "none"
        self._warned = False
        self._handles: list[Any] = []
        if optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def observe(self) -> None:
        """Read the gradients now, before a clip: the first call of a step does, and the optimizer's hook no more."""
        if self._row != "early":
            self._add_row("early")

    def step(self, loss: Tensor | float | None = None, **scalars: Tensor | float) -> None:
        """Close this step's row with the loss and any scalars of yours; once for each optimizer step.

        Tensors may be on the device, and nothing waits for them.
        """
        if self._row == "none":  # the optimizer was not called: a GradScaler skipped an overflow
            self._add_row("stepped")
        if self.recorder is not None:
            self.recorder.note(**({} if loss is None else {"loss": loss}), **scalars)
        self._row = "none"

    def close(self, status: str = "finished", message: str = "") -> None:
        """Remove the hooks and finish the trace; a second call does nothing."""
        self._remove_hooks()
        if self.recorder is not None:
            self.recorder.close(status, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._remove_hooks()
        if self.recorder is not None:
            self.recorder.__exit__(kind, error, tb)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not has_closure(args, kwargs):
            self._at_step()

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        looked = self._row != "none"
        if has_closure(args, kwargs):  # before the step there were no gradients yet
            if self.intervention and not looked:
                raise ValueError(
                    "optimizer.step(closure) made its update before the intervention could look: call w.observe() in "
                    "the closure, after backward()"
                )
            self._at_step()
        if looked and self.recorder is not None:  # after a look before the step
            self.recorder.after_step()

    def _at_step(self) -> None:
        if self._row == "early":
            self._row = "stepped"
        else:
            self._add_row("stepped")

    def _add_row(self, row: Literal["early", "stepped"]) -> None:
        if self.recorder is None or self._optimizer is None:
            return
        gradients: Any = self.recorder.sensors[0]
        # A fused optimizer unscales inside its kernel: a GradScaler then leaves the factor in the gradients, and here.
        scale = getattr(self._optimizer, "grad_scale", None)
        for sensor in self.recorder.sensors:
            if hasattr(sensor, "loss_scale"):
                sensor.loss_scale = scale  # pyright: ignore[reportAttributeAccessIssue]
        self.recorder.observe(self.next_step, lr=self._optimizer.param_groups[0]["lr"])
        if self.intervention is not None:
            acted, _ = self.intervention.act(gradients.last["grad_norm"], gradients.last["grad_norm_total"])
            self.recorder.note(**{ACTED.name: acted})
        if not gradients.measured and not self._warned:
            self._warned = True
            warnings.warn(
                f"foreshock: no gradient at step {self.next_step}, so its row is empty: is zero_grad() or w.step() "
                "called where there was no backward()?",
                stacklevel=4,
            )
        self._row = row
        self.next_step += 1

    def _remove_hooks(self) -> None:
        while self._handles:
            self._handles.pop().remove()
