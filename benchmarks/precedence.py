"""False positives, power, bias and coverage of the statistics, over simulated worlds in which the answer is known.

    python benchmarks/precedence.py                              # everything: 500 worlds a row, 6 minutes of a core
    python benchmarks/precedence.py --only onset_order --worlds 100

`positive` is the share of worlds with p <= .05: a false positive where nothing was planted, power where something was.
World w has seed 10,000 + w; surrogates are 199 a world (p is exact at .05 with any number). (The file is not called
statistics.py, since that would hide Python's own module from every benchmark.)
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from foreshock.probes import Dip, Spike, leaderboard, onset_order, precursors
from foreshock.probes.rate_ratio import rate_ratio

STEPS, SPIKES, DIPS, CAUSED = 20_000, 40, 12, 6  # 6 of 40 spikes cause a dip: 15 %
SURROGATES = 199
FIRST_SEED = 10_000
RATES = {"stationary": (0.0, 0), "follows the lr": (1.0, 0), "bursts": (0.0, 5), "both": (1.0, 5)}


def event_rate(rng: np.random.Generator, world: str) -> np.ndarray:
    """f64[STEPS], the chance of an event at each step: warm-up and cosine; 5 bursts of 1,000 steps at 5 times it."""
    power, bursts = RATES[world]
    at, warmup = np.arange(STEPS), 0.05 * STEPS
    cosine = 0.5 * (1 + np.cos(math.pi * (at - warmup) / (STEPS - warmup)))
    rate = np.where(at < warmup, at / warmup, cosine) ** power
    for start in rng.integers(0, STEPS - 1000, bursts):
        rate[start : start + 1000] *= 5
    return rate / rate.sum()


def drawn(rng: np.random.Generator, rate: np.ndarray, count: int) -> np.ndarray:
    return np.sort(rng.choice(STEPS, count, replace=False, p=rate))


def spikes_and_dips(
    rng: np.random.Generator, world: str, caused: int, reach: int, layers: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Onsets of each layer, and dips of which `caused` come 1 to `reach` steps after a spike of the first layer.

    The other layers share from .8 (the second) to .1 (the last) of the first one's spikes, up to 12 steps later.
    """
    rate = event_rate(rng, world)
    first = drawn(rng, rate, SPIKES)
    after = rng.choice(first, caused, replace=False) + rng.integers(1, reach + 1, caused)
    dips = np.unique(np.clip(np.concatenate([after, drawn(rng, rate, DIPS - caused)]), 1, STEPS - 1))
    onsets = [first]
    for share in np.linspace(0.8, 0.1, layers - 1):
        shared = int(SPIKES * share)
        follows = rng.choice(first, shared, replace=False) + rng.integers(0, 12, shared)
        own = np.concatenate([follows, drawn(rng, rate, SPIKES - shared)])
        onsets.append(np.sort(np.clip(own, 0, STEPS - 1)))
    return onsets, dips


def as_spikes(onsets: Sequence[np.ndarray]) -> list[Spike]:
    return [
        Spike(f"blocks.{k:02d}", int(at), int(at), int(at), int(at) + 1, ratio=5.0, z=9.0, area=2.0, kind="spike")
        for k, own in enumerate(onsets)
        for at in own
    ]


def as_dips(at: np.ndarray) -> list[Dip]:
    times = [{"onset_after": by - 1, "onset_by": by, "nadir": by + 1, "end": by + 9} for by in map(int, at)]
    return [Dip(**t, depth=0.1, area=0.9, t50=5, t90=9, kind="dip", base=0.6, staleness=None) for t in times]


def binomial_p(onsets: np.ndarray, dips: np.ndarray, lag: int) -> float:
    """What is usually done: the share of time within `lag` after a spike is each dip's chance of a hit."""
    covered = np.zeros(STEPS + lag + 1, bool)
    for at in onsets:
        covered[at + 1 : at + lag + 1] = True
    share, hits = covered[:STEPS].mean(), int(covered[dips].sum())
    return sum(math.comb(len(dips), k) * share**k * (1 - share) ** (len(dips) - k) for k in range(hits, len(dips) + 1))


