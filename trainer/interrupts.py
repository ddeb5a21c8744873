"""Ctrl-C and a request to terminate, turned into a wish that the loop grants after its step."""

__all__ = ["Interrupts"]

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """`asked` is the number of the signal that came, or 0; a second one interrupts at once. A context manager.

    Outside the main thread, where Python handles no signals, it changes nothing.

    >>> with Interrupts() as stop:
    ...     signal.raise_signal(signal.SIGINT)
    ...     stop.asked
    2
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number
