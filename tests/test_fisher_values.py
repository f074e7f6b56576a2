"""The Fisher itself against things that we did not write: KL divergences, closed forms, autograd, chance."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.func import functional_call

from t2v_hub.fisher import SquaredGradients, filter_layers, frozen
from t2v_hub.fisher.estimators import directions, draw_labels, proposal
from t2v_hub.head import Head

Array = NDArray[np.float64]


class Network(nn.Module):
    """Features of 8-pixel images of one channel; ``width`` filters in each of three layers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3)
        self.second = nn.Conv2d(width, width, 3, groups=2)
        self.third = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return torch.tanh(self.third(x.mean(dim=(2, 3))))


def make(width: int = 4, n: int = 5, n_classes: int = 3, *, multi_label: bool = False):  # type: ignore[no-untyped-def]
    """A network, images and a head on its features."""
    torch.manual_seed(width)
    module = Network(width).double().eval()
    inputs = torch.randn(n, 1, 8, 8, dtype=torch.float64)
    rng = np.random.default_rng(width)
    head = Head(rng.normal(size=(n_classes, width)) * 2, rng.normal(size=n_classes), multi_label)
    return module, inputs, head


def per_image(module: nn.Module, inputs: Tensor, head: Head, estimator: str, labels: object = None) -> Array:
    """``(terms, n, n_filters)``: each direction's squares times its weight."""
    with frozen(module):
        layers = filter_layers(module, module, inputs[:1])
        measured = SquaredGradients(module, module, layers)
        features = measured.forward(inputs).numpy()
        terms = directions(
            estimator,  # type: ignore[arg-type]
            head.weight,
            head.probabilities(features),
            labels,  # type: ignore[arg-type]
            multi_label=head.multi_label,
        )
        rows = [
            measured.backward(torch.from_numpy(np.array(direction)), keep=True).numpy() * weight[:, None]
            for direction, weight in terms
        ]
    return np.stack(rows)


def logits(module: nn.Module, inputs: Tensor, head: Head) -> Tensor:
    return module(inputs) @ torch.from_numpy(head.weight).T + torch.from_numpy(head.bias)


def squares_of(module: nn.Module, value: Tensor) -> Array:
    """Mean squared derivative of a scalar over each filter, by autograd."""
    weights = [p for p in module.parameters() if p.dim() > 1]
    gradients = torch.autograd.grad(value, weights, retain_graph=True)
    return np.concatenate([g.flatten(1).square().mean(dim=1).numpy() for g in gradients])


@pytest.mark.parametrize(("layer", "index"), [("first", 0), ("first", 3), ("third", 2)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_steps_on_a_filter_change_the_predictions_by_its_fisher(layer, index, multi_label):
    r"""The Fisher is the curvature of the KL divergence: E[2 KL / ε²] over signs is n_f F_f.

    Averaged over all 2^n sign patterns, mixed second and all odd orders cancel exactly, which leaves
    ε² times a fourth order, here below 1e-5, and the rounding of KL, 1e-16 / (F ε²), below 1e-6.
    """
    module, inputs, head = make(multi_label=multi_label)
    epsilon = 1e-3
    fisher = per_image(module, inputs, head, "exact").sum(axis=0).mean(axis=0)
    parameter = dict(module.named_parameters())[f"{layer}.weight"].detach()
    n_weights = parameter[0].numel()
    start = {"first": 0, "second": 4, "third": 8}[layer]
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n_weights)), dtype=torch.float64)

    def log_probabilities(step: Tensor) -> tuple[Tensor, Tensor]:
        moved = parameter.clone()
        moved[index] += step.view(moved[index].shape)
        features = functional_call(module, {f"{layer}.weight": moved}, (inputs,))
        z = features @ torch.from_numpy(head.weight).T + torch.from_numpy(head.bias)
        if multi_label:  # a pair (yes, no) for each class
            z = torch.stack([z, torch.zeros_like(z)], dim=-1)
        return torch.log_softmax(z, dim=-1), torch.softmax(z, dim=-1)

    with torch.no_grad():
        before, chances = log_probabilities(torch.zeros(n_weights, dtype=torch.float64))
        divergences = [
            float((chances * (before - log_probabilities(epsilon * signs)[0])).sum() / len(inputs))
            for signs in patterns
        ]

    assert 2 * np.mean(divergences) / epsilon**2 == pytest.approx(n_weights * fisher[start + index], rel=2e-5)


def test_logistic_regression_has_its_closed_form():
    r"""For logits V A x the Fisher of row f of A is ``(Vᵀ(diag p − p pᵀ)V)_ff |x|²/d``."""
    rng = np.random.default_rng(0)
    linear = nn.Linear(6, 4, bias=False).double()
    module = nn.Sequential(linear)
    x = torch.from_numpy(rng.normal(size=(20, 6)))
    head = Head(rng.normal(size=(3, 4)), rng.normal(size=3))

    fisher = per_image(module, x, head, "exact").sum(axis=0).mean(axis=0)

    p = softmax(x.numpy() @ linear.weight.detach().numpy().T @ head.weight.T + head.bias, axis=1)
    covariance = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    curvature = np.einsum("cf,ncd,df->nf", head.weight, covariance, head.weight)
    expected = (curvature * x.square().mean(dim=1, keepdim=True).numpy()).mean(axis=0)
    np.testing.assert_allclose(fisher, expected, rtol=1e-12)


