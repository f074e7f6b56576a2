"""What `Task2Vec` measures: the definition, its noise, what it must not hang on, and what goes wrong."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature
from torch import Tensor, nn

from t2v_hub import estimate
from t2v_hub.blocks import BlockLayout, BlockStore
from t2v_hub.data import load as load_data
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import (
    CacheWarning,
    EmbeddingMismatchError,
    FewImagesWarning,
    InsufficientMemoryError,
    ProbeOutputError,
    SettingsError,
    SlowPathWarning,
    SmallerBatchWarning,
)
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.head import HeadRecipe
from t2v_hub.probe import ProbeNetwork
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import TINY, TinyNetwork, tiny_probe, tiny_task
from tests.networks import autograd_squares

Array = npt.NDArray[np.float64]
HEAD = HeadRecipe(kind="l2", strength=1.0)


def embed(data: object, probe: ProbeNetwork | nn.Module | None = None, **settings: Any) -> TaskEmbedding:
    options = {
        name: settings.pop(name) for name in ("label_column", "name", "small_classes") if name in settings
    }
    settings = {"cache": False, "progress": False, "head": HEAD, **settings}
    return Task2Vec(tiny_probe() if probe is None else probe, **settings).embed(data, **options)


@pytest.fixture(scope="module")
def task() -> Dataset:
    return tiny_task()


@pytest.fixture(scope="module")
def multi_label_task() -> Dataset:
    """Each image has any of three labels, which tint it."""
    rng = np.random.default_rng(0)
    hot = rng.random((40, 3)) < 0.5
    pixels = np.clip(128 + 60 * (hot[:, None, None, :] - 0.5) + rng.normal(0, 40, (40, 16, 16, 3)), 0, 255)
    labels = [[int(code) for code in np.flatnonzero(row)] for row in hot]
    return pictures(pixels, labels, Sequence(ClassLabel(names=["red", "green", "blue"])))


def pictures(pixels: np.ndarray, labels: list[Any], feature: Any) -> Dataset:
    from PIL import Image

    images = [Image.fromarray(array.astype(np.uint8)) for array in pixels]
    return Dataset.from_dict(
        {"image": images, "label": labels}, features=Features({"image": ImageFeature(), "label": feature})
    )


def relabelled(task: Dataset, labels: list[Any], feature: Any) -> Dataset:
    pixels = np.stack([np.asarray(image) for image in task["image"]])
    return pictures(pixels, labels, feature)


def assert_same_numbers(a: TaskEmbedding, b: TaskEmbedding, *, rtol: float = 0.0) -> None:
    np.testing.assert_allclose(a.fisher, b.fisher, rtol=rtol)
    assert a.space == b.space


# The definition


class Attentive(nn.Module):
    """A network with layers for which there is no fast kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.patches(x)).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


def from_the_definition(data: Dataset, probe: ProbeNetwork, *, multi_label: bool = False) -> np.ndarray:
    """Σ over images and classes of p times the squared gradient, with nothing but autograd."""
    loaded = load_data(data, seed=0, progress=False)
    sample = loaded.sample(1000, seed=0).decode(probe.preprocessing.prepare, progress=False)
    module = copy.deepcopy(probe.module).double().eval()
    probe = ProbeNetwork.load(module, preprocessing=probe.preprocessing)
    inputs = probe.preprocessing.normalise(torch.from_numpy(sample.images)).double()
    with torch.no_grad():
        features = probe.features(inputs).numpy()
    head = HEAD.fit(features, sample.labels)
    p = head.probabilities(features)
    if multi_label:
        directions = np.broadcast_to(head.weight, (len(p), *head.weight.shape))
        chances = p * (1 - p)
    else:
        directions = (np.eye(p.shape[1]) - p[:, None, :]) @ head.weight
        chances = p
    with frozen(module):
        squares = autograd_squares(probe.features, probe.layers, inputs, torch.from_numpy(directions.copy()))
    squares_of_images = squares.numpy().reshape(*p.shape, -1)
    per_image = (squares_of_images * chances[:, :, None]).sum(axis=1)
    return (sample.weights[:, None] * per_image).sum(axis=0) / sample.weights.sum()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_is_the_definition(task, dtype):
    """From images to the vector, against a computation that shares only the head and the data."""
    expected = from_the_definition(task, tiny_probe())

    actual = embed(task, estimator="exact", dtype=dtype)

    np.testing.assert_allclose(actual.fisher, expected, rtol=1e-4 if dtype == "float32" else 1e-6)


