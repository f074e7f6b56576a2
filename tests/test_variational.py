"""The variational estimate: its optimum, its noise, its space, and what goes wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F

from t2v_hub import precision
from t2v_hub.distance import asymmetric_distance, distance, symmetric_distance
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import (
    EmbeddingMismatchError,
    InsufficientMemoryError,
    ProbeError,
    ProbeOutputError,
    SettingsError,
)
from t2v_hub.fisher import FilterLayer, SquaredGradients, frozen
from t2v_hub.fisher.noise import OutputNoise
from t2v_hub.fisher.variational import Images, VariationalLoss, VariationalRecipe
from t2v_hub.probe import ProbeNetwork
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import TINY, TinyNetwork, tiny_probe, tiny_task

Array = npt.NDArray[np.float64]
QUICK = VariationalRecipe(epochs=1, draws=96, batch_size=16)
THOROUGH = VariationalRecipe(
    epochs=1, draws=500 * 500, batch_size=500, learning_rate=0.03, head_learning_rate=0.0
)
BETAS = [1e-6, 1e-5, 1e-4]
_LABELS = 500  # of each image: what they differ from the model's expectation is a part of the Hessian


# The optimum, against what second derivatives say


class Toy:
    """A small network, inputs, a head, and labels drawn from the model: then Fisher and Hessian agree."""

    def __init__(self, module: nn.Module, inputs: Tensor, *, multi_label: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module = module.double().eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        self.inputs = inputs
        self.layers = [
            FilterLayer(name, child.weight)
            for name, child in module.named_modules()
            if isinstance(child, nn.Conv2d | nn.Linear)
        ]
        self.multi_label = multi_label
        self.head = 0.7 * torch.randn(3, module(inputs).shape[1], generator=generator).double()
        logits = module(inputs) @ self.head.T
        self.p = logits.sigmoid() if multi_label else logits.softmax(dim=1)
        if multi_label:
            draws = torch.rand((_LABELS, *self.p.shape), generator=generator)
            self.labels = (draws < self.p).long().permute(1, 0, 2).numpy()
        else:
            self.labels = torch.multinomial(self.p, _LABELS, replacement=True, generator=generator).numpy()

    def fitted(self, *, beta: float, recipe: VariationalRecipe = THOROUGH, seed: int = 0) -> Array:
        n = len(self.inputs)
        loss = VariationalLoss(
            self.module, self.layers, recipe=recipe, beta=beta, seed=seed, pass_size=recipe.batch_size
        )
        # Each image stands there once for each of its labels, so that labels follow the model.
        labels = np.concatenate(list(self.labels.swapaxes(0, 1)))
        images = Images(
            lambda places: self.inputs[places % n],
            labels,
            labels[:, None],
            np.full(len(labels), 1 / len(labels)),
        )
        with frozen(self.module):
            optimum = loss.minimise(self.head.numpy(), np.zeros(3), images, on_step=lambda: None)
        return optimum.precision

    def fisher(self, squares: Callable[[Tensor], Array]) -> Array:
        """Mean over images of the expectation over labels of ``squares`` of the log-likelihood."""
        total = 0.0
        for i, p in enumerate(self.p):
            if self.multi_label:  # Σ p(1-p) (dz/dw)²
                terms = [(float(p[c] * (1 - p[c])), lambda z, c=c: z[c]) for c in range(3)]
            else:
                terms = [(float(p[c]), lambda z, c=c: z.log_softmax(dim=0)[c]) for c in range(3)]
            for weight, value in terms:
                total = total + weight * squares(self.inputs[i : i + 1], value, self.head)  # type: ignore[call-arg]
        return np.asarray(total) / len(self.p)

    def by_gradients(self) -> Array:
        """The Fisher information: the square of the whole gradient, mean over a filter."""

        def squares(x: Tensor, value: Callable[[Tensor], Tensor], head: Tensor) -> Array:
            weights = [layer.weight for layer in self.layers]
            for weight in weights:
                weight.requires_grad_(True)
            gradients = torch.autograd.grad(value(head @ self.module(x)[0]), weights)
            for weight in weights:
                weight.requires_grad_(False)
            return torch.cat([g.flatten(1).square().mean(dim=1) for g in gradients]).numpy()

        return self.fisher(squares)  # type: ignore[arg-type]

    @property
    def priors(self) -> Array:
        """λ² of each filter's layer."""
        return np.concatenate(
            [np.full(layer.n_filters, float(layer.weight.square().mean())) for layer in self.layers]
        )


