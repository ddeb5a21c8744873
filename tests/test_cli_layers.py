"""`foreshock layers` and groupings of one's own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from foreshock.cli.__main__ import main
from foreshock.probes import group_layers
from foreshock.traces import TraceWriter

NAMES = ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "blocks.1.attn.qkv.weight"]


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        (r"blocks\.(\d+)\.(attn|mlp)", {"0.attn": [1], "0.mlp": [2], "1.attn": [3]}),
        (re.compile(r"attn|mlp|patch_embed"), {"patch_embed": [0], "attn": [1, 3], "mlp": [2]}),
        (r"(patch)?.*(qkv|proj)", {"patch.proj": [0], "qkv": [1, 3]}),
        (lambda name: name.split(".")[0] if "mlp" not in name else None, {"patch_embed": [0], "blocks": [1, 3]}),
    ],
)
def test_groupings_of_ones_own(pattern, layers: dict[str, list[int]]) -> None:
    assert group_layers(NAMES, pattern=pattern) == {layer: [NAMES[i] for i in at] for layer, at in layers.items()}


def test_bad_patterns() -> None:
    with pytest.raises(ValueError, match=r"the pattern '\(' is no regular expression"):
        group_layers(NAMES, pattern="(")
    with pytest.raises(ValueError, match="matches none of"):
        group_layers(NAMES, pattern="decoder")


def test_a_timm_model(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert main(["layers", "vit_tiny_patch16_224", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert list(layers)[:3] == ["patch_embed", "tokens", "blocks.00"]
    assert len(layers["blocks.11"]) == 12
    assert main(["layers", "vit_tiny_patch16_224", "--pattern", r"(attn|mlp)"]) == 0
    printed = capsys.readouterr().out
    assert "attn" in printed
    assert "parameters match no layer" in printed


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_model_of_one.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))\n"
        "def number():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["layers", "my_model_of_one:build", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == {"0": ["0.weight", "0.bias"], "1": ["1.weight", "1.bias"]}
    for name, says in {
        "my_model_of_one:absent": "can't be called",
        "no_such_module_here:build": "can't be called",
        "my_model_of_one:number": "returns a int",
        "vit_tiny_patch16_223": "close: vit_tiny_patch16_224",
    }.items():
        assert main(["layers", name]) == 2
        assert says in capsys.readouterr().err


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norms = np.ones((2, 5))
    norms[0, :3] = np.nan
    with TraceWriter(tmp_path / "run", layers=["patch_embed", "head"]) as writer:
        writer.extend(np.arange(5), {"grad_norm": norms})
    assert main(["layers", str(tmp_path / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == {"patch_embed": {"grad_norm": 2}, "head": {"grad_norm": 5}}
    assert main(["layers", str(tmp_path / "run")]) == 0
    assert "patch_embed" in capsys.readouterr().out
    assert main(["layers", str(tmp_path / "run"), "--pattern", "x"]) == 2
    assert "--pattern is for models" in capsys.readouterr().err
