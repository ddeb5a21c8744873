"""What the kNN monitor's evaluation costs: CPU ms, memory and agreement beside the plain formula and lightly's.

The plain one is a product, a sorted topk, a gather and a scatter over all queries at once, as most codebases have it.
Lightly's `knn_predict` takes part where the package lies (`pip install --no-deps --target FOLDER lightly`, then
`PYTHONPATH=FOLDER`). The three take turns; the figures are medians. Ours goes first, so that its peak of the process's
memory is its own.

    OMP_NUM_THREADS=1 python benchmarks/knn.py --rounds 15
    OMP_NUM_THREADS=1 python benchmarks/knn.py --bank 128000 --queries 4096 --dim 768 --rounds 1
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from foreshock.probes.sensors.feature_knn import FeatureKNN
from foreshock.probes.sensors.memory import Memory


def plain(queries: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    nearest, index = (queries @ bank.T).topk(k, dim=1)
    weights = (nearest / temperature).exp()
    return weights.new_zeros(len(queries), classes).scatter_add_(1, labels[index], weights).argmax(1)


def lightly_file() -> ModuleType | None:
    """The one file of lightly that it takes, without the rest of the package and what that needs."""
    package = importlib.util.find_spec("lightly")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "utils" / "benchmarking" / "knn.py"
    spec = importlib.util.spec_from_file_location("lightly_knn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=int, default=6000)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    centres = torch.randn(options.classes, options.dim)
    labels, truth = (torch.randint(options.classes, (n,)) for n in (options.bank, options.queries))
    noise = (options.dim / 8) ** 0.5  # some of the queries are answered wrongly
    bank = F.normalize(centres[labels] + noise * torch.randn(options.bank, options.dim), dim=1)
    queries = F.normalize(centres[truth] + noise * torch.randn(options.queries, options.dim), dim=1)
    knn = FeatureKNN(options.bank, options.dim, options.classes, k=options.k)
    knn.feed(bank, labels)
    knn.observe()
    their = lightly_file()
    ways: dict[str, Callable[[], Tensor]] = {
        "foreshock": lambda: knn._count_right(queries, truth),
        "plain": lambda: (plain(queries, bank, labels, options.classes, options.k, 0.07) == truth).sum(),
    }
    if their is not None:
        predict, turned = their.knn_predict, bank.T.contiguous()
        ways["lightly"] = lambda: (
            predict(queries, turned, labels, options.classes, knn_k=options.k, knn_t=0.07)[:, 0] == truth
        ).sum()
    memory = Memory("cpu", every=1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks, right = {}, {}
    for round_ in range(options.rounds + 1):  # the first warms up
        for name, way in ways.items():
            before = memory.observe()["memory_allocated"].item()
            start = time.process_time()
            right[name] = int(way())
            if round_ or options.rounds == 1:
                times[name].append(1e3 * (time.process_time() - start))
            if not round_:
                peaks[name] = (memory.observe()["memory_peak"].item() - before) / 2**20
    print(
        f"{options.queries} queries, {options.bank} features x {options.dim}, k {options.k}, "
        f"{options.classes} classes, {torch.get_num_threads()} thread(s)"
    )
    for name in ways:
        ratio = median(times[name]) / median(times["foreshock"])
        print(
            f"{name:10} {median(times[name]):10.2f} CPU ms ({ratio:5.2f} x)   right {right[name]}"
            f"   process memory up by at most {peaks[name]:7.0f} MiB"
        )


if __name__ == "__main__":
    main()
