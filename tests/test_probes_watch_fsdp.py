"""A model in shards (FSDP2) is watched as the whole it is: two real processes against one, interventions included."""

from pathlib import Path

import numpy as np
import pytest
import torch
from processes import two_processes
from sensed import Small, batch

from foreshock.probes.interventions import intervention_class, intervention_names
from foreshock.probes.watch import watch
from foreshock.traces import open_trace

SPIKES, STEPS = (20, 21, 30), 40
SOON = {"minimum": 8, "window": 16}
WAYS = (*intervention_names(), "none", "recorded")  # the last: with a flight recorder and sensors, and no intervention


def run(rank: int, world: int, folder: Path, way: str) -> dict[str, torch.Tensor]:
    model = Small().double()
    if world > 1:
        from torch.distributed.fsdp import fully_shard

        for block in (*model.blocks, model):
            fully_shard(block)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    intervene = intervention_class(way)(None, **SOON) if way in intervention_names() else None
    more = {"flight_recorder": True, "sensors": ["grad_max", "update_rms", "weight_norm"]} if way == "recorded" else {}
    with watch(model, optimizer, folder / f"{way}{world}", enabled=rank == 0, intervene=intervene, **more) as w:
        for step in range(STEPS):
            optimizer.zero_grad()
            part = batch(step, 64).double().chunk(world)[rank]
            (model(part).square().mean() * (300.0 if step in SPIKES else 1.0)).backward()
            optimizer.step()
            w.step()
        if w.intervention is not None:
            assert w.intervention.count == len(SPIKES)
    state = model.state_dict()
    return {n: x.full_tensor() if hasattr(x, "full_tensor") else x for n, x in state.items()}


def worker(rank: int, folder: Path) -> None:
    for way in WAYS:
        torch.save(run(rank, 2, folder, way), folder / f"{way}-rank{rank}.pt")
    from torch.distributed.fsdp import FullyShardedDataParallel

    older = FullyShardedDataParallel(Small(), device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"shard it with torch\.distributed\.fsdp\.fully_shard"):
        watch(older, torch.optim.SGD(older.parameters(), lr=0.1), folder / "older", intervene="clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    two_processes(worker, folder)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_shards_are_watched_as_the_whole(folder: Path, way: str) -> None:
    weights = run(0, 1, folder, way)
    one, two = open_trace(folder / f"{way}1"), open_trace(folder / f"{way}2")
    np.testing.assert_allclose(two["grad_norm"], one["grad_norm"], rtol=1e-6)
    np.testing.assert_allclose(two["grad_norm_total"], one["grad_norm_total"], rtol=1e-9)
    for name in {"grad_max", "update_rms", "weight_norm"} & set(one.series):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-6, err_msg=name)
    assert len(one.series) == (4 if way == "recorded" else 1)
    assert two.events == one.events
    assert len(two.events) == (len(SPIKES) if way in intervention_names() else 0)
    for rank in range(2):
        found = torch.load(folder / f"{way}-rank{rank}.pt", weights_only=True)
        assert found.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9, msg=name)
