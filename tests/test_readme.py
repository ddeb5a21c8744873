"""The README's Python examples run as they stand, on a run called runs/demo."""

import re
from pathlib import Path

import numpy as np
import pytest

from foreshock.traces import TraceWriter, open_trace

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def in_a_folder_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    layers = ["patch_embed", "blocks.00", "blocks.01"]
    norms = np.exp(rng.normal(0, 0.1, (3, 800))).astype(np.float32)
    norms[:, 400:403] *= 8
    accuracy = 0.6 + rng.normal(0, 0.005, 800)
    accuracy[410:440] -= 0.2
    values = {"grad_norm": norms, "loss": np.ones(800), "knn_accuracy": accuracy, "knn_queries": np.full(800, 2048.0)}
    with TraceWriter(tmp_path / "runs" / "demo", layers=layers, parameters={name: name for name in layers}) as writer:
        writer.extend(np.arange(800), values)
        writer.add_flight(np.arange(272, 531), norms[:, 272:531])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_example_runs(in_a_folder_with_a_run: Path, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    if "preceding" in example:
        assert "patch_embed rose" in printed
        assert "10 steps before the dip" in printed
    elif "flights" in example:
        assert printed.startswith("steps 272 to 530: ")
        assert "-fold" in printed
    elif "bare" in example or "norms[700" in example:
        assert printed.split()[0] == "700"
    else:
        trace = open_trace("runs/mine")
        assert trace["grad_norm"].shape[1] == 100
        assert np.isfinite(trace["grad_norm"]).all()


def test_there_are_four_examples() -> None:
    assert len(EXAMPLES) == 4
