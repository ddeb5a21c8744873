"""Two real processes that meet over gloo on the loopback device, and part in order."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["two_processes"]


def two_processes(worker: Callable[..., None], folder: Path, *args: Any) -> None:
    """Run `worker(rank, folder, *args)` in two processes of one thread each; an exception in one is raised here."""
    mp.spawn(_process, (worker, folder, args), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]


def _process(rank: int, worker: Callable[..., None], folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker(rank, folder, *args)
    # A model in a reference cycle keeps its group, and the group its threads: one that asks for the interpreter's
    # lock while Python ends aborts the process.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
