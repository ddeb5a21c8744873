"""The compare view: groups by a setting, bands against a slow twin, exact intervals, frozen layers left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic
from scipy.stats import binomtest

from foreshock.dashboard.comparison import Comparison, Member, compare_runs, member_of
from foreshock.dashboard.follow import Runs
from foreshock.dashboard.panels import panels_in
from foreshock.dashboard.views.compare import facts

BUSY = tuple(synthetic.Planted(at, 6.0, dip=0.1) for at in range(300, 1400, 120))


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Member]:
    """Two seeds with a learned patch projection and many spikes, two with a frozen one and few."""
    root = tmp_path_factory.mktemp("compared")
    for seed in (1, 2):
        for way in ("learned", "frozen"):
            planted = BUSY if way == "learned" else BUSY[:2]
            made = synthetic.make(1500 - 100 * seed, 3, planted, frozen=("patch_embed",) * (way == "frozen"), seed=seed)
            config = {"seed": seed, "method": {"patch_projection": way}}
            writer = synthetic.open_writer(root / f"{way}-{seed}", made, config=config)
            synthetic.append(writer, made, slice(0, len(made.steps)))
            writer.close()
    runs = Runs(root)
    found = [member_of(runs.follower(name).snapshot()) for name in sorted(runs.names())]  # type: ignore[union-attr]
    return [member for member in found if member is not None]


def test_runs_are_grouped_by_what_differs_but_the_seed(members: list[Member]) -> None:
    found = compare_runs(members)
    assert found.by == "method.patch_projection"
    assert [(group.name, len(group.members)) for group in found.groups] == [("frozen", 2), ("learned", 2)]
    assert [group.name for group in compare_runs(members, "seed").groups] == ["1", "2"]
    assert len(compare_runs(members, "run").groups) == 4
    assert compare_runs(members, "nothing").by == found.by
    assert found.left_out == ("patch_embed",)
    assert "not counted: patch_embed" in facts(found)


def test_rates_have_exact_intervals_and_frozen_layers_do_not_count(members: list[Member]) -> None:
    frozen, learned = compare_runs(members).groups
    for group in (frozen, learned):
        rate = group.rate("spikes")
        assert rate is not None
        steps = sum(member.counted for member in group.members)
        exact = binomtest(rate[0], steps).proportion_ci(method="exact")
        assert rate[1:] == pytest.approx((1e4 * rate[0] / steps, 1e4 * exact.low, 1e4 * exact.high), rel=1e-6)
    assert [m.spikes for m in frozen.members] == [2, 2]
    assert all((m.spikes or 0) > 6 for m in learned.members)
    assert "frozen has 0.2× the spike events of learned" in compare_runs(members).verdict


def test_a_band_is_the_range_of_the_runs(members: list[Member]) -> None:
    _, learned = compare_runs(members).groups
    band = learned.band("loss", epochs=False)
    assert band is not None
    for i in (0, 100, 399):
        values = []
        for member in learned.members:
            inside = member.steps[0] <= band.at[i] <= member.steps[-1]
            values += [np.interp(band.at[i], member.steps, member.curves["loss"])] if inside else []
        if values:
            assert (band.mean[i], band.low[i], band.high[i]) == pytest.approx(
                (np.mean(values), min(values), max(values))
            )
        else:
            assert np.isnan(band.mean[i])
    assert learned.band("nothing", epochs=False) is None


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_panel_draws_any_number_of_runs(members: list[Member], count: int) -> None:
    found: Comparison = compare_runs(members[:count], epochs=True)
    assert not found.epochs  # the made-up runs do not tell the steps of an epoch
    assert found.verdict
    for name, panel in panels_in("compare").items():
        drawn = panel.draw(found)
        json.dumps(drawn.figure, allow_nan=False)
        assert (drawn.figure is not None) == (panel.HEIGHT > 0), name
        assert drawn.figure is None or drawn.figure["layout"]["yaxis"] is not None, name


def test_a_run_that_is_still_searched_is_pending(members: list[Member]) -> None:
    from dataclasses import replace

    found = compare_runs([replace(members[0], found=None), members[1]])
    assert found.pending == 1
    assert "Looking for spikes in 1 of the runs." in facts(found)
    assert found.groups[0].rate("spikes") is None or found.groups[-1].rate("spikes") is None


def test_runs_without_a_common_layer_or_a_step_do_not_count_as_quiet(members: list[Member]) -> None:
    from dataclasses import replace

    other = replace(members[-1], measured=frozenset({"model"}), config={"seed": 9})
    apart = compare_runs([*members, other], "run")
    assert apart.apart
    assert all(group.rate("spikes") is None for group in apart.groups)
    assert "no measured layer in common, so spikes are not counted" in facts(apart)
    assert apart.pending == 0

    begun = replace(members[-1], measured=frozenset(), counted=0, found=(), spikes=None, dips=None)
    same, more = compare_runs(members), compare_runs([*members, begun])
    assert not more.apart
    assert [group.rate("spikes") for group in more.groups] == [group.rate("spikes") for group in same.groups]
    blind = compare_runs([*members, replace(members[-1], dips=None)])
    assert [group.rate("dips") for group in blind.groups] == [group.rate("dips") for group in same.groups]


def test_a_setting_that_a_run_lacks_is_a_group_of_its_own(members: list[Member]) -> None:
    from dataclasses import replace

    bare = compare_runs([members[0], replace(members[1], config={})], "method.patch_projection")
    assert {group.name for group in bare.groups} == {"frozen", "not set"}


def test_a_curve_that_was_never_measured_says_so_in_the_legend(members: list[Member]) -> None:
    figure = panels_in("compare")["compare_gradient"].draw(compare_runs(members)).figure
    names = [trace["name"] for trace in figure["data"] if trace.get("name")]  # type: ignore[index]
    assert names == ["frozen (2), not measured", "learned (2)"]


def test_every_run_has_a_row_and_every_rate_is_told_in_words(members: list[Member]) -> None:
    panels = panels_in("compare")
    table = panels["compare_runs"].draw(compare_runs(members)).tables[0]
    assert table.header[:2] == ("Run", "method.patch_projection")
    assert {row[0] for row in table.rows} == {member.run for member in members}
    assert "method.patch_projection" not in panels["compare_runs"].draw(compare_runs(members, "run")).tables[0].header
    words = panels["compare_rates"].draw(compare_runs(members)).words
    assert words.startswith("Per 10,000 steps frozen: 4 spikes, ")
