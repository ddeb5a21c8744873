"""Real training runs with labelled spikes: nothing sure is missed, and nothing is found that isn't there."""

import csv
import json

import numpy as np
import pytest

from foreshock.probes import find_dips, find_spikes


@pytest.fixture(scope="module")
def folder(shared_dir):
    folder = shared_dir / "real-runs"
    if not (folder / "labels.csv").exists():
        pytest.skip("the real runs are not here")
    return folder


def column(folder, run, series):
    """Steps and values of the logged cells; None if the run has no such series."""
    with (folder / f"{run}.csv").open() as file:
        rows = list(csv.DictReader(file))
    if series not in rows[0]:
        return None
    logged = [(int(float(row["step"])), float(row[series])) for row in rows if row[series] != ""]
    steps, values = zip(*logged, strict=True) if logged else ((), ())
    return np.array(steps, int), np.array(values, float)


def first_scored_step(run, steps):
    if run == "hector_llmc_750":
        return 100
    return 1000 if run.startswith(("hector", "agndm")) else 0.05 * steps[-1]


def overlap(span, label, tolerance):
    return span[0] <= label[1] + tolerance and span[1] >= label[0] - tolerance


def score(folder, series, types, find):
    """(found, missed, false) over all runs, as the README of the runs says."""
    with (folder / "labels.csv").open() as file:
        labels = [row for row in csv.DictReader(file) if row["series"] == series]
    runs = {row["run"] for row in labels} | set(json.loads((folder / "calm.json").read_text()))
    found, missed, false = 0, [], []
    for run in sorted(runs):
        logged = column(folder, run, series)
        if logged is None or not len(logged[0]):
            continue
        steps, values = logged
        tolerance = 3 * np.median(np.diff(steps))
        spans = [span for span in find(steps, values) if span[1] >= first_scored_step(run, steps)]
        own = [(int(row["start"]), int(row["end"]), row) for row in labels if row["run"] == run]
        for label in own:
            if label[2]["grade"] == "sure" and label[2]["type"] in types:
                hit = any(overlap(span, label, tolerance) for span in spans)
                found += hit
                missed += [] if hit else [(run, label[0])]
        false += [(run, *span) for span in spans if not any(overlap(span, label, tolerance) for label in own)]
    return found, missed, false


def spike_spans(steps, values):
    return [(spike.start, spike.end) for spike in find_spikes(values, steps=steps)]


def dip_spans(steps, values):
    return [(dip.onset_by, dip.end or steps[-1]) for dip in find_dips(values, steps=steps)]


def test_gradient_norms_46_found_0_missed_0_false(folder):
    assert score(folder, "grad_norm", ("spike", "burst"), spike_spans) == (46, [], [])


def test_loss_has_no_false_alarm(folder):
    found, missed, false = score(folder, "loss", ("spike", "burst"), spike_spans)
    assert false == []
    # Both missed ones are rises of less than twofold: 1.5 and 1.3 times the level before.
    assert (found, missed) == (7, [("ap_baseline_s1_wmt_jax_t2", 26800), ("ap_baseline_s1_wmt_jax_t2", 35400)])


def test_accuracy_3_found_0_missed_0_false(folder):
    assert score(folder, "validation/accuracy", ("dip",), dip_spans) == (3, [], [])


def test_a_run_of_nan_from_the_start_gives_no_event(folder):
    logged = column(folder, "hector_llmc_nan", "lr")
    assert logged is not None
    assert find_spikes(np.full(len(logged[0]), np.nan), steps=logged[0]) == []
