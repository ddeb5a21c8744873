"""Every setting of a training run, as frozen dataclasses; the command line is generated from these fields.

Nothing is changed after construction: what depends on other fields is a property (`lr` is the peak learning rate
for the global batch), so that the configuration in a trace is the one that was used. `TrainConfig()` is a small
run on Fashion-MNIST that suits a laptop; larger ones are in `recipes/`. Lengths are in optimizer steps or in
epochs, as each field says.
"""

__all__ = [
    "AlertConfig",
    "AugmentConfig",
    "DataConfig",
    "HeadConfig",
    "InterveneConfig",
    "MethodConfig",
    "OptimConfig",
    "ProbeConfig",
    "ResNetConfig",
    "ScaleConfig",
    "TrainConfig",
    "VitConfig",
]

from dataclasses import dataclass, field
from typing import Literal

from .config_alert import AlertConfig
from .config_backbone import ResNetConfig, VitConfig
from .config_checks import choice, fraction, not_negative, positive, without_effect
from .config_input import AugmentConfig, DataConfig
from .config_intervene import InterveneConfig
from .config_method import HeadConfig, MethodConfig
from .config_optim import OptimConfig
from .config_scale import ScaleConfig

Backbone = Literal["vit", "resnet"]
Precision = Literal["off", "bf16", "fp16", "float64"]
NonFinite = Literal["record", "skip", "stop"]


