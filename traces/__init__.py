"""The durable record of a run: written while training, read by anybody at any time, in steps and named units."""

from __future__ import annotations

from .errors import TraceError
from .reader import Rows, Trace, open_trace
from .runs import find_runs
from .schema import GRAD_NORM, Series
from .writer import TraceWriter

__all__ = ["GRAD_NORM", "Rows", "Series", "Trace", "TraceError", "TraceWriter", "find_runs", "open_trace"]
