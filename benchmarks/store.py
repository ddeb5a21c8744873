"""What the store costs: bytes a value, microseconds a step, milliseconds a read, beside other trackers in the same run.

    python benchmarks/store.py

measures foreshock at a million steps, exact and with 11 bits, then at `--peer-steps` beside the stores of
`benchmarks/store_peers.py` that are installed (`pip install 'foreshock[bench]'`; the others are named). Best of several
for reads; the disk is the one of the temporary folder (TMPDIR).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from store_peers import PEERS, Peer

from foreshock.traces import Trace, TraceWriter, open_trace

SCALARS = (
    "loss",
    "lr",
    "momentum",
    "contrastive_accuracy",
    "knn_accuracy",
    "wall_time",
    "step_time",
    "grad_norm_total",
)
BLOCK = 8192
PLANTED = 1000
ZOOMS = (100, 500, 1500, 4000)  # columns of a picture of the whole run


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    bytes_a_value: float
    bytes_with_overview: float
    step_us: float
    stored_us: float
    overview_ms: float | None
    last_ms: float | None
    tick_ms: float | None
    files: int
    spikes: str

    @staticmethod
    def head(layers: int) -> str:
        """The table's head, in Markdown."""
        columns = (
            f"store ({layers} layers)", "steps", "B a value", "with overview", "µs a step", "until stored",
            "overview ms", "last 10,000 of a layer ms", "tick ms", "files", "one-step spikes at every zoom",
        )  # fmt: skip
        return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"

    def text(self, steps: int) -> str:
        """The line."""
        times = ["–" if x is None else f"{x:.1f}" for x in (self.overview_ms, self.last_ms, self.tick_ms)]
        sizes = [
            f"{self.bytes_a_value:.2f}",
            f"{self.bytes_with_overview:.2f}",
            f"{self.step_us:.1f}",
            f"{self.stored_us:.1f}",
        ]
        return f"| {' | '.join([self.name, f'{steps:,}', *sizes, *times, f'{self.files:,}', self.spikes])} |"


def gradient_norms(layers: int, steps: int) -> Iterator[np.ndarray]:
    """Log-normal series that wander slowly, in blocks [layers, n], as gradient norms do."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(layers, 1))
    for start in range(0, steps, BLOCK):
        n = min(BLOCK, steps - start)
        drift = level + np.cumsum(rng.normal(scale=0.003, size=(layers, n)), axis=1)
        level = 0.999 * drift[:, -1:]
        yield np.exp(drift + rng.normal(scale=0.1, size=(layers, n))).astype(np.float32)


def planted(layers: int, steps: int) -> list[tuple[int, int]]:
    """Layer and step of spikes of one step."""
    rng = np.random.default_rng(1)
    cells = rng.choice(layers * steps, size=min(PLANTED, layers * steps // 100), replace=False)
    return [(int(cell // steps), int(cell % steps)) for cell in cells]


def with_spikes(layers: int, steps: int) -> Iterator[np.ndarray]:
    """The same series with the planted spikes, a thousand-fold and more, each of a height of its own."""
    spikes = planted(layers, steps)
    for number, block in enumerate(gradient_norms(layers, steps)):
        for index, (layer, step) in enumerate(spikes):
            if number * BLOCK <= step < number * BLOCK + block.shape[1]:
                block[layer, step - number * BLOCK] = height(index)
        yield block


def height(index: int) -> float:
    """The height of a planted spike: a float32 with 11 bits of mantissa, so that rounding keeps it."""
    return 4096.0 + 2.0 * index


def best(repeats: int, work: Callable[[], object]) -> float:
    """Return the shortest of `repeats` durations, in milliseconds; what takes longer than a second isn't repeated."""
    durations: list[float] = []
    while len(durations) < repeats and sum(durations) < 1:
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations) * 1e3


def layer_names(layers: int) -> list[str]:
    """Names as a ViT's."""
    return [f"layer.{i:03d}" for i in range(layers)]


def write(path: Path, layers: int, steps: int, bits: int | None) -> tuple[float, float]:
    """Append row by row; return the microseconds a step that append() took, and those until all was stored."""
    scalars = dict.fromkeys(SCALARS, 0.5)
    spent = waited = 0.0
    with TraceWriter(path, layers=layer_names(layers), rounding_bits=bits) as writer:
        step = 0
        for block in with_spikes(layers, steps):
            rows = np.ascontiguousarray(block.T)
            start = time.perf_counter()
            for row in rows:
                writer.append(step, {"grad_norm": row, **scalars})
                step += 1
            appended = time.perf_counter()
            writer.flush()  # told apart: a real step leaves the writer's thread its time, this loop doesn't
            spent += appended - start
            waited += time.perf_counter() - appended
    return spent / steps * 1e6, (spent + waited) / steps * 1e6