@dataclass(frozen=True)
class ProbeConfig:
    """What a trace holds beside the gradient norms.

    The kNN monitor: arXiv 2104.02057, appendix; its k and temperature: arXiv 1805.01978.
    """

    sensors: tuple[str, ...] = ("collapse",)
    """More sensors by name, such as update_rms, collapse or activation; `foreshock.probes.sensors` says what each
    measures."""

    flight_recorder: bool = False
    """Keep every parameter's gradient norm around each spike after the warm-up (128 steps before to 128 after), and of
    the last 256 steps of a run that fails."""

    knn_every: int = 1
    """Steps from one kNN accuracy to the next; 0 switches the monitor off."""
    knn_queue: float = 0.1
    """Length of the queue of features, as a share of the training set."""
    knn_k: int = 200
    """Number of neighbours that vote."""
    knn_temperature: float = 0.07
    """Temperature of the vote: a neighbour's weight is exp(cosine similarity / temperature)."""
    staleness_control: bool = False
    """As a dip of the kNN accuracy begins or deepens, classify the same queries against the queue's images encoded
    anew, by the network as it is and as it was before: what did it lose itself? Takes two forward passes of the queue
    each time and two copies of the backbone, and the host waits for the device at each evaluation."""

    def __post_init__(self) -> None:
        own = sorted({"grad_norm", "feature_knn"} & set(self.sensors))
        if own:
            raise ValueError(
                f"sensors names {own[0]}, which a trace has anyhow: leave it out (knn_every 0 is without the kNN)."
            )
        not_negative(self, "knn_every")
        fraction(self, "knn_queue")
        positive(self, "knn_queue", "knn_k", "knn_temperature")
        if self.knn_every == 0:
            without_effect(self, "with knn_every 0", "knn_queue", "knn_k", "knn_temperature", "staleness_control")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    backbone: Backbone = "vit"
    """Which of the two backbones below is trained; the other one must be at its defaults."""
    vit: VitConfig = field(default_factory=VitConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    heads: HeadConfig = field(default_factory=lambda: HeadConfig(hidden=256, out=64))
    method: MethodConfig = field(default_factory=MethodConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(base_lr=8e-3, warmup_steps=150))
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(saturation=0.0, hue=0.0, gray_p=0.0))
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    alert: AlertConfig = field(default_factory=AlertConfig)
    intervene: InterveneConfig = field(default_factory=InterveneConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    batch_size: int = 256
    """Images a step over all processes (each is seen in two crops)."""
    epochs: float | None = None
    """Length of the run in passes over the data; None with steps."""
    steps: int | None = 1500
    """Length of the run in steps; None with epochs."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    device: str = "auto"
    """Auto takes a GPU if there is one; or a torch device such as cpu or cuda:0."""
    amp: Precision = "off"
    """Mixed precision (fp16 with a gradient scaler), in which the loss stays in float32; off is float32 throughout, and
    float64, which is slow, tells rounding from what training does by itself."""
    trace: str | None = None
    """Folder in which the trace is written; None records nothing."""
    overwrite: bool = False
    """Replace a trace and checkpoints that are there already."""
    checkpoint_dir: str | None = None
    """Folder in which checkpoints are kept; None saves none."""
    checkpoint_every: int = 1000
    """Steps from one checkpoint to the next; the end of the run is always saved."""
    checkpoint_keep: int = 2
    """Number of the newest checkpoints that are kept."""
    resume: bool = False
    """Continue from the newest checkpoint in checkpoint_dir."""
    nonfinite: NonFinite = "stop"
    """When a loss or a gradient is not finite: stop at the next printed line, with the weights from before; skip the
    updates of such steps alone; or record what happens and make them all. (With an optimizer other than adamw the first
    two wait for a GPU at every step.)"""
    log_every: int = 50
    """Steps from one printed line to the next."""

    def __post_init__(self) -> None:
        positive(self, "batch_size", "checkpoint_every", "checkpoint_keep", "log_every")
        choice(self, "backbone", Backbone)
        choice(self, "amp", Precision)
        choice(self, "nonfinite", NonFinite)
        if self.batch_size < 2:
            raise ValueError("batch_size 1 leaves no other image to contrast with: use at least 2.")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs {self.epochs} and steps {self.steps}: give one, and None for the other.")
        positive(self, "epochs" if self.steps is None else "steps")
        self._check_backbone()
        self._check_warmup()
        self._check_colours()
        self._check_output()

    def _check_backbone(self) -> None:
        other, default = ("resnet", ResNetConfig()) if self.backbone == "vit" else ("vit", VitConfig())
        if getattr(self, other) != default:
            raise ValueError(
                f"settings of {other} would have no effect with backbone {self.backbone!r}: leave them at their "
                f"defaults, or choose backbone {other!r}."
            )
        treatment = self.method.patch_projection
        if treatment != "learned" and not self.network.patches:
            what = "a ResNet" if self.backbone == "resnet" else "a ViT with a convolutional stem"
            raise ValueError(
                f"patch_projection {treatment!r} would have no effect on {what}, which has no patch projection: "
                "leave it at 'learned'."
            )

    def _check_warmup(self) -> None:
        for unit in ("steps", "epochs"):
            length, warmup = getattr(self, unit), getattr(self.optim, f"warmup_{unit}")
            if length is not None and warmup is not None and warmup >= length:
                raise ValueError(f"warmup_{unit} {warmup} must be less than {unit} {length}, the whole run.")

    def _check_colours(self) -> None:
        colour = [name for name in ("saturation", "hue", "gray_p") if getattr(self.augment, name)]
        if self.network.in_chans == 1 and colour:
            raise ValueError(f"augment: {', '.join(colour)} would have no effect on gray images: set to 0.")

    def _check_output(self) -> None:
        if self.checkpoint_dir is None:
            without_effect(self, "without checkpoint_dir", "checkpoint_every", "checkpoint_keep", "resume")
        if self.trace is None:
            without_effect(self.probe, "without trace", "flight_recorder", "staleness_control")
            without_effect(self.alert, "without trace", "line", "file", "webhook")
        if self.trace is None and self.checkpoint_dir is None:
            without_effect(self, "without trace and checkpoint_dir", "overwrite")
        if self.overwrite and self.resume:
            raise ValueError("overwrite and resume contradict each other: give one of them.")

    @property
    def network(self) -> VitConfig | ResNetConfig:
        """The backbone that is trained.

        >>> TrainConfig().network.dim
        32
        """
        return self.vit if self.backbone == "vit" else self.resnet

    @property
    def lr(self) -> float:
        """Peak learning rate of this batch size (linear scaling rule, paper Sec. 4.1).

        >>> TrainConfig(batch_size=1024).lr
        0.032
        """
        return self.optim.base_lr * self.batch_size / 256

    def total_steps(self, steps_per_epoch: int) -> int:
        """Length of the run in steps, for a data set that gives `steps_per_epoch` of them.

        >>> TrainConfig(epochs=2.5, steps=None).total_steps(234)
        585
        """
        return self.steps if self.steps is not None else round(self.epochs * steps_per_epoch)  # pyright: ignore

    def warmup_epochs(self, steps_per_epoch: int) -> float:
        """Length of the warm-up in epochs, 0 without one; raises ValueError if the run is not longer.

        >>> TrainConfig().warmup_epochs(234)
        0.6410256410256411
        """
        if self.optim.warmup_steps is not None:
            warmup = self.optim.warmup_steps / steps_per_epoch
        else:
            warmup = self.optim.warmup_epochs or 0.0
        total = self.total_steps(steps_per_epoch) / steps_per_epoch
        if warmup >= total:
            raise ValueError(f"a warm-up of {warmup:g} epochs must be shorter than the run ({total:g}).")
        return warmup
