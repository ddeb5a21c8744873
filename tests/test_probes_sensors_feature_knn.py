"""FeatureKNN against one query at a time, and the order of its queue: evaluate first, push afterwards."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.sensors import feature_knn
from foreshock.probes.sensors.feature_knn import FeatureKNN, _largest, _select


class SlowKNN:
    """The same monitor, a list and one query at a time."""

    def __init__(self, size: int, k: int, temperature: float) -> None:
        self.size, self.k, self.temperature = size, k, temperature
        self.queue: list[tuple[torch.Tensor, int]] = []

    def step(self, features: torch.Tensor, labels: torch.Tensor) -> float:
        accuracy = math.nan
        if len(self.queue) >= self.k:
            right = [self.classify(x) == int(y) for x, y in zip(features, labels, strict=True)]
            accuracy = sum(right) / len(right)
        self.queue += [(x / x.norm(), int(y)) for x, y in zip(features.double(), labels, strict=True)]
        self.queue = self.queue[-self.size :]
        return accuracy

    def classify(self, x: torch.Tensor) -> int:
        x = x.double() / x.double().norm()
        nearest = sorted(((float(x @ f), y) for f, y in self.queue), reverse=True)[: self.k]
        votes: dict[int, float] = {}
        for similarity, y in nearest:
            votes[y] = votes.get(y, 0.0) + math.exp(similarity / self.temperature)
        return max(votes, key=lambda y: votes[y])


def clusters(n: int, generator: torch.Generator, dim: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.eye(dim)[labels] * 1.5
    return centres + torch.randn(n, dim, generator=generator), labels


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(5, 40),
    k=st.integers(1, 12),
    batches=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    temperature=st.sampled_from([0.07, 0.5]),
    max_bytes=st.sampled_from([1, 700, 2**26]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_slow_twin(size, k, batches, temperature, max_bytes, seed) -> None:
    k = min(k, size)
    generator = torch.Generator().manual_seed(seed)
    fast = FeatureKNN(size, 5, 4, k=k, temperature=temperature, max_bytes=max_bytes)
    slow = SlowKNN(size, k, temperature)
    for n in batches:
        features, labels = clusters(n, generator)
        fast.feed(features, labels)
        values = fast.observe()
        expected = slow.step(features, labels)
        assert values["knn_accuracy"].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)
        assert values["knn_queries"].item() == pytest.approx(math.nan if math.isnan(expected) else n, nan_ok=True)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_slow_twin_at_size(temperature: float) -> None:
    generator = torch.Generator().manual_seed(4)
    fast = FeatureKNN(300, 5, 4, k=20, temperature=temperature, max_bytes=20_000)
    slow = SlowKNN(300, 20, temperature)
    seen = []
    for _ in range(10):
        features, labels = clusters(48, generator)
        fast.feed(features, labels)
        seen.append(fast.observe()["knn_accuracy"].item())
        assert seen[-1] == pytest.approx(slow.step(features, labels), abs=1e-6, nan_ok=True)
    assert 0.4 < seen[-1] < 1


def test_the_defaults_are_the_papers() -> None:
    knn = FeatureKNN(1000, 8, 10)
    assert (knn.k, knn.temperature, knn.every) == (200, 0.07, 1)


def test_queries_never_meet_themselves_or_their_other_crop() -> None:
    # Every image is unique, and its label says nothing: only a query that met itself or its sibling could be right.
    knn = FeatureKNN(64, 64, 64, k=1)
    crops, labels = torch.eye(64).repeat(2, 1), torch.arange(64).repeat(2)
    knn.feed(torch.eye(64).flip(0), torch.arange(64))  # the nearest key of image i is that of class 63 - i
    knn.observe()
    knn.feed(crops, labels, images=64)
    values = knn.observe()
    assert values["knn_accuracy"] == 0
    assert values["knn_queries"] == 64
    knn.feed(crops, labels, images=64)  # and from the next step on they are there
    assert knn.observe()["knn_accuracy"] == 1


def test_nan_until_the_queue_holds_k() -> None:
    knn = FeatureKNN(20, 2, 2, k=6)
    seen = []
    for _ in range(4):
        knn.feed(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))
        seen.append(knn.observe()["knn_accuracy"].item())
    assert [math.isnan(x) for x in seen] == [True, True, False, False]


def test_every_pushes_each_step_and_evaluates_each_third() -> None:
    each, third = FeatureKNN(30, 5, 4, k=5), FeatureKNN(30, 5, 4, k=5, every=3)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 13):
        features, labels = clusters(8, generator)
        each.feed(features, labels)
        third.feed(features, labels)
        a, b = each.observe(), third.observe()
        assert torch.equal(each._features, third._features)
        if step % 3 == 0:
            assert torch.equal(a["knn_accuracy"], b["knn_accuracy"])
        else:
            assert b["knn_accuracy"].isnan()
            assert b["knn_queries"].isnan()


def test_parts_of_a_batch_are_evaluated_together_and_pushed_in_order() -> None:
    generator = torch.Generator().manual_seed(1)
    whole, parts = FeatureKNN(30, 5, 4, k=5), FeatureKNN(30, 5, 4, k=5)
    for _ in range(4):
        features, labels = clusters(12, generator)
        whole.feed(features, labels, images=6)
        for half in (slice(0, 6), slice(6, 12)):
            parts.feed(features[half], labels[half], images=3)
        a, b = whole.observe(), parts.observe()
        for name in a:
            torch.testing.assert_close(a[name], b[name], equal_nan=True)
    assert torch.equal(whole._features, parts._features)


def test_a_step_without_features_is_nan_and_moves_nothing() -> None:
    knn = FeatureKNN(4, 2, 2, k=2)
    knn.feed(torch.eye(2), torch.arange(2))
    knn.observe()
    before = knn._features.clone()
    assert knn.observe()["knn_accuracy"].isnan()
    assert torch.equal(knn._features, before)


def test_diverged_features_are_wrong_and_never_neighbours() -> None:
    knn = FeatureKNN(6, 2, 2, k=2)
    corners = torch.tensor([[1.0, 0.0], [1.0, 0.1], [math.nan, 0.0], [math.inf, 1.0]])
    labels = torch.tensor([1, 1, 0, 0])
    knn.feed(corners, labels)
    knn.observe()
    knn.feed(corners, labels)
    assert knn.observe()["knn_accuracy"] == 0.5
    knn.feed(torch.full((4, 2), math.nan), labels)
    assert knn.observe()["knn_accuracy"] == 0


def test_a_small_temperature_does_not_overflow() -> None:
    knn = FeatureKNN(4, 2, 2, k=4, temperature=0.005)
    corners, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), torch.tensor([0, 0, 1, 1])
    for _ in range(2):
        knn.feed(corners, labels)
        accuracy = knn.observe()["knn_accuracy"]
    assert accuracy == 1


def test_a_callers_autocast_does_not_round_the_cosines() -> None:
    generator = torch.Generator().manual_seed(2)
    plain, under = FeatureKNN(200, 5, 4, k=20), FeatureKNN(200, 5, 4, k=20)
    for _ in range(4):
        features, labels = clusters(100, generator)
        plain.feed(features, labels)
        with torch.autocast("cpu", torch.bfloat16):
            under.feed(features, labels)
            accuracy = under.observe()["knn_accuracy"]
        torch.testing.assert_close(plain.observe()["knn_accuracy"], accuracy, rtol=0, atol=0, equal_nan=True)


def test_features_with_a_graph_are_detached_and_copied() -> None:
    knn = FeatureKNN(4, 2, 2, k=2)
    features = torch.eye(2, requires_grad=True) * 1
    labels = torch.arange(2)
    knn.feed(features, labels)
    with torch.no_grad():
        features.zero_()
        labels.zero_()
    knn.observe()
    assert not knn._features.requires_grad
    assert torch.equal(knn._features[:2], torch.eye(2))
    assert knn._labels[:2].tolist() == [0, 1]


@pytest.mark.parametrize("cut", ["between steps", "after feed"])
def test_resuming_is_exact(cut: str) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [clusters(n, generator) for n in (7, 30, 11, 11, 11, 4, 9)]

    def new() -> FeatureKNN:
        return FeatureKNN(25, 5, 4, k=5, every=2)

    def run(knn: FeatureKNN, steps: list, fed: bool = False) -> list[float]:
        out = []
        for index, batch in enumerate(steps):
            if index or not fed:
                knn.feed(*batch)
            out.append(knn.observe()["knn_accuracy"].item())
        return out

    straight = run(new(), batches)
    first = new()
    start = run(first, batches[:4])
    if cut == "after feed":
        first.feed(*batches[4])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    kept = copy.deepcopy(first.state_dict())
    run(first, batches[4:], fed=cut == "after feed")  # the state must not follow its sensor
    file.seek(0)
    second, third = new(), new()
    second.load_state_dict(torch.load(file, weights_only=True))
    third.load_state_dict(kept)
    for resumed in (second, third):
        end = run(resumed, batches[4:], fed=cut == "after feed")
        assert [repr(x) for x in start + end] == [repr(x) for x in straight]
        assert torch.equal(resumed._features, first._features)


def test_another_setting_is_refused_at_resume() -> None:
    with pytest.raises(ValueError, match=r"'k': 2.*'k': 3"):
        FeatureKNN(8, 2, 2, k=3).load_state_dict(FeatureKNN(8, 2, 2, k=2).state_dict())


def test_no_temporary_exceeds_the_bound() -> None:
    bound = 40_000

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor) and tensor._base is None:
                    self.size = max(self.size, tensor.numel() * tensor.element_size())
            return out

    knn = FeatureKNN(1000, 4, 10, k=200, max_bytes=bound)
    knn.feed(torch.randn(1000, 4), torch.randint(10, (1000,)))
    knn.observe()
    knn.feed(torch.randn(1000, 4), torch.randint(10, (1000,)))
    with Largest() as largest:
        knn._count_right(*knn._fed[0][:2])
    assert bound / 4 < largest.size <= bound


def test_runs_on_the_meta_device_where_any_look_at_a_value_is_an_error() -> None:
    knn = FeatureKNN(8, 2, 2, k=2, device="meta")
    for _ in range(3):
        knn.feed(torch.ones(5, 2, device="meta"), torch.ones(5, device="meta", dtype=torch.int64))
        values = knn.observe()
    assert values["knn_accuracy"].shape == ()
    assert values["knn_queries"].device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queue_size": 10, "dim": 2, "num_classes": 2}, "queue_size 10 never holds k=200"),
        ({"queue_size": 10, "dim": 2, "num_classes": 2, "k": 0}, "k is 0"),
        ({"queue_size": 10, "dim": 2, "num_classes": 2, "k": 2, "every": 0}, "every is 0"),
        ({"queue_size": 10, "dim": 2, "num_classes": 2, "k": 2, "temperature": 0.0}, "temperature is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureKNN(**arguments)


def test_wrong_shapes_are_refused() -> None:
    knn = FeatureKNN(8, 2, 2, k=2)
    with pytest.raises(ValueError, match=r"features \[4, 3\] and labels \[4\]; allowed are \[N, 2\] and \[N\]"):
        knn.feed(torch.ones(4, 3), torch.ones(4))
    with pytest.raises(ValueError, match=r"labels \[2\]"):
        knn.feed(torch.ones(4, 2), torch.ones(2))
    with pytest.raises(ValueError, match="images is 5 for 4 features"):
        knn.feed(torch.ones(4, 2), torch.ones(4), images=5)


def published_votes(queries: torch.Tensor, bank: torch.Tensor, labels: torch.Tensor, classes: int, k: int, t: float):
    """The vote of Wu et al. as the papers write it, one class after another, in float64: [n, classes]."""
    similarity, neighbours = (queries.double() @ bank.double().T).sort(dim=1, descending=True)
    weight = (similarity[:, :k] / t).exp()
    voters = labels[neighbours[:, :k]]
    return torch.stack([(weight * (voters == c)).sum(1) for c in range(classes)], 1)


@pytest.mark.parametrize("threads", [1, 64], ids=["numpy selects", "torch selects"])
@pytest.mark.parametrize(("bank", "n", "dim", "k"), [(900, 300, 16, 200), (130, 70, 5, 130), (2001, 129, 32, 1)])
def test_votes_are_those_of_the_published_formula(
    monkeypatch, threads: int, bank: int, n: int, dim: int, k: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    generator = torch.Generator().manual_seed(bank)
    knn = FeatureKNN(bank, dim, 4, k=k)
    features, labels = clusters(bank, generator, dim)
    knn.feed(features, labels)
    knn.observe()
    queries = torch.nn.functional.normalize(clusters(n, generator, dim)[0], dim=1)
    votes = published_votes(queries, torch.nn.functional.normalize(features, dim=1), labels, 4, k, 0.07)
    best, second = votes.topk(2, dim=1).values.unbind(1)
    clear = second < best * (1 - 1e-4)  # the others are decided by rounding
    assert clear.float().mean() > 0.98
    torch.testing.assert_close(knn._classify(queries)[clear], votes.argmax(1)[clear])


@pytest.mark.parametrize("bank_in_cache", [True, False])
@pytest.mark.parametrize(("bank", "n", "k"), [(900, 70, 200), (1000, 33, 64), (129, 5, 100), (64, 40, 64)])
def test_a_queue_in_pieces_has_the_nearest_of_the_whole(monkeypatch, bank_in_cache, bank: int, n: int, k: int) -> None:
    monkeypatch.setattr(feature_knn, "HOST_COLUMNS", 64)
    monkeypatch.setattr(feature_knn, "HOST_BANK", 2**30 if bank_in_cache else 0)
    generator = torch.Generator().manual_seed(bank)
    keys, queries = torch.randn(bank, 8, generator=generator), torch.randn(n, 8, generator=generator)
    keys[3] = math.nan  # never a neighbour while others are left
    values, index = feature_knn._nearest_by_numpy(queries, keys, k)
    cosine = (queries @ keys.T).nan_to_num(nan=feature_knn.NEVER)
    torch.testing.assert_close(values.sort(1, descending=True).values, cosine.topk(k, 1).values)
    torch.testing.assert_close(cosine.gather(1, index), values)
    assert all(len(set(row)) == k for row in index.tolist())


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 6), n=st.integers(1, 40), levels=st.sampled_from([1, 3, 10**6]), data=st.data())
def test_the_largest_are_found_with_ties_and_without(rows: int, n: int, levels: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    table = torch.randint(levels, (rows, n), generator=generator).float()
    index = torch.from_numpy(_largest(table.numpy(), k)) - n * torch.arange(rows)[:, None]
    assert index.shape == (rows, k)
    assert all(len(set(row)) == k for row in index.tolist())
    torch.testing.assert_close(table.gather(1, index).sort(1, descending=True).values, table.topk(k, 1).values)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 6), groups=st.integers(1, 60), levels=st.sampled_from([1, 3, 20, 10**6]), data=st.data())
def test_the_largest_of_the_best_groups_are_the_largest_of_all(rows, groups, levels, data: st.DataObject) -> None:
    n = feature_knn.GROUP * groups
    k = data.draw(st.integers(1, max(1, n // 6)))  # of few groups all are looked at
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    table = torch.randint(levels, (rows, n), generator=generator).float()
    values, index = (torch.from_numpy(found) for found in _select(table.numpy(), k))
    assert all(len(set(row)) == k for row in index.tolist())
    torch.testing.assert_close(table.gather(1, index), values)
    torch.testing.assert_close(values.sort(1, descending=True).values, table.topk(k, 1).values)