def test_exact_is_the_definition_for_several_labels(multi_label_task):
    expected = from_the_definition(multi_label_task, tiny_probe(), multi_label=True)

    actual = embed(multi_label_task, estimator="exact", dtype="float64")

    assert actual.task.multi_label
    np.testing.assert_allclose(actual.fisher, expected, rtol=1e-6)


def test_exact_is_the_definition_on_the_slow_path(task):
    """Slow layers take the same batches, types and directions as fast ones."""
    torch.manual_seed(0)
    probe = ProbeNetwork.load(Attentive(), preprocessing=TINY)
    expected = from_the_definition(task, probe)

    with pytest.warns(
        SlowPathWarning, match=r"2 of 3 layers \(attention.in_proj_weight, attention.out_proj\)"
    ):
        actual = embed(task, probe, estimator="exact")

    np.testing.assert_allclose(actual.fisher, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["task", "multi_label_task"])
def test_many_drawn_labels_come_near_to_all_labels(kind, request):
    """Monte Carlo is unbiased, and its noise falls with the number of draws."""
    data = request.getfixturevalue(kind)
    exact = embed(data, estimator="exact").fisher

    def error(n_labels: int, seed: int) -> float:
        drawn = embed(data, n_labels=n_labels, seed=seed).fisher
        return float(np.linalg.norm(drawn - exact) / np.linalg.norm(exact))

    few = np.mean([error(1, seed) for seed in range(3)])
    many = error(100, 0)

    assert many < 0.1
    assert many < few / 3


def test_empirical_is_a_space_of_its_own(task):
    ours, theirs = embed(task), embed(task, estimator="empirical")

    assert theirs.space.family == "empirical"
    assert not np.array_equal(ours.fisher, theirs.fisher)
    with pytest.raises(EmbeddingMismatchError, match="family: 'fisher' against 'empirical'"):
        ours.space.require_equal(theirs.space)


def test_several_labels_are_a_space_of_their_own(task, multi_label_task):
    with pytest.raises(EmbeddingMismatchError, match=r"head.loss: 'softmax' against 'sigmoid'"):
        embed(task).space.require_equal(embed(multi_label_task).space)


def test_balanced_sampling_weighs_every_class_alike():
    """As if the images of the rare class were there more often."""
    even = tiny_task(12, 2)
    rare = [i for i, label in enumerate(even["label"]) if label == 1][:6]
    common = [i for i, label in enumerate(even["label"]) if label == 0]
    uneven, repeated = even.select(common + rare), even.select(common + rare + rare)

    balanced = embed(uneven, sampling="balanced", estimator="exact")

    np.testing.assert_allclose(balanced.fisher, embed(repeated, estimator="exact").fisher, rtol=1e-5)
    assert not np.allclose(balanced.fisher, embed(uneven, estimator="exact").fisher, rtol=1e-3)
    assert balanced.space.sampling == {"fisher": "balanced"}


# What it must not hang on


@pytest.mark.parametrize(
    ("names", "feature"),
    [
        (["a", "b", "c"], ClassLabel(names=["a", "b", "c"])),
        (["ant", "bee", "cat"], Value("string")),
        ([-7, 3, 900], Value("int64")),
        ([0.0, 1.0, 2.0], Value("float64")),
    ],
)
def test_what_the_labels_are_called_does_not_matter(task, names, feature):
    """Strings, negative codes and gaps mean the same task."""
    again = relabelled(task, [names[code] for code in task["label"]], feature)

    assert_same_numbers(embed(again), embed(task))


def test_boolean_labels_are_labels():
    task = tiny_task(n_classes=2)
    again = relabelled(task, [bool(code) for code in task["label"]], Value("bool"))

    assert_same_numbers(embed(again), embed(task))


def test_permuted_labels_stay_within_the_noise(task):
    """Drawn labels come by other codes then, which is another draw of the same thing."""
    permuted = relabelled(task, [(code + 1) % 3 for code in task["label"]], Value("int64"))

    ours, theirs = embed(task, n_labels=20), embed(permuted, n_labels=20)

    assert theirs.norm == pytest.approx(ours.norm, rel=3 * ours.standard_error)


