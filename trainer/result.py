"""What a run came to, and the lines that say so at its end; times are in seconds."""

__all__ = ["Result"]

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .config import TrainConfig
from .methods import chance
from .progress import duration

Status = Literal["finished", "interrupted", "nonfinite"]


@dataclass(frozen=True)
class Result:
    """The end of a run."""

    config: TrainConfig
    status: Status
    step: int
    """The step that would come next: the number of updates so far."""
    start: int
    """The step that this process began with."""
    seconds: float
    loss: float
    """Loss of the last step; NaN if this process made none."""
    tracing_seconds: float = 0.0
    overflows: int = 0
    bad_since: int = -1
    """First step whose loss or gradient was not finite, -1 for none (overflows of a scaler apart)."""
    trouble: str = ""
    """What was not finite and where that began, in words."""
    left_out: int = 0
    """Updates that were left out for that reason."""
    knn: dict[str, float] = field(default_factory=dict)
    """`last`, `best` (0 to 1) and `best_step` over the whole trace; empty without one."""
    features: dict[str, float] = field(default_factory=dict)
    """The last `effective_rank` and `feature_std` of the features; empty if they were not measured."""
    spikes: int | None = None
    """Spikes that were found while the run went, before it was resumed too; None if nobody looked."""
    untold: str = ""
    """Which alerts did not arrive, and why, if so."""
    interventions: int | None = None
    """Steps at which the intervention acted, before the run was resumed too; None without one."""
    checkpoint: Path | None = None
    """The newest that this process saved."""
    unsaved: str = ""
    """Why the last checkpoint or the last rows of the trace could not be written, if so."""
    signal: int = 0

    @property
    def exit_code(self) -> int:
        """0 finished, 128 + signal interrupted (130 for Ctrl-C), 1 for a loss that is not finite or an unsaved end."""
        if self.status == "interrupted":
            return 128 + self.signal
        return 0 if self.status == "finished" and not self.unsaved else 1

    def lines(self) -> list[str]:
        """The report, one fact a line."""
        config, steps = self.config, self.step - self.start
        lines = []
        if steps:
            rate = steps / self.seconds
            images = f"{rate * config.batch_size:,.0f} images/s"
            lines.append(f"{steps} steps in {duration(self.seconds)}: {rate:.2f} steps/s, {images}")
            guess = chance(config)
            line = f"loss {self.loss:.3f}"
            if guess:
                line += f"; a model that guesses has {guess.loss:.3f} = {guess.formula}, an ideal one {guess.ideal:.3f}"
            lines.append(line)
        if self.knn:
            best = f"best {self.knn['best']:.3f} at step {self.knn['best_step']:.0f}"
            probe = config.probe
            settings = (
                f"k {probe.knn_k}, T {probe.knn_temperature:g}, cosine, queue of {probe.knn_queue:.0%} of the data"
            )
            lines.append(f"kNN accuracy {self.knn['last']:.3f}, {best} ({settings})")
        if self.features:
            rank, std = self.features["effective_rank"], self.features["feature_std"]
            spread = f"scatter {std:.2f} (1 spread out, 0 collapsed)"
            lines.append(f"features: effective rank {rank:.1f} of {config.network.dim}, {spread}")
        if self.spikes is not None:
            lines.append(f"{_count(self.spikes, 'gradient spike')} while it ran")
        if self.interventions is not None:
            lines.append(f"{config.intervene.rule} acted at {_count(self.interventions, 'step')}")
        if self.untold:
            lines.append(self.untold)
        if self.left_out:
            lines.append(f"{self.left_out} updates were left out, since losses or gradients were not finite")
        if self.overflows:
            lines.append(
                f"{self.overflows} steps were skipped by the gradient scaler, since their gradients overflowed"
            )
        if config.trace and steps:
            share = self.tracing_seconds / self.seconds
            each = 1e3 * self.tracing_seconds / steps
            lines.append(f"tracing took {share:.1%} of the time ({each:.2f} ms a step, the kNN monitor included)")
        if self.unsaved:
            lines.append(self.unsaved)
        if self.checkpoint:
            lines.append(f"checkpoint: {self.checkpoint}    next: foreshock evaluate knn {self.checkpoint}")
        if config.trace:
            parent = Path(config.trace).parent
            lines.append(f"trace: {config.trace}    next: foreshock spikes {config.trace}")
            lines.append(f"{' ' * len(f'trace: {config.trace}')}          foreshock dashboard {parent}")
        return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