def perceptron(*, multi_label: bool = False) -> Toy:
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh())
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)).double()
    return Toy(module, inputs, multi_label=multi_label)


@pytest.mark.parametrize(("beta", "multi_label"), [(1e-6, False), (1e-5, False), (1e-5, True), (1e-4, False)])
def test_the_optimum_is_the_closed_form(beta, multi_label):
    """1/σ² = F/(2β) + 1/λ²: within 12 % for every filter (25 % for the largest β), 4 % in the median.

    What remains is the noise of Adam's steps, and the fourth derivatives that large variances feel.
    """
    toy = perceptron(multi_label=multi_label)
    expected = toy.by_gradients() / (2 * beta) + 1 / toy.priors

    ratios = toy.fitted(beta=beta) / expected

    assert np.median(np.abs(ratios - 1)) < (0.04 if beta < 1e-4 else 0.06)
    np.testing.assert_allclose(ratios, 1, atol=0.12 if beta < 1e-4 else 0.25)


def test_the_start_does_not_decide():
    """Steps from far off end where those from the closed form end: it is the loss that is minimised."""
    toy = perceptron()
    far = VariationalRecipe(**{**THOROUGH.to_dict(), "start": "variance"})

    np.testing.assert_allclose(toy.fitted(beta=1e-4, recipe=far), toy.fitted(beta=1e-4), rtol=0.02)


@pytest.mark.parametrize("beta", BETAS)
def test_a_fitted_prior_is_the_mean_of_squares_and_variances(beta):
    """λ² = mean(w² + σ²) and 1/σ² = F/(2β) + 1/λ², both at once."""
    toy = perceptron()
    fisher, priors = toy.by_gradients(), toy.priors
    fitted = priors
    for _ in range(1000):
        variances = 1 / (fisher / (2 * beta) + 1 / fitted)
        fitted = priors + np.concatenate([np.full(n, part.mean()) for n, part in parts(toy, variances)])
    recipe = VariationalRecipe(**{**THOROUGH.to_dict(), "prior": "fitted"})

    ratios = toy.fitted(beta=beta, recipe=recipe) * variances

    np.testing.assert_allclose(ratios, 1, atol=0.12 if beta < 1e-4 else 0.25)


