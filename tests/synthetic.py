"""A made-up run that looks like a real one: log-normal gradient norms with a few spikes, and a kNN curve with a dip.

`python -m tests.synthetic runs/demo` writes one; `--live 20` writes it at 20 steps a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreshock.traces.writer import TraceWriter


@dataclass(frozen=True)
class Planted:
    """A rise of every layer by up to `ratio`, first at `step`, `delay` steps later in the last layer."""

    step: int
    ratio: float
    delay: int = 9
    dip: float = 0.0  # how far the kNN accuracy falls afterwards (0..1)
    last_share: float = 0.6  # the last layer's log ratio as a share of the first's


PLANTED = (Planted(620, 3.4), Planted(1012, 6.9, dip=0.10), Planted(1290, 4.2, delay=14, dip=0.04))


@dataclass(frozen=True)
class Made:
    layers: tuple[str, ...]
    steps: np.ndarray  # i64[T]
    grad_norm: np.ndarray  # f32[L, T]
    scalars: dict[str, np.ndarray]  # f64[T] each


def layer_names(blocks: int) -> tuple[str, ...]:
    return ("patch_embed", *(f"blocks.{i:02d}" for i in range(blocks)), "norm")


def make(
    rows: int = 1500,
    blocks: int = 12,
    planted: Sequence[Planted] = PLANTED,
    frozen: Sequence[str] = (),
    knn_every: int = 4,
    queries: int = 2048,
    seed: int = 0,
) -> Made:
    """Series of `rows` steps with the events of `planted` in them; layers named in `frozen` are NaN."""
    rng = np.random.default_rng(seed)
    layers = layer_names(blocks)
    steps = np.arange(rows)
    depth = np.linspace(0, 1, len(layers))
    noise = rng.normal(0, 0.11, (len(layers), rows))
    for t in range(1, rows):
        noise[:, t] += 0.55 * noise[:, t - 1]
    level = np.log(0.9 - 0.65 * depth)[:, None] + 1.1 * np.exp(-steps / 120) - 0.45 * steps / max(rows, 1)
    log_norm = level + noise
    share = np.zeros(rows)
    for event in planted:
        for row, d in enumerate(depth):
            since = steps - event.step - event.delay * d
            shape = np.where(since < 0, np.exp(-(since**2) / 2), np.exp(-since / (3 + 9 * d)))
            log_norm[row] += np.log(event.ratio) * (1 - (1 - event.last_share) * d) * shape
        since = steps - event.step - event.delay - 2
        share += event.dip * np.where(since < 0, 0, np.exp(-since / 18.0))
    grad_norm = np.exp(log_norm).astype(np.float32)
    for name in frozen:
        grad_norm[layers.index(name)] = np.nan
    truth = 0.10 + 0.52 * (1 - np.exp(-steps / 420)) - share
    knn = rng.binomial(queries, np.clip(truth, 0, 1)) / queries
    knn[steps % knn_every != 0] = np.nan
    chance = np.full(rows, np.log(256.0))
    loss = chance * (0.42 + 0.55 * np.exp(-steps / 260)) + 6 * share + rng.normal(0, 0.03, rows)
    scalars = {
        "loss": loss,
        "chance_loss": chance,
        "lr": 1e-3 * np.minimum(1, (steps + 1) / 100),
        "knn_accuracy": knn,
        "knn_queries": np.where(np.isnan(knn), np.nan, queries),
        "contrastive_accuracy": np.clip(1 - loss / chance, 0, 1),
        "step_time": np.full(rows, 0.05),
    }
    return Made(layers, steps, grad_norm, scalars)


def without(made: Made, *names: str) -> Made:
    """The same series, less the scalars `names`."""
    kept = {k: v for k, v in made.scalars.items() if k not in names}
    return Made(made.layers, made.steps, made.grad_norm, kept)


def meta(rows: int) -> dict[str, object]:
    knn = {"k": 200, "temperature": 0.07, "queue": 6000, "metric": "cosine", "every": 4}
    return {
        "total_steps": rows,
        "trainer": "mocov3",
        "warmup_steps": 100,
        "batch_size": 256,
        "dataset": "fashion-mnist",
        "knn": knn,
    }


def open_writer(path: Path, made: Made, **options) -> TraceWriter:
    return TraceWriter(path, layers=made.layers, meta=meta(len(made.steps)), **options)


def write_run(path: str | Path, made: Made | None = None, *, close: bool = True) -> Path:
    """Write `made` at `path` in one go; returns the path."""
    made = make() if made is None else made
    writer = open_writer(Path(path), made)
    append(writer, made, slice(0, len(made.steps)))
    if close:
        writer.close()
    else:
        writer.flush()
    return Path(path)


def append(writer: TraceWriter, made: Made, rows: slice) -> None:
    values = {name: series[rows] for name, series in made.scalars.items()}
    writer.extend(made.steps[rows], {"grad_norm": made.grad_norm[:, rows], **values})


def play(path: str | Path, made: Made, *, rate: float, start: int = 0) -> Iterator[int]:
    """Write `made` row by row at `rate` steps a second, with `start` rows at once first; yields the step written."""
    with open_writer(Path(path), made, flush_seconds=0.3) as writer:
        append(writer, made, slice(0, start))
        for row in range(start, len(made.steps)):
            values = {name: float(series[row]) for name, series in made.scalars.items()}
            writer.append(int(made.steps[row]), {"grad_norm": made.grad_norm[:, row], **values})
            yield int(made.steps[row])
            time.sleep(1 / rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--live", type=float, default=0.0, help="steps a second; 0 writes all at once")
    parser.add_argument("--start", type=int, default=0, help="rows written at once before the live ones")
    args = parser.parse_args()
    made = make(args.rows, args.blocks)
    if not args.live:
        write_run(args.path, made)
        return
    for _ in play(args.path, made, rate=args.live, start=args.start):
        pass


if __name__ == "__main__":
    main()
