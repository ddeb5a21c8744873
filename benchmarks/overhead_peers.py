"""Other loggers of gradients, each used as its manual says at every step; what they write lies in a folder each.

A way has `begin` (attach hooks), `call` (what the loop calls between backward and the optimizer's step) and `end`.
`inside` says that its work is also in forward or backward, so that a whole step with and one without it are compared.
Several ways of one name are kinds of step of the same logger, `share` says how often each of them comes. `waits` are
those for a device that a dispatch mode doesn't see: a `tolist()` is one, and `torch.tensor` of n tensors are n.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PEERS", "Way"]


def _nothing() -> None:
    pass


@dataclass
class Way:
    """One logger: see the head of this file. `values`: numbers it keeps a step, None where it keeps histograms."""

    name: str
    call: Callable[[Tensor], Any]
    values: int | None
    folder: Path | None = None
    begin: Callable[[], Any] = _nothing
    end: Callable[[], Any] = _nothing
    close: Callable[[], Any] = _nothing
    inside: bool = False
    share: float = 1.0
    waits: int = 0


def _norms(model: nn.Module) -> dict[str, float]:
    """The norm of every tensor's gradient, in one pass and one wait: kinder than a loop over `.norm().item()`."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    values = torch.stack(torch._foreach_norm([grad for _, grad in named])).tolist()
    return {name: value for (name, _), value in zip(named, values, strict=True)}


def lightning_grad_norm(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[Way]:
    from lightning.pytorch.utilities import grad_norm

    tensors = len(list(model.parameters()))
    yield Way("Lightning's grad_norm, not logged", lambda _: grad_norm(model, 2), tensors, waits=tensors)


def tensorboard(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[Way]:
    from torch.utils.tensorboard import SummaryWriter

    board, steps = SummaryWriter(str(folder)), iter(range(10**9))

    def call(_: Tensor) -> None:
        step = next(steps)
        for name, value in _norms(model).items():
            board.add_scalar(name, value, step)

    tensors = len(list(model.parameters()))
    yield Way("TensorBoard, a scalar a tensor", call, tensors, folder, close=board.close, waits=1)


def wandb_scalars(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[Way]:
    run = _wandb(folder)
    yield Way(
        "wandb.log offline, a scalar a tensor",
        lambda _: run.log(_norms(model)),
        len(list(model.parameters())),
        folder,
        close=run.finish,
        waits=1,
    )


def wandb_watch(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[Way]:
    run = _wandb(folder)
    yield Way(
        "wandb.watch offline, log_freq=1",
        lambda loss: run.log({"loss": loss.detach()}),
        None,
        folder,
        begin=lambda: run.watch(model, log="gradients", log_freq=1),
        end=lambda: run.unwatch(model),
        close=run.finish,
        inside=True,
    )


def _wandb(folder: Path) -> Any:
    """A run, or the one that is open: wandb.watch writes to the global one only."""
    import wandb

    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    quiet = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off", reinit="return_previous")
    return wandb.init(project="bench", dir=str(folder), settings=quiet)


def trainscope(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[Way]:
    from trainscope import TrainScope, TrainScopeConfig

    scopes: list[Any] = []

    def begin(step: int = 0) -> None:  # a run of its own each time: its hooks can't be taken off for a while
        config = TrainScopeConfig(run_dir=str(folder), run_name=f"run-{len(scopes)}", integrations={"wandb": False})
        scopes.append(TrainScope(model, optimizer, config).attach())
        scopes[-1]._step_idx = step

    def end() -> None:
        scopes[-1].detach()

    # By default it looks at activations at every 5th step, and makes histograms of the weights at every 50th.
    for step, share in ((0, 1 / 50), (5, 9 / 50), (1, 40 / 50)):
        yield Way(
            "trainscope, default",
            lambda loss: scopes[-1].step(loss.item()),
            None,
            folder,
            lambda step=step: begin(step),
            end,
            inside=True,
            share=share,
        )


PEERS = (lightning_grad_norm, tensorboard, wandb_scalars, wandb_watch, trainscope)