def parts(toy: Toy, values: Array) -> list[tuple[int, Array]]:
    edges = np.cumsum([0, *(layer.n_filters for layer in toy.layers)])
    return [(stop - start, values[start:stop]) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def test_without_information_the_prior_comes_out():
    """The trivial embedding t₀: β so large that the data say nothing."""
    toy = perceptron()

    np.testing.assert_allclose(toy.fitted(beta=1e6) * toy.priors, 1, atol=0.01)


def test_squares_are_summed_over_the_positions_of_a_convolution():
    """Noise is independent per position, so the square of the sum, the Fisher, is not what comes out."""
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Identity(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    inputs = torch.randn(40, 4, 7, 7, generator=torch.Generator().manual_seed(1)).double() + 0.5
    toy, beta = Toy(module, inputs), 1e-5
    convolution = module[0]

    def squares(x: Tensor, value: Callable[[Tensor], Tensor], head: Tensor) -> Array:
        maps = convolution(x).requires_grad_()
        (gradient,) = torch.autograd.grad(value(head @ module[1:](maps)[0]), maps)
        patches = F.unfold(x, 3, stride=2, padding=1)[0]  # (4·9, positions)
        norms = patches.square().unflatten(0, (2, -1)).sum(dim=1).repeat_interleave(3, dim=0)
        return ((gradient[0].flatten(1).square() * norms).sum(dim=1) / 18).numpy()

    local = toy.fisher(squares) / (2 * beta) + 1 / toy.priors  # type: ignore[arg-type]
    true = toy.by_gradients() / (2 * beta) + 1 / toy.priors

    actual = toy.fitted(beta=beta)

    np.testing.assert_allclose(actual / local, 1, atol=0.1)
    assert np.abs(np.log(true / local)).max() > 0.5


# The noise, against weights that are drawn


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 8, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 3, 2, padding=1, padding_mode="circular"),
        nn.Linear(5, 7),
    ],
    ids=str,
)
def test_outputs_have_the_mean_and_variance_that_noisy_weights_give(layer):
    """At every position by itself; 20,000 draws of the weights against as many of the outputs."""
    n, generator = 20_000, torch.Generator().manual_seed(3)
    layer = layer.double().requires_grad_(False)
    deviations = 0.2 + torch.rand(len(layer.weight), generator=generator).double()
    convolves = isinstance(layer, nn.Conv2d)
    x = torch.randn((1, 4, 5, 6) if convolves else (1, 3, 5), generator=generator).double()
    x[..., :2] = 0.0  # a patch of nothing but zeros
    mean, sums = layer(x), torch.zeros(2, *layer(x).shape).double()
    kept = layer.weight.clone()
    for _ in range(n):
        noise = torch.randn(kept.shape, generator=generator).double()
        layer.weight.copy_(kept + noise * deviations.view(-1, *[1] * (kept.dim() - 1)))
        moved = layer(x) - mean
        sums += torch.stack([moved, moved.square()])
    layer.weight.copy_(kept)
    expected_mean, expected_variance = sums / n

    with OutputNoise([FilterLayer("it", layer.weight)], [deviations], generator, 1.0):
        actual = layer(x.expand(n, *x.shape[1:])) - mean

    spread = expected_variance.clamp_min(1e-12).sqrt()
    assert ((actual.mean(dim=0) - expected_mean[0]).abs() < 6 * spread[0] * (2 / n) ** 0.5 + 1e-9).all()
    torch.testing.assert_close(actual.var(dim=0), expected_variance[0], rtol=0.06, atol=1e-9)


def test_opposite_noise_is_opposite():
    """So that the gradient's own part cancels in a pair."""
    layer = nn.Linear(3, 4).requires_grad_(False)
    x = torch.randn(5, 3)
    outputs = []
    for sign in (1.0, -1.0):
        generator = torch.Generator().manual_seed(0)
        with OutputNoise([FilterLayer("it", layer.weight)], [torch.ones(4)], generator, sign):
            outputs.append(layer(x))

    torch.testing.assert_close(outputs[0] + outputs[1], 2 * layer(x))


