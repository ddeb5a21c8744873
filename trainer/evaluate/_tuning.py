"""How a network is fine-tuned: the numbers published for the transfer of MoCo v3, and the schedule; lr per update.

Source: arXiv 2104.02057, Sec. 6.4 and Table 5, whose recipe is DeiT's (arXiv 2012.12877). The paper gives no numbers;
the authors' published commands do, and there 128 images a step are those of one of eight GPUs.
"""

__all__ = ["TRANSFER", "Tuning", "lr_at", "parameter_groups"]

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config_checks import fraction, not_negative, positive


@dataclass(frozen=True)
class Tuning:
    """AdamW with a cosine, and the regularisation; every layer has the same learning rate."""

    epochs: int = 100
    batch_size: int = 128
    base_lr: float = 3e-4
    weight_decay: float = 0.1
    warmup_epochs: float = 3.0
    min_lr: float = 1e-5
    smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    drop_path: float = 0.1
    erasing: float = 0.0
    rand_augment: int = 9

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "base_lr")
        not_negative(self, "weight_decay", "warmup_epochs", "min_lr", "mixup", "cutmix", "rand_augment")
        fraction(self, "smoothing", "drop_path", "erasing")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs {self.epochs}.")
        if 1.0 in (self.smoothing, self.drop_path):
            raise ValueError("smoothing and drop_path of 1 leave nothing to learn from: choose less.")

    @property
    def lr(self) -> float:
        """Peak learning rate, by DeiT's rule for 512 images.

        >>> Tuning().lr
        7.5e-05
        """
        return self.base_lr * self.batch_size / 512


TRANSFER: Mapping[str, Mapping[str, Any]] = {
    "cifar-10": {},
    "cifar-100": {"mixup": 0.5},
    "flowers-102": {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.25, "weight_decay": 0.3},
    "pets": {"cutmix": 0.0, "drop_path": 0.0},
}
"""Table 5: what differs from `Tuning()` for each data set."""


def lr_at(epoch: float, tuning: Tuning) -> float:
    """The learning rate at a point of the run in epochs: linear warm-up from 0, then half a cosine to `min_lr`.

    >>> [round(lr_at(e, Tuning(epochs=11, warmup_epochs=1, base_lr=4e-3, min_lr=0)), 6) for e in (0, 0.5, 1, 6, 11)]
    [0.0, 0.0005, 0.001, 0.0005, 0.0]
    """
    if epoch < tuning.warmup_epochs:
        return tuning.lr * epoch / tuning.warmup_epochs
    low = min(tuning.min_lr, tuning.lr)
    done = (epoch - tuning.warmup_epochs) / (tuning.epochs - tuning.warmup_epochs)
    return low + (tuning.lr - low) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices are decayed; biases, norms, class token and position table are not.

    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2).named_parameters(), 0.1)]
    [1, 1]
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in named:
        bare = parameter.ndim <= 1 or name.endswith(("cls_token", "pos_embed"))
        (free if bare else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