def precursor_rows(worlds: int) -> Iterator[str]:
    cases = [(name, 0, 16, 1) for name in RATES] + [(name, CAUSED, 16, 1) for name in RATES]
    cases += [("both", 0, 16, 13), ("both", CAUSED, 16, 13), ("both", CAUSED, 64, 1), ("both", CAUSED, 64, 13)]
    for world, caused, reach, layers in cases:
        found, naive = [], []
        for w in range(worlds):
            rng = np.random.default_rng(FIRST_SEED + w)
            onsets, dips = spikes_and_dips(rng, world, caused, reach, layers)
            report = precursors(as_spikes(onsets), as_dips(dips), STEPS, surrogates=SURROGATES, seed=w)
            found.append(report.p)
            naive.append(binomial_p(onsets[0], dips, 16))
        planted = f"{caused} of {DIPS} dips caused, within {reach}" if caused else "independent"
        yield (
            f"{world:<15} {layers:>2} layers  {planted:<32} {worlds:>4} worlds  positive {share(found):.3f}  "
            f"(coverage and binomial, lag 16: {share(naive):.3f})"
        )


def rising(
    rng: np.random.Generator, sd: float, ramp: int, lag: float, first: float, last: float, fall: float = 12
) -> np.ndarray:
    """Norms f[12, T], 20 events: all layers rise in `ramp` steps, by `first` to `last` times, the last `lag` later.

    They fall by 1/e in `fall` steps (the first layer) to 12 (the last).
    """
    layers, events, gap, memory = 12, 20, 300, 0.55
    noise = rng.standard_t(5, (layers, gap * events + 200)) * math.sqrt(3 / 5)
    for t in range(1, noise.shape[1]):
        noise[:, t] = memory * noise[:, t - 1] + math.sqrt(1 - memory**2) * noise[:, t]
    depth, log_norm = np.arange(layers)[:, None] / (layers - 1), sd * noise
    for at in 200 + gap * np.arange(events):
        since = np.clip(np.arange(noise.shape[1]) - at - lag * depth, 0, None)
        down = np.exp(-(since - ramp) / (fall + (12 - fall) * depth))
        shape = np.where(since < ramp, since / ramp, down) * (since < gap)
        log_norm = log_norm + np.log(first + (last - first) * depth) * shape
    return np.exp(log_norm)