class InPlace(nn.Module):
    """Overwrites what a layer has read, and what it gave, or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        self.inplace = inplace
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x), inplace=self.inplace)
        y = self.conv2(x)
        x = x.add_(y) if self.inplace else x + y  # what conv2 has read
        return self.head(F.relu(x, inplace=self.inplace).mean(dim=(2, 3)))


def test_networks_that_work_in_place_are_measured_alike():
    """What is overwritten after a layer has read it must not reach its noise."""
    first, second = (
        embed(tiny_task(), ProbeNetwork.load(InPlace(flag), preprocessing=TINY)) for flag in (False, True)
    )

    np.testing.assert_array_equal(first.fisher, second.fisher)


# From images to the embedding


def embedder(probe: Any = None, **settings: Any) -> Task2Vec:
    settings = {
        "variational": QUICK,
        "estimator": "variational",
        "cache": False,
        "progress": False,
    } | settings
    return Task2Vec(tiny_probe() if probe is None else probe, **settings)


def embed(data: object, probe: Any = None, **settings: Any) -> TaskEmbedding:
    return embedder(probe, **settings).embed(data)


@pytest.fixture(scope="module")
def task() -> Dataset:
    return tiny_task()


@pytest.fixture(scope="module")
def embedding(task) -> TaskEmbedding:
    return embed(task)


def test_what_is_recorded(embedding):
    """Precisions have a family of their own, no standard error, and the recipe in their space."""
    assert embedding.space.family == "variational"
    assert embedding.measurement.estimator == "variational"
    assert embedding.measurement.n_samples == 36
    assert embedding.deviations is None
    assert np.isnan(embedding.standard_error)
    assert embedding.space.sampling == {"fisher": "balanced", **QUICK.to_dict()}
    np.testing.assert_array_equal(embedding.robust, embedding.fisher.astype(np.float64))
    np.testing.assert_allclose(embedding.prior, tiny_probe().prior, rtol=1e-6)


@pytest.mark.parametrize("recipe", [{"start": "variance"}, {"prior": "fitted"}, {"head_learning_rate": 5e-4}])
def test_other_recipes_give_other_numbers_with_one_prior(task, embedding, recipe):
    """t₀ is the trivial embedding of all tasks, so a fitted prior is not what is recorded."""
    other = embed(task, variational=VariationalRecipe(**{**QUICK.to_dict(), **recipe}))

    assert not np.array_equal(other.fisher, embedding.fisher)
    np.testing.assert_array_equal(other.prior, embedding.prior)
    (name,) = recipe
    with pytest.raises(EmbeddingMismatchError, match=rf"sampling\.{name}"):
        symmetric_distance(embedding, other)


def test_the_head_is_fitted_further_or_left_alone(task):
    """Its penalty does not act under the noise, so it grows surer."""
    fisher = Task2Vec(tiny_probe(), cache=False, progress=False).embed(task)
    left = embed(task)
    further = embed(task, variational=VariationalRecipe(**{**QUICK.to_dict(), "head_learning_rate": 0.02}))

    assert left.measurement.mean_confidence == pytest.approx(fisher.measurement.mean_confidence)
    assert further.measurement.mean_confidence > left.measurement.mean_confidence + 0.01


def test_the_seed_decides_and_nothing_else(task, embedding):
    """Not the caller's random state, nor what passes take on a CPU; and that state is left alone."""
    probe = tiny_probe()
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with torch.no_grad():
        again = embed(task, probe, batch_size=1)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert again == embedding
    assert not np.array_equal(embed(task, seed=1).fisher, embedding.fisher)


def test_the_network_is_handed_back_as_it_was(task):
    """Its mode, flags, gradients and every byte."""
    module = TinyNetwork().train()
    module.conv1.weight.grad = torch.ones_like(module.conv1.weight)
    module.head.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    flags = [parameter.requires_grad for parameter in module.parameters()]

    embed(task, ProbeNetwork.load(module, preprocessing=TINY))

    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.training
    assert flags == [parameter.requires_grad for parameter in module.parameters()]
    assert torch.equal(module.conv1.weight.grad, torch.ones_like(module.conv1.weight))
    assert module.conv2.weight.grad is None


def test_classes_are_drawn_alike():
    """Also the images of a rare one together as often as those of a common one."""
    sample = precision.DecodedSample(
        images=np.zeros((16, 3, 16, 16), np.uint8),
        labels=np.array([0] * 12 + [1] * 4),
        weights=np.ones(16),
        n_skipped=0,
        skipped=(),
    )
    probe = tiny_probe()
    squares = SquaredGradients(probe.module, probe.features, probe.layers)
    estimate = precision.TaskPrecision(
        squares, probe, sample, head=embedder().head, recipe=QUICK, beta=1e-5, seed=0, batch_size=8,
        progress=False, name="it",
    )  # fmt: skip

    chances = estimate._chances
    assert chances[:12].sum() == pytest.approx(0.5)
    assert chances[12:] == pytest.approx(np.full(4, 0.125))


