"""Max-T with and without primary tests: exact whatever the dependence, and kinder to the primary ones."""

import numpy as np
import pytest
from test_probes_precursor_report import STEPS, spike, world

from foreshock.probes import precursors
from foreshock.probes.surrogates import max_t


def twin(counts: np.ndarray, surrogates: np.ndarray, primary: np.ndarray) -> np.ndarray:
    """The definition, word by word."""
    table = np.vstack([counts, surrogates]).astype(float)
    z = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1)
    rows = range(len(table))

    def smallest(row: np.ndarray) -> float:
        everything = np.mean([z[n].max() >= row.max() - 1e-9 for n in rows])
        first = np.mean([z[n][primary].max() >= row[primary].max() - 1e-9 for n in rows])
        return min(2 * everything, first)

    drawn = [smallest(z[n]) for n in rows]
    told = []
    for k in range(len(counts)):
        own = 2 * np.mean([z[n].max() >= z[0, k] - 1e-9 for n in rows])
        if primary[k]:
            own = min(own, np.mean([z[n][primary].max() >= z[0, k] - 1e-9 for n in rows]))
        told.append(np.mean([value <= own + 1e-9 for value in drawn]))
    return np.array(told)


@pytest.mark.parametrize("seed", range(5))
def test_primary_tests_are_the_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.poisson(2, (40, 6))
    primary = np.arange(6) < 2
    assert max_t(table[0], table[1:], primary).p == pytest.approx(twin(table[0], table[1:], primary))


@pytest.mark.parametrize("primary", [[False] * 4, [True] * 4])
def test_all_or_none_primary_is_plain_max_t(primary: list[bool]) -> None:
    table = np.random.default_rng(0).poisson(2, (60, 4))
    plain = max_t(table[0], table[1:])
    assert max_t(table[0], table[1:], np.array(primary)).p.tolist() == plain.p.tolist()


def test_the_error_rate_stays_and_the_primary_gain() -> None:
    rng = np.random.default_rng(1)
    primary = np.arange(20) < 2
    null, plain, first = [], [], []
    for _ in range(400):
        table = rng.poisson(3, (100, 20))
        null.append(max_t(table[0], table[1:], primary).p.min())
        table[0, 0] = 8
        plain.append(max_t(table[0], table[1:]).p.min())
        first.append(max_t(table[0], table[1:], primary).p.min())
    assert np.mean(np.array(null) <= 0.05) <= 0.08  # .05 and 2.7 standard errors
    assert np.mean(np.array(first) <= 0.05) > np.mean(np.array(plain) <= 0.05) + 0.1


def test_the_primary_layer_is_the_entrance_unless_another_is_named() -> None:
    spikes, dips = world(0, caused=6)
    spikes += [spike(at, "blocks.00") for at in range(700, STEPS, 900)]
    assert precursors(spikes, dips, STEPS, surrogates=99).primary == "patch_embed"
    named = precursors(spikes, dips, STEPS, surrogates=99, primary="blocks.00")
    assert named.primary == "blocks.00"
    assert named.best is not None
    assert named.best.layer == "patch_embed"
    with pytest.raises(ValueError, match=r"blocks\.99"):
        precursors(spikes, dips, STEPS, primary="blocks.99")
