"""The compiled kernel and plain Python are one detector: the same bits, events and states."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.probes import SpikeFinder, find_spikes, robust_bank
from foreshock.probes.detectors import detector
from foreshock.probes.robust_bank import Bank
from foreshock.probes.robust_scan import kinds_and_logs

pytest.importorskip("numba")

SMALL = {"window": 12, "minimum": 4, "rebaseline": 6, "merge": 3}
VALUES = st.one_of(
    st.sampled_from([0.5, 0.5, 0.6, 1.0, 1.5, 4.0, 0.0, math.nan, math.inf, -math.inf]), st.floats(1e-3, 1e3)
)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setattr(robust_bank, "COMPILE_FROM", math.inf)


@pytest.fixture
def compiled(monkeypatch, plain):
    monkeypatch.setattr(robust_bank, "COMPILE_FROM", 0)


def series(layers: int, length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.exp(rng.standard_t(4, (layers, length)) * 0.3 + rng.normal(0, 2, (layers, 1)))
    x[rng.random(x.shape) < 0.01] *= 8
    x[:, length // 3 : length // 3 + 200] *= 5
    x[rng.random(x.shape) < 0.003] = 0
    x[rng.random(x.shape) < 0.002] = math.inf
    x[rng.random(x.shape) < 0.01] = math.nan
    return x


def banks(name, thresholds, layers):
    """The same rule twice: in plain Python, and compiled from the first value."""
    found = detector(name)
    rule = found.rule(found.configure(thresholds))
    plain, fast = Bank([None] * layers, rule), Bank([None] * layers, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust_bank, "COMPILE_FROM", 0)
        fast.scan(*kinds_and_logs(np.empty((layers, 0))))
    return plain, fast


@pytest.mark.parametrize("name", ["robust", "robust_z"])
@pytest.mark.parametrize("thresholds", [{}, {"window": 65}, {"window": 300, "minimum": 299, "rebaseline": 310}, SMALL])
def test_both_kernels_agree_to_the_last_bit(name, thresholds):
    x = series(3, 2500, seed=4)
    plain, fast = banks(name, thresholds, 3)
    for part in np.split(x, [1, 2, 70, 900, 901, 1700], axis=1):
        kinds, logs = kinds_and_logs(part, ~np.isnan(part))
        for a, b in zip(plain.scan(kinds, logs), fast.scan(kinds, logs), strict=True):
            np.testing.assert_array_equal(a, b)
        assert plain.states() == fast.states()
    assert fast._memory is not None
    assert plain._memory is None


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=80), st.sampled_from([SMALL, SMALL | {"window": 5, "ratio": 1.1}]))
def test_both_kernels_agree_on_ties_zeros_and_holes(rows, thresholds):
    x = np.array(rows, float).reshape(-1, 2).T.copy()
    plain, fast = banks("robust", thresholds, 2)
    kinds, logs = kinds_and_logs(x, ~np.isnan(x))
    for a, b in zip(plain.scan(kinds, logs), fast.scan(kinds, logs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert json.loads(json.dumps(fast.states(), allow_nan=False)) == plain.states()


def test_a_state_goes_from_one_kernel_to_the_other(compiled, monkeypatch):
    x = series(4, 3000, seed=1)
    names = ["a", "b", "c", "d"]
    expected = find_spikes(x, layers=names, nan="gap")
    finder, spikes = SpikeFinder(names, nan="gap"), []
    for i, stop in enumerate([0, 400, 401, 1800, 3000]):
        spikes += finder.update(*_block(x, i and [0, 400, 401, 1800, 3000][i - 1], stop))
        state = json.loads(json.dumps(finder.state_dict(), allow_nan=False))
        monkeypatch.setattr(robust_bank, "COMPILE_FROM", math.inf if i % 2 else 0)
        finder = SpikeFinder(names, nan="gap")
        finder.load_state_dict(state)
    assert sorted(spikes + finder.close(), key=repr) == sorted(expected, key=repr)


def _block(x, start, stop):
    return np.arange(start, stop), x[:, start:stop]


def test_the_change_over_in_mid_run_is_not_seen(monkeypatch):
    x = series(2, 3000, seed=7)
    expected = find_spikes(x)
    monkeypatch.setattr(robust_bank, "COMPILE_FROM", Bank.judged + 2500)
    finder = SpikeFinder(["0", "1"])
    spikes = [spike for i in range(3000) for spike in finder.update(i, x[:, i])] + finder.close()
    assert sorted(spikes, key=repr) == sorted(expected, key=repr)
    assert finder._judge._bank._memory is not None


def test_a_layout_that_is_not_contiguous_changes_nothing(compiled):
    x = series(3, 800, seed=2)
    assert find_spikes(x) == find_spikes(np.asfortranarray(x)) == find_spikes(x.T.copy().T)


def test_a_window_without_end_costs_no_memory(compiled):
    x = series(2, 900, seed=3)
    endless = {"window": 10**12, "rebaseline": 10**12}
    assert find_spikes(x, **endless) == find_spikes(x, window=1000, rebaseline=1000)


SCRIPT = """
import sys
import warnings
warnings.simplefilter("error")
{before}
import numpy as np
from foreshock.probes import find_spikes, robust_bank
robust_bank.COMPILE_FROM = 0
x = np.exp(np.random.default_rng(0).normal(0, 0.1, 500)); x[300] *= 9
print([spike.onset for spike in find_spikes(x)], robust_bank._compiled() is not None)
"""


def run_script(before: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_without_numba_plain_python_does_it():
    assert run_script("sys.modules['numba'] = None") == "[300] False"


def test_numba_is_loaded_only_where_it_pays():
    code = "import sys, numpy as np; from foreshock.probes import find_spikes; find_spikes(np.ones(9000)); "
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('numba' in sys.modules)"], capture_output=True)
    assert done.returncode == 0


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("")
    assert run_script("", NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache")) == "[300] True"