def test_data_sorted_by_class_are_drawn_from_all_over():
    """The reference takes the first ones, so that whole classes are missing."""
    mixed = tiny_task(60)
    ordered = mixed.sort("label")

    ours = embed(ordered, max_samples=45, estimator="exact")

    assert ours.measurement.n_samples == 45
    theirs = embed(mixed, max_samples=45, estimator="exact")
    assert ours.norm == pytest.approx(theirs.norm, rel=5 * theirs.standard_error)
    assert ours.norm == pytest.approx(embed(mixed, estimator="exact").norm, rel=5 * ours.standard_error)


def test_the_type_of_the_passes_does_not_matter_much(task):
    single, double = embed(task), embed(task, dtype="float64")

    np.testing.assert_allclose(single.fisher, double.fisher, rtol=1e-4)
    assert (single.measurement.dtype, double.measurement.dtype) == ("float32", "float64")
    assert single.space == double.space


def test_passes_under_autocast_are_recorded_and_near(task):
    """Eight bits of precision in the passes; the sums keep theirs."""
    single, half = embed(task), embed(task, dtype="bfloat16")

    assert not np.array_equal(single.fisher, half.fisher)
    assert np.linalg.norm(single.fisher - half.fisher) < 0.05 * single.norm
    assert half.measurement.dtype == "bfloat16"
    assert single.space == half.space


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_of_another_type_is_measured_in_a_copy(task, dtype):
    """Half precision squares to zero; the caller's network stays as it is."""
    module = TinyNetwork().to(dtype)
    before = {key: value.clone() for key, value in module.state_dict().items()}

    embedding = embed(task, ProbeNetwork.load(module, preprocessing=TINY))

    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert {p.dtype for p in module.parameters()} == {dtype}
    rounded = ProbeNetwork.load(copy.deepcopy(module).float(), preprocessing=TINY)
    np.testing.assert_array_equal(embedding.fisher, embed(task, rounded).fisher)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(task, context):
    expected = embed(task)

    with context():
        actual = embed(task)

    assert actual == expected


def test_the_callers_random_numbers_are_left_alone(task):
    """Neither used nor reseeded."""
    probe = tiny_probe()
    torch.manual_seed(5)
    np.random.seed(5)
    first = embed(task, probe)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    torch.manual_seed(5)
    np.random.seed(5)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    torch.manual_seed(6)
    assert embed(task) == first


class Wandering(TinyNetwork):
    """Hooked, in the middle of training, with a buffer that is replaced in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.train()
        self.conv1.register_forward_hook(lambda child, inputs, output: None)
        self(torch.randn(4, 3, 16, 16)).sum().backward()
        self.conv1.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return super().forward(images)


@pytest.mark.parametrize("failing", [False, True])
def test_the_network_is_handed_back_byte_for_byte(task, failing, monkeypatch):
    torch.manual_seed(0)
    module = Wandering()

    def state() -> object:
        return (
            {key: value.numpy().tobytes() for key, value in module.state_dict().items()},
            {
                key: (p.requires_grad, p.grad is None or p.grad.sum().item())
                for key, p in module.named_parameters()
            },
            {name: child.training for name, child in module.named_modules()},
            {name: list(child._forward_hooks) for name, child in module.named_modules()},
        )

    before = state()
    if failing:
        monkeypatch.setattr(SquaredGradients, "backward", raising(ValueError("broken")))
        with pytest.raises(ValueError, match="broken"):
            embed(task, ProbeNetwork.load(module, preprocessing=TINY))
    else:
        embed(task, ProbeNetwork.load(module, preprocessing=TINY))

    assert state() == before


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*args: object, **options: object) -> None:
        raise error

    return function


# Its own error


def test_the_stated_error_is_the_spread_of_full_reruns():
    """New images, heads and labels each time. Thirty reruns know the spread to 13 %."""
    stated = [embed(tiny_task(50, seed=seed), seed=seed).standard_error for seed in range(3)]
    runs = [embed(tiny_task(50, seed=s), seed=s, standard_error=False).fisher for s in range(100, 130)]
    vectors = np.stack(runs).astype(np.float64)

    mean = vectors.mean(axis=0)
    spread = math.sqrt(vectors.var(axis=0, ddof=1).sum() / np.square(mean).sum())

    assert 0.6 < np.mean(stated) / spread < 1.7


def test_the_vector_does_not_hang_on_whether_its_error_is_wanted(task, recwarn):
    without = embed(task, standard_error=False, max_samples=4)

    assert without.deviations is None
    assert math.isnan(without.standard_error)
    np.testing.assert_array_equal(without.fisher, embed(task, max_samples=4, standard_error=True).fisher)
    assert [type(w.message) for w in recwarn.list] == [FewImagesWarning]  # of the second


def test_classes_of_one_image_are_warned_of(task):
    """Their part in the error cannot be known, and would seem to be none."""
    with pytest.warns(FewImagesWarning, match=r"2 of 3 classes .* one image in the sample of 4: .* 6 images"):
        embed(task, max_samples=4)


def test_replicates_are_the_changes_of_reweighted_tasks(task):
    """A group that counts 1.3 is a group with more images, for the head and for the mean alike."""
    embedding = embed(task, estimator="exact", dtype="float64")

    assert embedding.deviations is not None
    assert embedding.deviations.shape == (15, 24)
    assert np.isfinite(embedding.deviations).all()
    assert 0 < embedding.measurement.median_standard_error < 1
    assert 0 < embedding.measurement.distance_standard_error < 1


@pytest.mark.parametrize("n", [4, 7, 33])
def test_small_tasks_have_an_error_too(n):
    """Fewer images than groups, and numbers that divide into neither."""
    embedding = embed(tiny_task(n // 2 + 1, 2).select(range(n)), small_classes="keep")

    assert embedding.measurement.n_samples == n
    assert np.isfinite(embedding.standard_error)
    assert (embedding.fisher > 0).any()


def test_measuring_stops_once_it_is_precise_enough():
    """After whole rounds of 256 images, with the first images' bits; the head saw all images."""
    data = tiny_task(200)
    everything = embed(data)
    rounds = [embed(data, tolerance=t) for t in (0.9, 0.001)]

    assert [e.measurement.n_samples for e in rounds] == [256, 600]
    assert [e.measurement.n_head_samples for e in rounds] == [600, 600]
    np.testing.assert_array_equal(rounds[1].fisher, everything.fisher)
    assert rounds[0].standard_error < 0.9
    # Fewer images, larger error; both say how far the first is from the second.
    gap = np.linalg.norm(rounds[0].fisher - everything.fisher) / np.linalg.norm(everything.fisher)
    assert everything.standard_error < rounds[0].standard_error
    assert gap < 3 * rounds[0].standard_error


