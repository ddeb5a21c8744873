"""How a callback begins to watch: afresh at step 0, or going on in the trace of the run that is resumed."""

from __future__ import annotations

__all__ = ["bare_optimizer", "start"]

from os import PathLike
from typing import Any

from ...traces.errors import TraceNotFoundError
from ...traces.reader import open_trace
from ..watch import Watch, watch


def start(model: Any, optimizer: Any, path: str | PathLike[str], step: int, **options: Any) -> Watch:
    """Watch from step `step` on; a trace that is there goes on if the run does.

    Raises what `watch` raises: TraceExistsError for a trace at `path` when the run starts afresh.
    """
    if not step or not options.get("enabled", True):
        return watch(model, bare_optimizer(optimizer), path, **options)
    options = options | {"overwrite": False}
    try:
        open_trace(path)
    except TraceNotFoundError:
        started = watch(model, bare_optimizer(optimizer), path, **options)
        started.next_step = step
        return started
    return watch(model, bare_optimizer(optimizer), path, resume_at=step, **options)


def bare_optimizer(optimizer: Any) -> Any:
    """The torch optimizer inside a framework's wrapper of it."""
    while not hasattr(optimizer, "register_step_pre_hook") or type(optimizer).__name__ == "AcceleratedOptimizer":
        if not hasattr(optimizer, "optimizer"):
            break  # watch() says what is wrong with it
        optimizer = optimizer.optimizer
    return optimizer
