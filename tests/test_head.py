"""The linear head: the optimum of a stated objective, the same for the same input."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import entr

from t2v_hub.errors import SettingsError
from t2v_hub.head import Head, HeadRecipe

Array = NDArray[np.float64]
RECIPES = {
    "l2": HeadRecipe(kind="l2", strength=0.3),
    "cv": HeadRecipe(kind="cv"),
    "entropy": HeadRecipe(kind="entropy", strength=0.3, entropy=0.7),
    "adam": HeadRecipe(kind="adam", epochs=1, draws=1000),
}
SMALL_L2 = RECIPES["l2"]
SCALINGS = [HeadRecipe(kind="l2", strength=0.3, scaling=scaling) for scaling in ("common", "each")]
scalings = pytest.mark.parametrize("recipe", SCALINGS, ids=lambda recipe: recipe.scaling)


def task(
    n: int = 60, n_classes: int = 3, n_features: int = 5, seed: int = 0
) -> tuple[Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = rng.normal(size=(n_classes, n_features))
    return centres[labels] + rng.normal(size=(n, n_features)) * [1, 2, 0.1, 5, 1], labels


def standardised(features: Array, shares: Array, scaling: str) -> tuple[Array, Array, Array | float]:
    mean = shares @ features
    deviation = np.sqrt(shares @ (features - mean) ** 2)
    if scaling == "common":
        deviation = np.sqrt(np.mean(deviation**2))
    return (features - mean) / deviation, mean, deviation


def balanced_shares(labels: NDArray[np.int64], weights: Array) -> Array:
    totals = np.bincount(labels, weights=weights)
    return weights / totals[labels] / len(totals)


@scalings
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_l2_is_the_optimum_of_the_documented_objective(recipe, n_classes, weighted):
    """Mean cross-entropy, every class alike, plus strength/2 times the squared standardised weights."""
    features, labels = task(70, n_classes)
    weights = np.random.default_rng(1).uniform(0.2, 2, 70) if weighted else np.ones(70)

    head = recipe.fit(features, labels, weights=weights if weighted else None)

    shares = balanced_shares(labels, weights)
    x, mean, deviation = standardised(features, shares, recipe.scaling)
    weight = torch.tensor(head.weight * deviation, requires_grad=True)
    bias = torch.tensor(head.bias + head.weight @ mean, requires_grad=True)
    scores = torch.log_softmax(torch.from_numpy(x) @ weight.T + bias, dim=1)
    loss = -(torch.from_numpy(shares) * scores[torch.arange(70), torch.from_numpy(labels)]).sum()
    loss = loss + recipe.strength / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(float(g.abs().max()) for g in gradients) < 1e-6


@scalings
@pytest.mark.parametrize("weighted", [False, True])
def test_l2_with_several_labels_is_the_optimum_of_one_objective_per_class(recipe, weighted):
    """Each class against the rest: binary cross-entropy, and the penalty of its two opposite rows."""
    features, _ = task(70)
    labels = (np.random.default_rng(0).random((70, 4)) < [0.5, 0.2, 0.7, 0.4]).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0.2, 2, 70) if weighted else np.ones(70)

    head = recipe.fit(features, labels, weights=weights if weighted else None)

    shares = weights / weights.sum()
    x, mean, deviation = standardised(features, shares, recipe.scaling)
    weight = torch.tensor(head.weight * deviation, requires_grad=True)
    bias = torch.tensor(head.bias + head.weight @ mean, requires_grad=True)
    z = torch.from_numpy(x) @ weight.T + bias
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        z, torch.from_numpy(labels).double(), reduction="none"
    )
    loss = (torch.from_numpy(shares)[:, None] * loss).sum()
    loss = loss + recipe.strength / 2 * 2 * (weight / 2).square().sum()
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(float(g.abs().max()) for g in gradients) < 1e-6


@pytest.mark.parametrize("kind", RECIPES)
def test_the_same_input_gives_the_same_head(kind):
    features, labels = task()

    first, second = (RECIPES[kind].fit(features, labels, seed=3) for _ in range(2))

    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.bias, second.bias)


def test_draws_of_adam_hang_on_the_seed():
    features, labels = task(47)

    first, second = (RECIPES["adam"].fit(features, labels, seed=seed).weight for seed in (0, 1))

    assert (first != second).any()


@pytest.mark.parametrize("recipe", [*SCALINGS, RECIPES["entropy"]], ids=["common", "each", "entropy"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_duplicating_the_images_of_a_class_changes_nothing(recipe, n_classes):
    """Every class counts the same however many images it has, in the standardisation too."""
    features, labels = task(60, n_classes)
    copies = np.where(labels == 1, 3, 1)
    before = recipe.fit(features, labels)

    after = recipe.fit(np.repeat(features, copies, axis=0), np.repeat(labels, copies))

    np.testing.assert_allclose(after.weight, before.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.bias, before.bias, rtol=1e-4, atol=1e-6)


def test_weighing_an_image_twice_is_showing_it_twice():
    """What the replicates of the standard error rest on."""
    features, labels = task()
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)

    weighed = SMALL_L2.fit(features, labels, weights=weights)

    repeats = weights.astype(int)
    shown = SMALL_L2.fit(np.repeat(features, repeats, axis=0), np.repeat(labels, repeats))
    np.testing.assert_allclose(weighed.weight, shown.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weighed.bias, shown.bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["l2", "entropy"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_permuted_labels_permute_the_rows(kind, n_classes):
    """Codes are names; nothing may hang on their order."""
    features, labels = task(60, n_classes)
    permutation = np.roll(np.arange(n_classes), 1)

    head = RECIPES[kind].fit(features, labels)
    permuted = RECIPES[kind].fit(features, permutation[labels])

    np.testing.assert_allclose(permuted.weight[permutation], head.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(permuted.bias[permutation], head.bias, rtol=1e-4, atol=1e-6)


@scalings
def test_the_scale_of_the_features_does_not_matter(recipe):
    """Features are standardised, so that the penalty means the same for every network."""
    features, labels = task()
    scale, shift = np.array([1e-3, 1e3, 1, 7, 1e-6]), np.array([5, 0, -100, 10, 0])
    if recipe.scaling == "common":
        scale = np.full(5, 1e-4)

    ours = recipe.fit(features, labels)
    theirs = recipe.fit(features * scale + shift, labels)

    p = theirs.probabilities(features * scale + shift)
    np.testing.assert_allclose(p, ours.probabilities(features), rtol=1e-4)


@pytest.mark.parametrize("target", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_entropy_hits_its_target(target, n_classes):
    features, labels = task(60, n_classes)

    head = HeadRecipe(kind="entropy", strength=0.01, entropy=target).fit(features, labels)

    p = head.probabilities(features)
    assert entr(p).sum(axis=1).mean() / np.log(n_classes) == pytest.approx(target, abs=1e-6)


def test_entropy_hits_its_target_with_several_labels():
    features, _ = task(60)
    labels = (np.random.default_rng(0).random((60, 4)) < 0.4).astype(np.float32)

    p = HeadRecipe(kind="entropy", strength=0.01, entropy=0.6).fit(features, labels).probabilities(features)

    assert (entr(p) + entr(1 - p)).mean() / np.log(2) == pytest.approx(0.6, abs=1e-6)


@pytest.mark.parametrize("kind", RECIPES)
def test_absent_classes_have_no_chance_and_change_nothing(kind):
    """A class may lose its only images to damage; its row must neither be NaN nor win."""
    features, labels = task(60, 3)
    gaps = np.array([0, 2, 5])

    head = RECIPES[kind].fit(features, gaps[labels], n_classes=7)

    p = head.probabilities(features)
    assert head.weight.shape == (7, 5)
    assert p[:, [1, 3, 4, 6]].max() < 1e-9
    np.testing.assert_allclose(
        p[:, gaps], RECIPES[kind].fit(features, labels).probabilities(features), rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("kind", RECIPES)
def test_a_single_class_is_certain(kind):
    features, _ = task(20)

    p = RECIPES[kind].fit(features, np.zeros(20, np.int64)).probabilities(features)

    np.testing.assert_array_equal(p, np.ones((20, 1)))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_label_that_all_or_no_images_have_is_certain(kind):
    """Nothing can be learnt of it, and it must not break the other columns."""
    features, _ = task(60)
    labels = (np.random.default_rng(0).random((60, 4)) < 0.5).astype(np.float32)
    labels[:, 1], labels[:, 3] = 1, 0

    head = RECIPES[kind].fit(features, labels)

    p = head.probabilities(features)
    assert head.multi_label
    assert p[:, 1].min() > 1 - 1e-9
    assert p[:, 3].max() < 1e-9
    assert (head.weight[[1, 3]] == 0).all()
    assert 0.01 < p[:, 0].mean() < 0.99


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("scaling", ["common", "each"])
def test_constant_features_are_not_looked_at(kind, scaling):
    """Dead units are common; dividing by their deviation would blow them up."""
    recipe = dataclasses.replace(RECIPES[kind], scaling=scaling)
    features, labels = task()
    with_dead = np.concatenate([features, np.full((60, 1), 0.1), np.zeros((60, 1))], axis=1)

    head = recipe.fit(with_dead, labels)

    assert np.isfinite(head.weight).all()
    np.testing.assert_allclose(head.weight[:, 5:], 0, atol=1e-9)
    if scaling == "each":
        without = recipe.fit(features, labels)
        np.testing.assert_allclose(head.weight[:, :5], without.weight, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", RECIPES)
def test_features_that_are_all_constant_give_equal_chances(kind):
    labels = np.arange(12) % 3

    p = RECIPES[kind].fit(np.full((12, 4), 2.5), labels).probabilities(np.full((2, 4), 2.5))

    np.testing.assert_allclose(p, 1 / 3, atol=0.02)


def test_cv_takes_a_class_with_one_image():
    """Such a class cannot be in every fold; the fixed strength serves instead."""
    features, labels = task(31, 3)
    labels[labels == 2] = 0
    labels[5] = 2

    p = HeadRecipe(kind="cv").fit(features, labels).probabilities(features)

    assert np.isfinite(p).all()


def test_probabilities_are_softmax_or_sigmoid():
    weight, bias = np.array([[1.0, 0], [0, 2], [0, 0]]), np.array([0.0, -1, 0.5])
    x = np.array([[1.0, 1], [1000, -1000]], np.float32)

    exclusive = Head(weight, bias).probabilities(x)
    independent = Head(weight, bias, multi_label=True).probabilities(x)

    np.testing.assert_allclose(exclusive[0], np.exp([1, 1, 0.5]) / np.exp([1, 1, 0.5]).sum())
    np.testing.assert_allclose(independent[0], 1 / (1 + np.exp([-1, -1, -0.5])))
    np.testing.assert_allclose(exclusive[1], [1, 0, 0], atol=1e-100)
    np.testing.assert_allclose(independent[1, :2], [1, 0], atol=1e-100)


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_comes_back_from_its_record(kind):
    """The record holds what decides the head, and no more: unused settings would split spaces."""
    recipe = RECIPES[kind]
    record = recipe.to_dict()

    again = HeadRecipe.from_dict({**record, "loss": "softmax", "classes": "balanced"})

    assert again.to_dict() == record
    assert ("strength" in record) == (kind in ("l2", "entropy"))
    assert ("epochs" in record) == (kind == "adam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "svm"}, "no head recipe 'svm'; choose l2, cv, entropy or adam"),
        ({"strength": 0.0}, "strength must be a finite number > 0, not 0.0"),
        ({"strength": float("nan")}, "strength must be a finite number > 0, not nan"),
        ({"strength": "strong"}, "strength must be a finite number > 0, not 'strong'"),
        ({"entropy": 1.0}, "entropy must lie between 0 and 1, not 1.0"),
        ({"entropy": -0.1}, "entropy must lie between 0 and 1, not -0.1"),
        ({"kind": "adam", "epochs": 0}, "epochs must be a whole number >= 1, not 0"),
        ({"kind": "adam", "draws": 2.5}, "draws must be a whole number >= 1, not 2.5"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number > 0, not -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number >= 0, not -1.0"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        HeadRecipe(**settings)


def test_many_classes_of_few_images_are_no_regression_problem(recwarn):
    """As scikit-learn suspects them to be."""
    rng = np.random.default_rng(0)

    HeadRecipe().fit(rng.normal(size=(60, 5)), np.arange(60) % 40)

    assert not recwarn.list
