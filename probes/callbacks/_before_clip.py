"""A look at the gradients right before Accelerate clips them, by standing in for its two clips."""

from __future__ import annotations

__all__ = ["BeforeClip"]

from collections.abc import Callable
from typing import Any

CLIPS = ("clip_grad_norm_", "clip_grad_value_")


class BeforeClip:
    """Calls `look` before each clip of `accelerator` at the end of an accumulated batch; `remove()` ends that.

    With fp16 it unscales first, since the clip, which would do it, comes after the look.
    """

    def __init__(self, accelerator: Any, look: Callable[[], None]) -> None:
        self._accelerator, self._look = accelerator, look
        for name in CLIPS:
            setattr(accelerator, name, self._standing_in(getattr(accelerator, name)))

    def remove(self) -> None:
        """Give the accelerator its own clips back; a second call does nothing."""
        for name in CLIPS:
            vars(self._accelerator).pop(name, None)

    def _standing_in(self, clip: Callable[..., Any]) -> Callable[..., Any]:
        accelerator = self._accelerator

        def look_and_clip(*args: Any, **kwargs: Any) -> Any:
            if not accelerator.sync_gradients:
                return clip(*args, **kwargs)
            accelerator.unscale_gradients()
            self._look()
            accelerator.unscale_gradients = lambda optimizer=None: None  # twice is an error
            try:
                return clip(*args, **kwargs)
            finally:
                del accelerator.unscale_gradients

        return look_and_clip
