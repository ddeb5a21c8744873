"""The views around the run: the registry, the list of runs, config and log."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import synthetic

from foreshock.dashboard import views as registry
from foreshock.dashboard.configs import differing, flat
from foreshock.dashboard.follow import Runs
from foreshock.dashboard.page import KEYS, page
from foreshock.dashboard.summaries import Summaries, spike_score
from foreshock.dashboard.views import views
from foreshock.dashboard.views.runs import columns, row, told
from foreshock.dashboard.views.settings import tables_of
from foreshock.probes.dips import find_dips
from foreshock.traces.reader import open_trace


def test_views_are_the_files_of_their_folder() -> None:
    folder = Path(registry.__file__).parent
    assert set(views()) == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    for name, view in views().items():
        assert view.__doc__, name
        assert view.TITLE
    orders = [view.ORDER for view in views().values()]
    assert orders == sorted(set(orders))


def test_the_page_holds_every_view_and_says_every_key() -> None:
    text = str(page(["a"], "runs"))
    for name, view in views().items():
        assert f"'name': '{name}'" in text
        assert view.TITLE in text
    for key, meaning in KEYS:
        assert key in text
        assert meaning in text


# ---- the list of runs ----


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that is being written, one that failed and is of other settings, one that is no trace."""
    root = tmp_path_factory.mktemp("listed")
    made = synthetic.make(1500, 4)
    for name, seed, close in (("done", 1, "finished"), ("bad", 2, "failed"), ("now", 3, "")):
        config = {"seed": seed, "optim": {"base_lr": 0.1}, "trace": f"runs/{name}"}
        writer = synthetic.open_writer(root / name, made, config=config)
        synthetic.append(writer, made, slice(0, 1500 if close else 600))
        writer.event(3, "overflow", "1 step was skipped, since its gradients overflowed")
        if close:
            writer.close(close, "" if close == "finished" else "RuntimeError: loss is NaN")
        else:
            writer.flush()
    (root / "broken").mkdir()
    (root / "broken" / "zarr.json").write_text('{"attributes": {"format": "foreshock-trace"}}')
    return root


def found(root: Path) -> dict[str, dict[str, object]]:
    summaries = Summaries(Runs(root))
    for _ in range(200):
        lines = summaries.rows()
        if all(line.spikes is not None or line.state == "broken" for line in lines):
            return {line.run: row(line, ["seed"]) for line in lines}
        time.sleep(0.05)
    raise AssertionError("the spikes of some run were never counted")


def test_the_list_tells_state_progress_and_events(root: Path) -> None:
    rows = found(root)
    assert next(iter(rows)) == "now"  # the one that is being written
    assert rows["now"]["progress"] == 40.0
    assert rows["now"]["left"] == "45 s"  # 900 steps at 0.05 s
    assert rows["done"]["left"] is None
    assert (rows["done"]["spikes"], rows["done"]["dips"]) == (3, len(find_dips(open_trace(root / "done"))))
    assert (rows["now"]["spikes"], rows["now"]["dips"]) == (0, 0)
    assert rows["bad"]["state"] == "failed"
    assert "loss is NaN" in str(rows["bad"]["message"])
    assert rows["broken"]["state"] == "broken"
    assert rows["broken"]["spikes"] is None
    assert rows["done"]["config:seed"] == 1
    knn = open_trace(root / "done")["knn_accuracy"]
    assert rows["done"]["best"] == pytest.approx(100 * max(knn[knn == knn]), abs=0.06)
    assert rows["done"]["knn"] == pytest.approx(100 * knn[knn == knn][-1], abs=0.06)


def test_what_is_not_known_yet_is_empty_not_zero(root: Path) -> None:
    lines = Summaries(Runs(root)).rows()
    assert all(line.spikes is None for line in lines)
    assert told(lines).endswith("Looking for spikes in 3 of them.")
    assert told([]) == "No runs yet."


def test_the_spike_score_is_a_share_of_steps(root: Path, tmp_path: Path) -> None:
    made = synthetic.make(1500, 2, planted=())
    made.grad_norm[0, 1200] *= 30
    score = spike_score(open_trace(synthetic.write_run(tmp_path / "a", made)))
    assert score == pytest.approx(1 / 1500)
    assert spike_score(open_trace(synthetic.write_run(tmp_path / "b", synthetic.make(800, 2)))) is None


def test_settings_that_differ() -> None:
    one = {"optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "seed": 1, "trace": "a"}
    two = {"optim": {"lr": 0.2, "betas": [0.9, 0.95]}, "seed": 2, "trace": "b", "new": {}}
    assert differing([one, two]) == ["optim.lr", "seed", "new"]
    assert differing([one, one]) == []
    assert differing([]) == []
    assert flat({"a": {"b": {"c": 1}}}) == {"a.b.c": 1}


def test_a_phone_gets_fewer_columns_that_fit() -> None:
    wide, brief = columns(["seed"]), columns(["seed"], brief=True)
    assert [column["field"] for column in brief] == ["run", "knn", "spikes", "dips"]
    assert sum(column["width"] for column in brief[1:]) + brief[0]["minWidth"] + 44 < 390 - 16
    assert brief[0]["pinned"] is None  # the grid would keep the other layout's
    assert {column["field"] for column in brief} < {column["field"] for column in wide}
    assert "…" in wide[7]["valueFormatter"]["function"]  # spikes: not known yet is not zero


def test_a_setting_is_named_so_that_it_can_be_told_from_others() -> None:
    fields = ["optim.base_lr", "method.name", "optim.name", "vit.depth", "head.depth"]
    names = [column["headerName"] for column in columns(fields)[-5:]]
    assert names == ["base_lr", "method.name", "optim.name", "vit.depth", "head.depth"]


# ---- config and log ----


def test_config_and_log(root: Path) -> None:
    drawn = tables_of(open_trace(root / "done"))
    assert ("optim.base_lr", "0.1") in drawn["config"].rows
    assert drawn["log"].rows == drawn["skipped"].rows
    assert drawn["log"].rows[0] == ("3", "overflow", "1 step was skipped, since its gradients overflowed")
    facts = dict(drawn["environment"].rows)
    assert facts["state"] == "finished"
    assert facts["knn.k"] == "200"


def test_a_run_without_settings_says_so(tmp_path: Path) -> None:
    drawn = tables_of(open_trace(synthetic.write_run(tmp_path / "a", synthetic.make(30, 1, planted=()))))
    assert drawn["config"].note == "This run recorded no configuration."
    assert drawn["log"].note == "No events."
    assert drawn["skipped"].note == "None."
