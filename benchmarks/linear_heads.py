"""The linear probe's sweep: all learning rates in one matrix product against one after another; ratios of seconds.

Both do the same updates but for rounding (a test says so). Features are made up:

    OMP_NUM_THREADS=1 python benchmarks/linear_heads.py
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from foreshock.trainer.evaluate._heads import Recipe, train_heads

LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def seconds(features: torch.Tensor, labels: torch.Tensor, classes: int, lrs: tuple[float, ...]) -> float:
    start = time.perf_counter()
    train_heads(features, labels, classes, Recipe(lrs, epochs=1))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table(title=f"An epoch of {len(LRS)} heads, {options.images:,} images, {torch.get_num_threads()} thread(s)")
    for heading in ("features", "classes", "one by one, s", "side by side, s", "ratio (median of pairs)"):
        table.add_column(heading, justify="right")
    for dim, classes in ((32, 10), (384, 10), (384, 100)):
        features = torch.randn(1, options.images, dim)
        labels = torch.randint(classes, (options.images,))
        pairs = []
        for _ in range(options.rounds):
            alone = sum(seconds(features, labels, classes, (lr,)) for lr in LRS)
            pairs.append((alone, seconds(features, labels, classes, LRS)))
        alone, beside = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        table.add_row(str(dim), str(classes), f"{alone:.3f}", f"{beside:.3f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