def seen(trace: Trace, spikes: list[tuple[int, int]]) -> int:
    """How many planted spikes, each with its exact height, are in the picture at every zoom; others may hide none."""
    found = np.ones(len(spikes), bool)
    for columns in ZOOMS:
        cells = trace.overview("grad_norm", columns=columns)
        for index, (layer, step) in enumerate(spikes):
            cell = int(np.searchsorted(cells.last, step))
            there = [
                height(i)
                for i, (a, b) in enumerate(spikes)
                if a == layer and cells.first[cell] <= b <= cells.last[cell]
            ]
            found[index] &= bool(cells.max[layer, cell] == max(there))
    return int(found.sum())


def foreshock_row(folder: Path, layers: int, steps: int, bits: int | None = None) -> Row:
    """Measure everything on one trace."""
    path = folder / f"foreshock-{bits}"
    cost, stored = write(path, layers, steps, bits)
    files = [file for file in path.rglob("*") if file.is_file()]
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    raw = sum(size for name, size in sizes.items() if name.startswith("grad_norm/"))
    pyramid = sum(size for name, size in sizes.items() if name.startswith("overview/") and "/grad_norm/" in name)
    trace = open_trace(path)
    last, name = int(trace.steps[-1]), trace.layers[layers // 2]
    spikes = planted(layers, steps)
    values = layers * steps
    return Row(
        "foreshock" if bits is None else f"foreshock, {bits} bits",
        bytes_a_value=raw / values,
        bytes_with_overview=(raw + pyramid) / values,
        step_us=cost,
        stored_us=stored,
        overview_ms=best(5, lambda: trace.overview("grad_norm")),
        last_ms=best(9, lambda: trace.read("grad_norm", start=-10_000, layer=name)),
        tick_ms=best(9, lambda: trace.refresh().since(last - 100)),
        files=len(files),
        spikes=f"{seen(trace, spikes)} of {len(spikes)}",
    )


def peer_row(peer: Peer, folder: Path, layers: int, steps: int) -> Row:
    """Measure what another store can do."""
    names, spikes = layer_names(layers), planted(layers, steps)
    norms = np.concatenate(list(with_spikes(layers, steps)), axis=1)
    cost = peer.write(folder, names, norms) / steps * 1e6
    files = [file for file in folder.rglob("*") if file.is_file()]
    middle = names[layers // 2]
    reads = {
        "overview_ms": peer.overview,
        "last_ms": lambda: peer.last(middle, 10_000),
        "tick_ms": lambda: peer.tick(100),
    }
    times = {key: best(2, work) if peer.reads else None for key, work in reads.items()}
    shown = peer.shown(names, spikes, [height(i) for i in range(len(spikes))])
    size = sum(file.stat().st_size for file in files) / norms.size
    told = "–" if shown is None else f"{shown} of {len(spikes)}"
    return Row(peer.name, size, size, cost, cost, **times, files=len(files), spikes=told)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=150)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounding-bits", type=int, default=11, help="a second trace with so many bits; 0: none")
    parser.add_argument("--peer-steps", type=int, default=2_000, help="the other stores' steps; 0: without them")
    options = parser.parse_args()
    print(Row.head(options.layers))
    with tempfile.TemporaryDirectory() as folder:
        print(foreshock_row(Path(folder), options.layers, options.steps).text(options.steps), flush=True)
        if options.rounding_bits:
            row = foreshock_row(Path(folder), options.layers, options.steps, options.rounding_bits)
            print(row.text(options.steps), flush=True)
    if options.peer_steps:
        with tempfile.TemporaryDirectory() as folder:
            row = foreshock_row(Path(folder), options.layers, options.peer_steps)
            print(row.text(options.peer_steps), flush=True)
        for kind in PEERS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row = peer_row(kind(), Path(folder), options.layers, options.peer_steps)
                except ModuleNotFoundError as error:
                    print(f"| {kind.name} | {error.name} is not installed |", flush=True)
                    continue
                print(row.text(options.peer_steps), flush=True)


if __name__ == "__main__":
    main()