def test_binary_logistic_regression_has_its_textbook_form():
    """p(1−p)x², for one weight a filter and two classes that share the logit between them."""
    module = nn.Sequential(nn.Linear(1, 1, bias=False).double())
    module[0].weight.data.fill_(0.7)
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)[:, None]
    head = Head(np.array([[-0.5], [0.5]]), np.zeros(2))

    fisher = per_image(module, x, head, "exact").sum(axis=0)

    p = expit(0.7 * x.numpy())
    np.testing.assert_allclose(fisher, p * (1 - p) * x.numpy() ** 2, rtol=1e-12)


def test_exact_is_the_expectation_over_labels_of_the_squared_score():
    module, inputs, head = make()

    fisher = per_image(module, inputs, head, "exact").sum(axis=0)

    for i, x in enumerate(inputs):
        scores = torch.log_softmax(logits(module, x[None], head), dim=1)[0]
        expected = sum(s.exp().item() * squares_of(module, s) for s in scores)
        np.testing.assert_allclose(fisher[i], expected, rtol=1e-9)


def test_exact_of_many_labels_is_the_sum_of_variances():
    """Σ p(1−p)(∂z)²: classes are independent, so their scores do not mix."""
    module, inputs, head = make(multi_label=True)

    fisher = per_image(module, inputs, head, "exact").sum(axis=0)

    for i, x in enumerate(inputs):
        z = logits(module, x[None], head)[0]
        p = torch.sigmoid(z).detach().numpy()
        expected = sum(p[c] * (1 - p[c]) * squares_of(module, z[c]) for c in range(3))
        np.testing.assert_allclose(fisher[i], expected, rtol=1e-9)


def test_exact_of_many_labels_is_the_expectation_over_all_subsets():
    """The formula rests on scores of different classes being uncorrelated; here all subsets are summed."""
    module, inputs, head = make(multi_label=True)
    inputs = inputs[:2]

    fisher = per_image(module, inputs, head, "exact").sum(axis=0)

    for i, x in enumerate(inputs):
        z = logits(module, x[None], head)[0]
        expected = np.zeros(fisher.shape[1])
        for subset in itertools.product([0.0, 1.0], repeat=3):
            hot = torch.tensor(subset, dtype=torch.float64)
            log_chance = -nn.functional.binary_cross_entropy_with_logits(z, hot, reduction="sum")
            expected += log_chance.exp().item() * squares_of(module, log_chance)
        np.testing.assert_allclose(fisher[i], expected, rtol=1e-9)


@pytest.mark.parametrize("multi_label", [False, True])
def test_empirical_takes_the_datas_own_labels(multi_label):
    module, inputs, head = make(multi_label=multi_label)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=(5, 1, 3)) if multi_label else rng.integers(0, 3, size=(5, 1))

    fisher = per_image(module, inputs, head, "empirical", labels).sum(axis=0)

    for i, x in enumerate(inputs):
        z = logits(module, x[None], head)[0]
        if multi_label:
            hot = torch.from_numpy(labels[i, 0]).double()
            score = -nn.functional.binary_cross_entropy_with_logits(z, hot, reduction="sum")
        else:
            score = torch.log_softmax(z, dim=0)[labels[i, 0]]
        np.testing.assert_allclose(fisher[i], squares_of(module, score), rtol=1e-9)


