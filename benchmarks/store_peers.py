"""Other stores of a run, each used as its manual says: written step by step, 150 scalars a step; times in seconds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PEERS", "Peer"]

_COLUMNS = 1500


class Peer:
    """A store: `write` returns the seconds spent in it; the three reads work on what was written."""

    name = ""
    reads = True  # whether it can be read without its server

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """Write norms: f32[L, T], a step at a time; return the seconds."""
        raise AssertionError

    def overview(self) -> Any:
        """Minimum and maximum of every layer in 1,500 columns."""
        raise AssertionError

    def last(self, name: str, steps: int) -> Any:
        """The newest steps of one layer."""
        raise AssertionError

    def tick(self, steps: int) -> Any:
        """The newest steps of all layers, from a fresh opening."""
        raise AssertionError

    def shown(self, names: Sequence[str], spikes: list[tuple[int, int]], heights: list[float]) -> int | None:
        """How many planted spikes its own view has; None if it has no view of a whole run."""


def _reduce(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.linspace(0, values.shape[-1], _COLUMNS, endpoint=False).astype(int)
    return np.minimum.reduceat(values, starts, axis=-1), np.maximum.reduceat(values, starts, axis=-1)


class TensorBoard(Peer):
    """tensorboardX's SummaryWriter; read by the package tensorboard, which its server uses too."""

    name = "TensorBoard"

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """One add_scalar a layer a step."""
        from tensorboardX import SummaryWriter

        self._folder = folder
        rows = norms.T.tolist()
        start = time.perf_counter()
        with SummaryWriter(str(folder)) as writer:
            for step, row in enumerate(rows):
                for name, value in zip(names, row, strict=True):
                    writer.add_scalar(f"grad_norm/{name}", value, step)
        return time.perf_counter() - start

    def _load(self, kept: int) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self._folder), size_guidance={"scalars": kept})
        events.Reload()
        return events

    def overview(self) -> Any:
        """Everything is loaded, whatever is asked."""
        events = self._load(0)
        tags = events.Tags()["scalars"]
        return _reduce(np.array([[event.value for event in events.Scalars(tag)] for tag in tags]))

    def last(self, name: str, steps: int) -> Any:
        """Everything is loaded, whatever is asked."""
        return self._load(0).Scalars(f"grad_norm/{name}")[-steps:]

    def tick(self, steps: int) -> Any:
        """A fresh opening loads everything."""
        events = self._load(0)
        return [events.Scalars(tag)[-steps:] for tag in events.Tags()["scalars"]]

    def shown(self, names: Sequence[str], spikes: list[tuple[int, int]], heights: list[float]) -> int:
        """In the 1,000 points a tag that its server keeps."""
        events = self._load(1000)
        kept = {name: {event.value for event in events.Scalars(f"grad_norm/{name}")} for name in names}
        return sum(high in kept[names[layer]] for (layer, _), high in zip(spikes, heights, strict=True))


class WandbOffline(Peer):
    """wandb.log without a network; nothing but its server draws it, so no reads."""

    name = "W&B offline"
    reads = False

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """One log a step; finish() is counted, since it writes what waits."""
        import wandb

        os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        quiet = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off")
        run = wandb.init(project="bench", dir=str(folder), settings=quiet)
        keys = [f"grad_norm/{name}" for name in names]
        rows = norms.T.tolist()
        start = time.perf_counter()
        for row in rows:
            run.log(dict(zip(keys, row, strict=True)))
        run.finish()
        return time.perf_counter() - start