def test_tasks_of_several_labels_are_a_space_of_their_own(embedding):
    from tests.test_estimate import pictures

    rng = np.random.default_rng(0)
    hot = rng.random((40, 3)) < 0.5
    pixels = np.clip(128 + 60 * (hot[:, None, None, :] - 0.5) + rng.normal(0, 40, (40, 16, 16, 3)), 0, 255)
    from datasets import ClassLabel, Sequence

    labels = [[int(code) for code in np.flatnonzero(row)] for row in hot]
    data = pictures(pixels, labels, Sequence(ClassLabel(names=["red", "green", "blue"])))

    several = embed(data)

    assert several.space.head["loss"] == "sigmoid"
    assert several.space.sampling["fisher"] == "natural"
    assert (several.robust > 0).all()
    with pytest.raises(EmbeddingMismatchError, match=r"head\.loss"):
        symmetric_distance(embedding, several)
    again = Task2Vec.for_space(several.space, probe=tiny_probe(), cache=False, progress=False)
    np.testing.assert_array_equal(again.embed(data).fisher, several.fisher)


# Distances, spaces, files


def test_precisions_do_not_mix_with_fisher_information(task, embedding):
    """Their unit is another; the message names the family."""
    fisher = Task2Vec(tiny_probe(), cache=False, progress=False).embed(task)

    for name in ("symmetric", "asymmetric"):
        with pytest.raises(EmbeddingMismatchError, match="family: 'variational' against 'fisher'"):
            distance(embedding, fisher, name=name)


def test_the_asymmetric_distance_takes_precisions_as_they_are(embedding):
    """The closed form's distance, of vectors that are mapped already."""
    other = embed(tiny_task(shift=0.5))

    def symmetric(a: Array, b: Array) -> float:
        u, v = a / (a + b), b / (a + b)
        return float(1 - u @ v / np.sqrt((u @ u) * (v @ v)))

    source, target, trivial = (
        v.astype(np.float64) for v in (embedding.fisher, other.fisher, other.prior_precision)
    )
    expected = symmetric(source, target) - 0.15 * symmetric(source, trivial)

    assert asymmetric_distance(embedding, other) == pytest.approx(expected, abs=1e-9)
    assert expected != 0


def test_a_file_brings_it_back(embedding, tmp_path):
    assert TaskEmbedding.load(embedding.save(tmp_path / "it.safetensors")) == embedding


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_a_space_says_all_that_is_needed_to_measure_in_it(task, sampling):
    """From the record alone; classes are drawn alike whatever the sampling, also of a part."""
    first = embed(task, sampling=sampling, max_samples=20, seed=3, beta=1e-5)
    space = Space.from_dict(first.space.to_dict())

    again = Task2Vec.for_space(space, probe=tiny_probe(), max_samples=20, seed=3, cache=False, progress=False)

    assert again.estimator == "variational"
    assert again.variational == QUICK
    assert again.embed(task) == first


def test_a_finished_one_is_not_measured_again(task, embedding, tmp_path, monkeypatch):
    """And another recipe, family or seed finds nothing."""
    assert embed(task, cache=tmp_path) == embedding

    def again(self: object) -> None:
        raise LookupError("measured anew")

    monkeypatch.setattr(precision.TaskPrecision, "minimise", again)
    assert embed(task, cache=tmp_path) == embedding
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    for changes in ({"seed": 1}, {"variational": VariationalRecipe()}, {"beta": 1e-3}):
        with pytest.raises(LookupError, match="measured anew"):
            embed(task, cache=tmp_path, **changes)