def onset_rows(worlds: int) -> Iterator[str]:
    cases = [(sd, ramp, 0.0, 12.0, 4.0, 12) for sd, ramp in ((0.05, 17), (0.11, 17), (0.2, 17), (0.11, 3), (0.2, 3))]
    cases += [(sd, 17, 0.0, 12.0, 4.0, 3) for sd in (0.11, 0.2)]
    cases += [(sd, 17, 6.0, *heights, 12) for sd in (0.11, 0.2) for heights in ((12.0, 4.0), (4.0, 12.0))]
    for sd, ramp, lag, first, last, fall in cases:
        count = worlds if not lag else max(1, worlds // 2)
        orders, crossed = [], []
        for w in range(count):
            rng = np.random.default_rng(FIRST_SEED + w)
            norms = rising(rng, sd, ramp, lag, first, last, fall)
            at = 200 + 300 * np.arange(20)
            orders.append(onset_order(norms, at + rng.integers(0, 4, 20), surrogates=SURROGATES, seed=w))
            over = [(norms[:, t - 20 : t + 60] > 2).argmax(axis=1) for t in at]
            crossed.append(np.mean([row[-1] - row[0] for row in over]))
        found = np.array([order.first_to_last for order in orders])
        within = np.mean(np.abs(found - lag) <= 1)
        covered = np.mean([order.low * 11 <= lag <= order.high * 11 for order in orders])
        yield (
            f"rises {first:g}x to {last:g}x in {ramp:>2} steps, falls in {fall} to 12, noise {sd:.2f}, "
            f"lag {lag:g}  {count:>4} worlds  "
            f"found {found.mean():+.2f} (sd {found.std():.2f}, within 1: {within:.2f}, covered {covered:.2f})  "
            f"positive {share([o.p for o in orders]):.3f}, reverse {share([o.p_reverse for o in orders]):.3f}  "
            f"(fixed threshold of 2x: {np.mean(crossed):+.1f})"
        )


def compare_rows(worlds: int) -> Iterator[str]:
    for seeds in (3, 5, 8):
        for scatter in (0.0, 0.3):
            rng = np.random.default_rng(FIRST_SEED)

            def counts(mean: float, seeds: int = seeds, scatter: float = scatter, rng=rng) -> np.ndarray:
                return rng.poisson(rng.gamma(1 / scatter, scatter * mean, seeds) if scatter else np.full(seeds, mean))

            same, fewer = [
                [rate_ratio(counts(10 * r), [1] * seeds, counts(10), [1] * seeds, rng=rng) for _ in range(worlds)]
                for r in (1.0, 0.3)
            ]
            cover = np.mean([one.low <= 0.3 <= one.high for one in fewer])
            exact = np.mean([one.exact_low <= 0.3 <= one.exact_high for one in fewer])
            yield (
                f"{seeds} seeds a side, 10 events a seed, {'independent' if not scatter else 'seeds scatter':<13} "
                f"{worlds:>4} worlds  covered {cover:.3f} (Poisson alone {exact:.3f})  "
                f"positive {share([one.p for one in same]):.3f} at ratio 1, "
                f"{share([one.p for one in fewer]):.3f} at 0.3"
            )


class Run:
    """A trace in memory: four layers and a loss."""

    def __init__(self, norms: np.ndarray, loss: np.ndarray) -> None:
        self.layers = tuple(f"blocks.{k:02d}" for k in range(len(norms)))
        self.steps, self.meta, self.series, self.scalars = np.arange(norms.shape[1]), {}, ("grad_norm",), ("loss",)
        self._values = {"grad_norm": norms, "loss": loss}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]


def leaderboard_rows(worlds: int) -> Iterator[str]:
    count = max(1, worlds // 5)
    for world, caused in (("stationary", 0), ("both", 0), ("stationary", CAUSED), ("both", CAUSED)):
        smallest, right, rates = [], [], []
        for w in range(count):
            rng = np.random.default_rng(FIRST_SEED + w)
            onsets, dips = spikes_and_dips(rng, world, caused, 16, 4)
            norms = np.exp(rng.normal(0, 0.1, (4, STEPS)))
            for row, own in zip(norms, onsets, strict=True):
                row[own] *= 4 + 2 * rng.random(len(own))
            run = Run(norms, np.exp(rng.normal(0, 0.05, STEPS)))
            board = leaderboard(run, as_dips(dips[dips > 100]), lag=32, false_alarms=20.0, surrogates=SURROGATES)
            smallest.append(min(signal.p for signal in board.signals))
            right.append(board.signals[0].name == "grad_norm/blocks.00")
            rates += [signal.false_alarms for signal in board.signals]
        yield (
            f"{world:<15} 5 signals, {caused} of {DIPS} dips caused  {count:>4} worlds  "
            f"positive {share(smallest):.3f}  the cause is first in {np.mean(right):.2f}  "
            f"false alarms {np.mean(rates):.1f} (sd {np.std(rates):.1f})"
        )


def share(p: Sequence[float | None]) -> float:
    return float(np.mean([value is not None and value <= 0.05 for value in p]))


PARTS: dict[str, Callable[[int], Iterator[str]]] = {
    "precursors": precursor_rows,
    "onset_order": onset_rows,
    "compare": compare_rows,
    "leaderboard": leaderboard_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=500, help="worlds a row (some rows take a half or a fifth)")
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="this part only")
    args = parser.parse_args()
    start, cpu = time.perf_counter(), time.process_time()
    for name in args.only or PARTS:
        print(f"{name}:")
        for row in PARTS[name](args.worlds):
            print("  " + row, flush=True)
    print(f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} s of them on the processor")


if __name__ == "__main__":
    main()
