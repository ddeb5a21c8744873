"""The processes of a run: one alone, or those that torchrun starts on one machine or many; times are in seconds.

`join` reads torchrun's environment. A process alone goes the same way through the code, where every exchange with the
others is none. Rank 0 writes and speaks for all.
"""

__all__ = ["DistributedError", "PeerError", "Processes", "StopVote", "join", "leave", "lost_peer", "pick_device"]

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .gathering import world

Value = TypeVar("Value")
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What the backends say when another process is gone; gloo has no exception of its own.
LOST = ("gloo", "Gloo", "NCCL", "nccl", "Connection reset", "Connection closed", "Broken pipe", "Timed out", "Store")


class DistributedError(ValueError):
    """The processes cannot work together: the message says which setting or process is at fault."""


class PeerError(DistributedError):
    """Another process cannot go on, and says why."""


@dataclass(frozen=True)
class Processes:
    """How many there are, which this is, and a channel on which hosts talk without their devices."""

    count: int = 1
    rank: int = 0
    channel: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, total: int, what: str) -> int:
        """Of `total`, the equal part of each process; DistributedError if there is none.

        >>> Processes(count=4).share(256, "batch_size")
        64
        """
        if total % self.count:
            near = max(1, total // self.count) * self.count
            raise DistributedError(
                f"{what} {total} cannot be divided among {self.count} processes: choose a multiple, such as {near}."
            )
        return total // self.count

    def from_main(self, value: Any) -> Any:
        """What rank 0 calls with, in every process."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values, src=0, group=self.channel)
        return values[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process cannot do, none does: the first one's ValueError or OSError is a PeerError in the others.

        Without it, these would wait for the one that has stopped. Nothing inside may wait for another process.

        >>> with Processes().together():
        ...     print("alone")
        alone
        """
        error: Exception | None = None
        try:
            yield
        except (ValueError, OSError) as own:
            error = own
        if self.count > 1:
            reasons: list[str | None] = [None] * self.count
            dist.all_gather_object(reasons, None if error is None else str(error), group=self.channel)
            failed = next((rank for rank, reason in enumerate(reasons) if reason is not None), self.rank)
            if failed != self.rank:
                raise PeerError(f"process {failed}: {reasons[failed]}") from error
        if error is not None:
            raise error

    def by_turns(self, load: Callable[[], Value]) -> Value:
        """`load()`, first by one process on each machine, then by the others, which find what that one downloaded.

        Errors are those of `together`.

        >>> Processes().by_turns(lambda: 3)
        3
        """
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        values = []
        for turn in (first, not first):
            with self.together():
                if turn:
                    values.append(load())
        return values[0]


class StopVote:
    """Makes a request to stop that reached one process known to all, in the same step of each.

    A vote is begun in one step and read in the next, when it has long arrived: no step waits for it, and no device is
    asked. Alone, a request is granted in its own step.

    >>> StopVote(Processes()).cast(2)
    2
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._vote: torch.Tensor | None = None
        self._work: Any = None

    def cast(self, asked: int) -> int:
        """Vote with this process's signal number or 0; the largest that any process voted with a step ago."""
        if self._processes.count == 1:
            return asked
        result = self.finish()
        self._vote = torch.tensor([asked])
        self._work = dist.all_reduce(self._vote, dist.ReduceOp.MAX, group=self._processes.channel, async_op=True)
        return result

    def finish(self) -> int:
        """The result of the vote that is under way; 0 without one."""
        if self._work is None:
            return 0
        self._work.wait()
        assert self._vote is not None
        self._work = None
        return int(self._vote.numpy()[0])


def _launched() -> bool:
    """Whether the environment is that of one of several processes (torchrun sets it)."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a CUDA or Apple GPU if there is one, else the CPU.

    Of several processes on a machine each takes its own GPU. Raises ValueError for a device that is not there.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cpu" if name == "mps" and _launched() else name
    try:
        device = torch.device(name)
        if device.type == "cuda" and _launched():
            device = _own_gpu(device)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"device {name!r} cannot be used ({reason}): choose auto, cpu, cuda or mps.") from error
    return device


def join(device: torch.device, timeout: float) -> Processes:
    """Meet the other processes that torchrun started, nccl on CUDA and gloo elsewhere; a process alone meets none.

    A group that is there already is taken. After `timeout` s without a sign of another process, waiting for it fails.
    Raises DistributedError.

    >>> join(torch.device("cpu"), timeout=60)
    Processes(count=1, rank=0, channel=None)
    """
    if not dist.is_available() or (not _launched() and not dist.is_initialized()):
        return Processes()
    limit = timedelta(seconds=timeout)
    if not dist.is_initialized():
        _meet(device, limit)
    count, rank = world()
    return Processes(count, rank, dist.new_group(backend="gloo", timeout=limit) if count > 1 else None)


def leave() -> None:
    """Part from the other processes, if there are any; to be called before a process of torchrun ends.

    The caller gives up its run first: what still holds a group keeps its threads, and one of them that asks for the
    interpreter's lock while Python ends aborts the process.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def lost_peer(error: Exception) -> str | None:
    """What `error` says of another process that is gone or silent; None if it is about something else.

    >>> lost_peer(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    'its connection is closed'
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not any(word in text for word in LOST):
        return None
    return "it gives no sign any more" if "imed out" in text or "imeout" in text else "its connection is closed"


def _meet(device: torch.device, limit: timedelta) -> None:
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise DistributedError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set: start the processes by "
            "torchrun, or unset WORLD_SIZE to train alone."
        )
    if device.type not in ("cpu", "cuda"):
        raise DistributedError(f"several processes cannot train on {device.type}: choose cpu or cuda.")
    backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend, timeout=limit, device_id=own)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise DistributedError(
            f"process {os.environ['RANK']} cannot meet the others at {address} ({reason}): check that all of them "
            "were started and can reach that address."
        ) from error


def _own_gpu(device: torch.device) -> torch.device:
    """The GPU of this process; an index in `device` would have all processes of a machine on one."""
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.index is not None and os.environ.get("LOCAL_WORLD_SIZE", "1") != "1":
        raise ValueError(f"device {str(device)!r} would be shared by all processes of this machine: give cuda.")
    if local >= here:
        raise ValueError(
            f"process {local} of this machine finds {here} GPUs: start no more processes than GPUs "
            "(torchrun --nproc-per-node gpu)."
        )
    return device if device.index is not None else torch.device("cuda", local)