def test_several_processes_get_one_embedding(task, embedding, tmp_path):
    """All of them the bits of one process."""
    script = tmp_path / "together.py"
    script.write_text(
        "from pathlib import Path\n"
        "from t2v_hub.processes import Processes\n"
        "from tests.test_variational import embed\n"
        "from t2v_hub.testing import tiny_task\n"
        f"embed(tiny_task()).save(Path({str(tmp_path)!r}) / f'{{Processes().index}}.safetensors')\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    for index in range(2):
        assert TaskEmbedding.load(tmp_path / f"{index}.safetensors") == embedding


# What goes wrong


class Odd(nn.Module):
    """Uses one weight in an attention, one in a one-dimensional convolution, one twice in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.line = nn.Conv1d(8, 8, 3)
        self.tied = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.patches(x)).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0]
        x = self.line(x.transpose(1, 2)).mean(dim=2)
        return self.head(torch.tanh(self.tied(x)) @ self.tied.weight)


def test_layers_whose_noise_is_not_known_are_named(task):
    """Before anything is measured, with the way out; which works."""
    torch.manual_seed(0)
    module = Odd()
    message = (
        r"4 of 5 layers are used in another way "
        r"\(attention.in_proj_weight, attention.out_proj, line, tied\)\. Leave them out with filters="
    )

    with pytest.raises(ProbeError, match=message):
        embed(task, ProbeNetwork.load(module, preprocessing=TINY))
    left = embed(task, ProbeNetwork.load(module, preprocessing=TINY), filters=["patches"])
    assert len(left.fisher) == 8
    with pytest.raises(ProbeError, match=r"1 of 4 layers .*\(norm\)"):
        embed(task, normalisation=True)


class Broken(TinyNetwork):
    """Whose features cannot be differentiated where they are zero."""

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv1(images)) * 0
        hidden = self.hidden(self.conv2(maps).mean(dim=(2, 3)))
        return self.head((hidden - hidden.detach()).abs().sqrt() + 1)


def test_gradients_that_are_not_finite_are_named(task):
    with pytest.raises(ProbeOutputError, match=r"NaN or infinite .* dtype='float64'"):
        embed(task, ProbeNetwork.load(Broken(), head="head", preprocessing=TINY))


def test_too_little_memory_is_named(task, monkeypatch):
    """Smaller passes would draw other noise, so there is no halving."""

    def never(self: object, *args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(VariationalLoss, "minimise", never)
    with pytest.raises(
        InsufficientMemoryError, match=r"8 noisy images of \(3, 16, 16\) .* smaller batch_size"
    ):
        embed(task)

    monkeypatch.setattr(VariationalLoss, "minimise", lambda *a, **b: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        embed(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "variational epochs must be a whole number >= 1, not 0"),
        ({"draws": 1.5}, r"variational draws must be a whole number >= 1, not 1\.5"),
        ({"batch_size": True}, "variational batch_size must be a whole number >= 1, not True"),
        ({"learning_rate": 0}, "variational learning_rate must be a finite number > 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number > 0, not nan"),
        ({"head_learning_rate": -1.0}, r"head_learning_rate must be a finite number >= 0, not -1\.0"),
        ({"start": "zero"}, "variational start must be 'closed_form' or 'variance', not 'zero'"),
        ({"prior": "none"}, "variational prior must be 'fixed' or 'fitted', not 'none'"),
    ],
)
def test_recipes_that_cannot_work_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        VariationalRecipe(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"variational": {"epochs": 1}},
            r"variational must be a VariationalRecipe, such as .*, not \{'epochs'",
        ),
        ({"estimator": "exact"}, "of no use to the estimator 'exact'; choose estimator='variational'"),
        ({"tolerance": 0.1}, "tolerance needs a standard error, and the variational estimate has none"),
        (
            {"estimator": "robust"},
            "no estimator 'robust'; choose monte_carlo, exact, empirical or variational",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        embedder(**settings)


def test_recipes_come_back_from_their_record():
    recipe = VariationalRecipe(epochs=3, start="variance")

    assert VariationalRecipe.from_dict({"fisher": "balanced", **recipe.to_dict()}) == recipe
    assert VariationalRecipe(learning_rate=1).to_dict() == VariationalRecipe(learning_rate=1.0).to_dict()