@pytest.mark.parametrize("multi_label", [False, True])
def test_monte_carlo_agrees_with_exact_within_its_error(multi_label):
    """Unbiased: at most 1 % of 120 filters beyond 3 standard errors of the draws, and their sum within 3."""
    module, inputs, head = make(40, n=6, n_classes=4, multi_label=multi_label)
    n_labels = 150
    exact = per_image(module, inputs, head, "exact").sum(axis=0).mean(axis=0)
    features = module(inputs).detach().numpy()
    labels = draw_labels(head.probabilities(features), n_labels, seed=0, multi_label=multi_label)

    draws = per_image(module, inputs, head, "monte_carlo", labels) * n_labels  # (labels, images, filters)

    assert draws.shape == (n_labels, 6, 120)
    estimate = draws.mean(axis=(0, 1))
    error = np.sqrt((draws.var(axis=0, ddof=1) / n_labels).sum(axis=0)) / len(inputs)
    assert np.mean(np.abs(estimate - exact) > 3 * error) <= 0.01
    totals = draws.sum(axis=2)
    error_of_total = np.sqrt((totals.var(axis=0, ddof=1) / n_labels).sum()) / len(inputs)
    assert abs(estimate.sum() - exact.sum()) <= 3 * error_of_total


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_drawn_from_one_head_serve_for_another(multi_label):
    """Reweighted by the quotient of chances; summed over every label instead of drawn, that is exact."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4))
    z, other = rng.normal(size=(2, 5, 3))
    ours, theirs = (expit(v) if multi_label else softmax(v, axis=1) for v in (z, other))
    outcomes = np.array(list(itertools.product([0, 1], repeat=3))) if multi_label else np.arange(3)
    labels = np.broadcast_to(outcomes, (5, *outcomes.shape)).astype(np.int64)
    if multi_label:
        chances = np.prod(np.where(outcomes, theirs[:, None], 1 - theirs[:, None]), axis=2)
    else:
        chances = theirs
    settings = {"multi_label": multi_label}

    terms = directions("monte_carlo", weight, ours, labels, drawn_from=theirs, **settings)
    total = sum(
        len(outcomes) * chances[:, i, None] * importance[:, None] * direction**2
        for i, (direction, importance) in enumerate(terms)
    )

    exact = sum(d**2 * w[:, None] for d, w in directions("exact", weight, ours, labels, **settings))
    np.testing.assert_allclose(total, exact, rtol=1e-12)


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_images_labels_hang_on_the_seed_and_itself_only(multi_label):
    """Otherwise batches, resumed runs and single images would see other labels."""
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=40)
    changed = p.copy()
    changed[10:] = changed[10:, ::-1]

    labels = draw_labels(p, 3, seed=7, multi_label=multi_label)

    np.testing.assert_array_equal(labels[:10], draw_labels(p[:10], 3, seed=7, multi_label=multi_label))
    np.testing.assert_array_equal(labels[:10], draw_labels(changed, 3, seed=7, multi_label=multi_label)[:10])
    assert (labels != draw_labels(p, 3, seed=8, multi_label=multi_label)).any()


def test_labels_come_with_the_models_chances():
    p = np.array([0.5, 0.3, 0.0, 0.15, 0.05])

    labels = draw_labels(np.tile(p, (2000, 1)), 10, seed=0, multi_label=False)

    counts = np.bincount(labels.ravel(), minlength=5)
    assert counts[2] == 0
    alive = p > 0
    assert stats.chisquare(counts[alive], 20_000 * p[alive]).pvalue > 1e-4


def test_many_labels_come_independently_with_the_models_chances():
    p = np.array([0.9, 0.5, 0.0, 1.0, 0.02])

    labels = draw_labels(np.tile(p, (4000, 1)), 5, seed=0, multi_label=True)

    assert labels.shape == (4000, 5, 5)
    means = labels.mean(axis=(0, 1))
    np.testing.assert_allclose(means, p, atol=4 * np.sqrt(0.25 / 20_000))
    assert (means[2], means[3]) == (0.0, 1.0)
    together = (labels[..., 0] * labels[..., 1]).mean()
    assert together == pytest.approx(0.45, abs=4 * np.sqrt(0.25 / 20_000))


def test_a_certain_label_is_drawn_also_where_rounding_leaves_less_than_one():
    """Cumulative sums end at 1 - 1e-16 now and then; a code beyond the last class would be the result."""
    p = np.full((2000, 10), 0.1 - 1e-12)

    labels = draw_labels(p, 20, seed=0, multi_label=False)

    assert (labels.min(), labels.max()) == (0, 9)


def test_labels_are_drawn_for_what_they_contribute():
    """Nine parts of probability times the direction's squared length, one part of probability alone."""
    generator = np.random.default_rng(0)
    weight, p = generator.normal(size=(4, 6)), generator.dirichlet(np.full(4, 0.5), size=9)

    chances = proposal(weight, p)

    lengths = np.square((np.eye(4) - p[:, None, :]) @ weight).sum(axis=2)
    best = p * lengths / (p * lengths).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, 0.9 * best + 0.1 * p, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(chances.sum(axis=1), 1)


def test_a_head_that_says_nothing_draws_as_the_model_does():
    p = np.array([[0.3, 0.7], [1.0, 0.0]])

    np.testing.assert_allclose(proposal(np.zeros((2, 3)), p), p)


def test_drawing_by_contribution_keeps_the_mean_and_spreads_less():
    """Summed over all labels that may be drawn: the mean is that of `exact`, to rounding."""
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(5, 8))
    p = generator.dirichlet(np.full(5, 0.7), size=40)
    squares_of = np.square(generator.normal(size=(6, 8)))  # any positive form of the direction

    def moments(chances: np.ndarray) -> tuple[np.ndarray, float]:
        values = []
        for code in range(5):
            labels = np.full((40, 1), code)
            along, quotient = next(directions("monte_carlo", weight, p, labels, drawn_from=chances))
            values.append(quotient[:, None] * (np.square(along) @ squares_of.T))
        stacked = np.stack(values, axis=1)  # (images, labels, filters)
        mean = (chances[:, :, None] * stacked).sum(axis=1)
        spread = (chances[:, :, None] * np.square(stacked - mean[:, None])).sum()
        return mean, float(spread)

    plain, ours = moments(p), moments(proposal(weight, p))

    terms = directions("exact", weight, p, np.zeros((40, 1), np.int64))
    exact = sum(share[:, None] * (np.square(along) @ squares_of.T) for along, share in terms)
    np.testing.assert_allclose(plain[0], exact)
    np.testing.assert_allclose(ours[0], exact)
    assert ours[1] < 0.6 * plain[1]