class Trackio(Peer):
    """trackio's own database (SQLite), read through its API."""

    name = "trackio"

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """One log a step; finish() is counted."""
        os.environ |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
        import trackio

        keys = [f"grad_norm/{name}" for name in names]
        rows = norms.T.tolist()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how to look at the run
            trackio.init(project="bench", name="run", embed=False)
            start = time.perf_counter()
            for row in rows:
                trackio.log(dict(zip(keys, row, strict=True)))
            trackio.finish()
            return time.perf_counter() - start

    def _logs(self) -> list[dict[str, Any]]:
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage.get_logs("bench", "run")

    def overview(self) -> Any:
        """Every row comes as a dictionary."""
        keys = [key for key in self._logs()[0] if key.startswith("grad_norm/")]
        return _reduce(np.array([[row[key] for key in keys] for row in self._logs()]).T)

    def last(self, name: str, steps: int) -> Any:
        """Every row is read, whatever is asked."""
        return [row[f"grad_norm/{name}"] for row in self._logs()[-steps:]]

    def tick(self, steps: int) -> Any:
        """Every row is read, whatever is asked."""
        return self._logs()[-steps:]


class Parquet(Peer):
    """A file of 1,024 steps at a time through pyarrow, a column a layer."""

    name = "Parquet, 1,024 steps a file"

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """Rows wait in memory until a file is full."""
        import pyarrow
        import pyarrow.parquet

        self._folder = folder
        start = time.perf_counter()
        for number, first in enumerate(range(0, norms.shape[1], 1024)):
            part = norms[:, first : first + 1024]
            columns = dict(zip(names, part, strict=True))
            table = pyarrow.table({"step": np.arange(first, first + part.shape[1]), **columns})
            pyarrow.parquet.write_table(table, folder / f"{number:06d}.parquet", compression="zstd")
        return time.perf_counter() - start

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))

    def overview(self) -> Any:
        """Everything is read."""
        import pyarrow.parquet

        parts = [pyarrow.parquet.read_table(file).drop_columns("step") for file in self._files()]
        return _reduce(np.concatenate([np.array([c.to_numpy() for c in part.columns]) for part in parts], axis=1))

    def last(self, name: str, steps: int) -> Any:
        """One column of the newest files."""
        import pyarrow.parquet

        files = self._files()[-(-(-steps // 1024) + 1) :]
        return np.concatenate([pyarrow.parquet.read_table(file, columns=[name])[name].to_numpy() for file in files])[
            -steps:
        ]

    def tick(self, steps: int) -> Any:
        """The newest file: rows that don't fill one yet can't be seen."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(self._files()[-1])
        return table.slice(max(0, table.num_rows - steps))


class SqliteRows(Peer):
    """A JSON row a step in SQLite, as several trackers do."""

    name = "SQLite, a JSON row a step"

    def write(self, folder: Path, names: Sequence[str], norms: np.ndarray) -> float:
        """A commit every 256 rows."""
        self._path = folder / "run.db"
        rows = norms.T.tolist()
        start = time.perf_counter()
        with sqlite3.connect(self._path) as base:
            base.execute("create table metrics (step integer primary key, metrics text)")
            for step, row in enumerate(rows):
                base.execute(
                    "insert into metrics values (?, ?)", (step, json.dumps(dict(zip(names, row, strict=True))))
                )
                if step % 256 == 255:
                    base.commit()
        base.close()
        return time.perf_counter() - start

    def _rows(self, steps: int | None) -> list[dict[str, float]]:
        with sqlite3.connect(self._path) as base:
            limit = "" if steps is None else f" limit {steps:d}"
            found = base.execute(f"select metrics from metrics order by step desc{limit}").fetchall()
        base.close()
        return [json.loads(text) for (text,) in found]

    def overview(self) -> Any:
        """Everything is read."""
        return _reduce(np.array([list(row.values()) for row in self._rows(None)]).T)

    def last(self, name: str, steps: int) -> Any:
        """Whole rows are read."""
        return [row[name] for row in self._rows(steps)]

    def tick(self, steps: int) -> Any:
        """Whole rows are read."""
        return self._rows(steps)


PEERS: tuple[type[Peer], ...] = (TensorBoard, WandbOffline, Trackio, Parquet, SqliteRows)