# What goes wrong


class Sour(TinyNetwork):
    """NaN features where an image is dark."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.log(self.hidden(self.conv2(self.conv1(images)).mean(dim=(2, 3))) - 0.3))


def test_features_that_are_not_finite_are_named(task):
    """They would end in a solver of the head, with a message about arrays."""
    with pytest.raises(ProbeOutputError, match=r"'Sour' gives NaN or infinite features for \d+ of 36 images"):
        embed(task, ProbeNetwork.load(Sour(), preprocessing=TINY))


class Steep(TinyNetwork):
    """Finite features of infinite slope."""

    def forward(self, images: Tensor) -> Tensor:
        x = (self.conv1(images).mean(dim=(2, 3)) * 0).sqrt()
        x = x.sum(dim=1, keepdim=True) + torch.tanh(self.conv1(images).mean(dim=(2, 3)))[:, :1].expand(-1, 8)
        return self.head(torch.tanh(self.hidden(x)))


def test_gradients_that_are_not_finite_are_named(task):
    with pytest.raises(ProbeOutputError, match="'Steep' gives NaN or infinite gradients"):
        embed(task, ProbeNetwork.load(Steep(), preprocessing=TINY))


class Limited(TinyNetwork):
    """Has memory for so many images at a time."""

    most = 8

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().forward(images)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_passes_shrink_until_they_fit(task, most):
    """Down to one image, for which alone there may be memory. Only rounding differs."""
    module = Limited()
    probe = ProbeNetwork.load(module, head="head", preprocessing=TINY)
    expected = embed(task, probe)
    module.most = most

    with pytest.warns(SmallerBatchWarning, match=r"Out of memory: going on with \d images per pass"):
        actual = embed(task, probe)

    assert actual.measurement.pass_size == {1: 1, 2: 2, 5: 4}[most]
    np.testing.assert_allclose(actual.fisher, expected.fisher, rtol=1e-5, atol=1e-6 * expected.fisher.mean())


def test_one_image_that_does_not_fit_is_named(task):
    module = Limited()
    probe = ProbeNetwork.load(module, head="head", preprocessing=TINY)
    module.most = 0

    with (
        pytest.warns(SmallerBatchWarning),
        pytest.raises(InsufficientMemoryError, match=r"One image of \(3, 16, 16\) does not fit .*image_size"),
    ):
        embed(task, probe)


def test_memory_that_runs_out_halfway_costs_nothing_that_was_measured(task, monkeypatch):
    """The pass at hand is done again, smaller; what was added up stays."""
    expected = embed(task)
    backward = SquaredGradients.backward
    calls: list[int] = []

    def scarce(self: SquaredGradients, directions: Tensor, *, keep: bool = False) -> Tensor:
        calls.append(len(directions))
        if len(calls) == 5:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
            )
        return backward(self, directions, keep=keep)

    monkeypatch.setattr(SquaredGradients, "backward", scarce)
    with pytest.warns(SmallerBatchWarning, match="going on with 4 images"):
        actual = embed(task)

    assert calls[:6] == [8, 8, 8, 8, 8, 4]
    np.testing.assert_allclose(actual.fisher, expected.fisher, rtol=1e-5)
    np.testing.assert_allclose(actual.deviations, expected.deviations, rtol=1e-2, atol=1e-3)


def test_other_failures_are_not_taken_for_a_lack_of_memory(task, monkeypatch):
    monkeypatch.setattr(SquaredGradients, "backward", raising(RuntimeError("shapes do not fit")))

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        embed(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_samples": 1}, "max_samples must be a whole number >= 2, not 1"),
        ({"n_labels": 0}, "n_labels must be a whole number >= 1, not 0"),
        ({"n_labels": 2.0}, "n_labels must be a whole number >= 1, not 2.0"),
        ({"batch_size": True}, "batch_size must be a whole number >= 1, not True"),
        ({"beta": float("nan")}, "beta must be a finite number > 0, not nan"),
        ({"tolerance": 0.1, "standard_error": False}, "tolerance needs the standard error"),
        ({"tolerance": 1.5}, "tolerance must lie between 0 and 1, or be None, not 1.5"),
        ({"dtype": "float16"}, "dtype must be 'float32', 'float64' or 'bfloat16', not 'float16'"),
        (
            {"dtype": "bfloat16", "estimator": "variational"},
            "which bfloat16 would lose",
        ),
        ({"beta": "small"}, "beta must be a finite number > 0, not 'small'"),
        ({"head": "l2"}, "head must be a HeadRecipe, such as .*, not 'l2'"),
        ({"device": "toaster"}, "device='toaster' cannot be used here: .*Pass 'cpu', or None"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here: .*Pass 'cpu', or None"),
        ({"filters": ["layer9"]}, "filters: no layer of 'TinyNetwork' is called 'layer9'"),
        ({"image_size": -1}, "image_size must be at least 1 pixel, not -1"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        Task2Vec(tiny_probe(), **settings)


# The cache


def test_a_finished_embedding_is_not_measured_again(task, tmp_path, monkeypatch):
    """And carries the name it is asked for now."""
    first = embed(task, cache=tmp_path)
    monkeypatch.setattr(estimate.TaskFisher, "run", raising(AssertionError("measured again")))

    again = embed(task, cache=tmp_path, name="another name")

    assert again.task.id == "another name"
    np.testing.assert_array_equal(again.fisher, first.fisher)
    np.testing.assert_array_equal(again.deviations, first.deviations)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1}, {"n_labels": 2}, {"estimator": "exact"}, {"estimator": "empirical"}, {"max_samples": 30},
        {"head": HeadRecipe(kind="l2", strength=0.1)}, {"dtype": "float64"}, {"filters": ["conv*"]},
        {"sampling": "balanced"}, {"beta": 1e-3}, {"image_size": 12}, {"normalisation": True},
        {"tolerance": 0.01}, {"standard_error": False},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_find_no_cached_embedding(task, settings, tmp_path, monkeypatch):
    """A key that misses a setting hands out another measurement without a word."""
    embed(task, cache=tmp_path)
    monkeypatch.setattr(estimate.TaskFisher, "run", raising(LookupError("measured anew")))

    with pytest.raises(LookupError, match="measured anew"):
        embed(task, cache=tmp_path, **settings)


def test_other_weights_find_no_cached_embedding(task, tmp_path, monkeypatch):
    embed(task, cache=tmp_path)
    monkeypatch.setattr(estimate.TaskFisher, "run", raising(LookupError("measured anew")))

    with pytest.raises(LookupError, match="measured anew"):
        embed(task, tiny_probe(seed=1), cache=tmp_path)


@pytest.fixture
def interrupted(tmp_path, monkeypatch) -> Callable[[], TaskEmbedding]:
    """A run of four blocks that stopped after two; calling it goes on."""
    data = tiny_task(40)
    put = BlockStore.put

    def stopping(self: BlockStore, index: int, sums: Array) -> None:
        put(self, index, sums)
        if index == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BlockStore, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            embed(data, cache=tmp_path)
    assert len(list(tmp_path.glob("*/block-*"))) == 2
    return lambda: embed(data, cache=tmp_path)


def flipped(content: bytes) -> bytes:
    place = len(content) - 20
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage", [flipped, lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"x" * 100], ids=range(4)
)
def test_a_damaged_block_is_measured_again(interrupted, tmp_path, damage):
    """A single flipped bit would go unseen into every ranking."""
    block = tmp_path.glob("*/block-000001*").__next__()
    block.write_bytes(damage(block.read_bytes()))

    with pytest.warns(CacheWarning, match=r"Block 1 in .* is damaged \(.*\); it is measured again"):
        result = interrupted()

    assert result == embed(tiny_task(40))


def test_a_block_of_another_run_does_not_fit(tmp_path):
    """Such as of other filters, copied there by hand."""
    BlockStore(tmp_path).put(0, np.ones((2, 5)))

    with pytest.warns(CacheWarning, match=r"the sums are float64 \(2, 5\), not float64 \(2, 6\)"):
        assert BlockStore(tmp_path).get(0, (2, 6)) is None


def test_what_a_killed_process_left_half_written_goes_with_the_blocks(tmp_path):
    """But not what another one is writing now."""
    store = BlockStore(tmp_path / "blocks")
    store.put(0, np.zeros((1, 2)))
    old, new = (tmp_path / "blocks" / f".block-00000{i}.safetensors.x.tmp" for i in (1, 2))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))

    store.discard()

    assert list((tmp_path / "blocks").iterdir()) == [new]
    new.unlink()
    store.discard()
    assert not (tmp_path / "blocks").exists()


def test_blocks_come_back_to_the_bit(tmp_path):
    sums = np.array([[1 / 3, 1e-300], [2.0, -0.0], [5.0, 7.0]])
    BlockStore(tmp_path).put(4, sums)

    again = BlockStore(tmp_path).get(4, (3, 2))

    assert again is not None
    assert again.tobytes() == sums.tobytes()
    assert BlockStore(tmp_path).get(5, (3, 2)) is None


@pytest.mark.parametrize("n", [1, 15, 16, 32, 33, 1000])
def test_blocks_divide_the_samples(n):
    layout = BlockLayout(n)

    assert [i for b in range(layout.n_blocks) for i in layout.block(b)] == list(range(n))


# Spaces


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"filters": 0.5}, {"normalisation": True}, {"sampling": "balanced"}, {"estimator": "empirical"},
        {"head": HeadRecipe(kind="entropy", entropy=0.5)}, {"beta": 1e-3}, {"image_size": 12},
    ],
    ids=str,
)  # fmt: skip
def test_a_space_says_all_that_is_needed_to_measure_in_it(task, settings):
    """From the record alone, as a catalog keeps it."""
    first = embed(task, seed=3, **settings)
    space = type(first.space).from_dict(first.space.to_dict())

    again = Task2Vec.for_space(space, probe=TinyNetwork(), seed=3, cache=False, progress=False)

    assert_same_numbers(again.embed(task), first)


def test_a_space_of_several_labels_can_be_measured_in_again(multi_label_task):
    first = embed(multi_label_task)

    again = Task2Vec.for_space(first.space, probe=tiny_probe(), cache=False, progress=False)

    assert_same_numbers(again.embed(multi_label_task), first)


def test_a_probe_with_filters_keeps_them(task):
    """Settings of `Task2Vec` that are not given leave the probe's own."""
    probe = ProbeNetwork.load(TinyNetwork(), filters=["conv*"], preprocessing=TINY)

    assert [layer.name for layer in embed(task, probe, image_size=12).space.layers] == ["conv1", "conv2"]


def test_a_process_may_discard_blocks_that_another_one_discards(tmp_path, monkeypatch):
    """Processes that share a folder end at the same time; the folder goes while one is looking into it."""
    store = BlockStore(tmp_path / "shared.blocks")
    store.put(0, np.zeros((2, 3)))
    unlink = Path.unlink

    def at_once(path, missing_ok=False):
        unlink(path)
        path.parent.rmdir()  # the other one
        return unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", at_once)
    store.discard()
    store.discard()

    assert not store.folder.exists()
