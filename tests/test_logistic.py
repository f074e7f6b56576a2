"""Newton's method for small logistic regressions against scikit-learn's solvers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from t2v_hub.head import HeadProblem, HeadRecipe
from t2v_hub.logistic import fit_many, fit_small


def problem(seed: int, n: int = 25, d: int = 60, n_classes: int = 5):
    """Features around one centre per class, codes in which every class occurs, and unequal shares."""
    generator = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    x = generator.normal(size=(n, d)) + generator.normal(size=(n_classes, d))[codes]
    share = generator.uniform(0.5, 1.5, size=n)
    return x, codes, share / share.sum()


@pytest.mark.parametrize("strength", [100.0, 10.0, 0.1, 1e-4])
@pytest.mark.parametrize(("n", "d", "n_classes"), [(25, 60, 5), (5, 60, 5), (40, 3, 3), (6, 2, 2)])
def test_small_fits_are_those_of_scikit_learn(n, d, n_classes, strength):
    """Another method for the same minimum, from spread out to almost separated classes."""
    x, codes, share = problem(0, n, d, n_classes)

    weight, bias, solved = fit_small(x[None], codes[None], share[None], n_classes, strength)

    assert solved.all()
    assert bias[0].sum() == pytest.approx(0, abs=1e-8)
    rows = 2.0 if n_classes == 2 else 1.0  # its one row stands for two opposite ones
    model = LogisticRegression(C=rows / (strength * n), tol=1e-12, max_iter=100_000)
    model.fit(x, codes, sample_weight=share * n)
    logits = x @ weight[0].T + bias[0]
    theirs = model.decision_function(x)
    ours = logits[:, 1] - logits[:, 0] if n_classes == 2 else logits - logits.mean(axis=1, keepdims=True)
    expected = theirs if n_classes == 2 else theirs - theirs.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("strength", [10.0, 1e-3])
def test_the_gradient_is_zero_at_the_minimum(strength):
    """What scikit-learn leaves of it hides errors of 1e-5; the definition of a minimum hides none."""
    x, codes, share = problem(1)

    weight, bias, _ = fit_small(x[None], codes[None], share[None], 5, strength)

    logits = x @ weight[0].T + bias[0]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = share[:, None] * (p - np.eye(5)[codes])
    np.testing.assert_allclose(residual.T @ x + strength * weight[0], 0, atol=1e-8)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-9)


def test_no_problem_hangs_on_the_others():
    """A task measured among others, or alone, has the same head."""
    xs, codes, shares = (np.stack(part) for part in zip(*(problem(seed) for seed in range(7)), strict=True))
    xs[3] *= 30  # which takes more steps

    together = fit_small(xs, codes, shares, 5, 0.01)

    for place in range(7):
        own = slice(place, place + 1)
        for whole, alone in zip(together, fit_small(xs[own], codes[own], shares[own], 5, 0.01), strict=True):
            np.testing.assert_array_equal(whole[place], alone[0])


def test_images_that_are_all_alike_tell_nothing():
    weight, bias, solved = fit_small(
        np.zeros((1, 4, 3)), np.array([[0, 0, 1, 1]]), np.full((1, 4), 0.25), 2, 10.0
    )

    assert solved.all()
    np.testing.assert_allclose(weight, 0)
    np.testing.assert_allclose(bias, 0, atol=1e-12)


@pytest.mark.parametrize("recipe", [HeadRecipe(), HeadRecipe(kind="entropy"), HeadRecipe(strength=0.01)])
def test_heads_side_by_side_are_those_one_by_one(recipe):
    """Of several sizes, labels and weights; classes may be missing, and some problems be large."""
    generator = np.random.default_rng(2)
    problems = [
        HeadProblem(generator.normal(size=(12, 8)), np.arange(12) % 3),
        HeadProblem(generator.normal(size=(12, 8)), np.arange(12) % 3 * 2, 6),
        HeadProblem(generator.normal(size=(12, 8)), np.arange(12) % 3, 3, generator.uniform(0.5, 2, 12)),
        HeadProblem(generator.normal(size=(300, 8)), np.arange(300) % 3),
        HeadProblem(generator.normal(size=(10, 8)), generator.integers(0, 2, size=(10, 3))),
        HeadProblem(generator.normal(size=(4, 8)), np.zeros(4, np.int64), 2),
    ]

    together = recipe.fit_many(problems)

    assert [head.weight.shape[0] for head in together] == [3, 6, 3, 3, 3, 2]
    for head, one in zip(together, problems, strict=True):
        alone = recipe.fit(one.features, one.labels, n_classes=one.n_classes, weights=one.weights)
        np.testing.assert_array_equal(head.weight, alone.weight)
        np.testing.assert_array_equal(head.bias, alone.bias)


def test_what_newton_cannot_solve_goes_to_scikit_learn(monkeypatch):
    """Not solved is told from solved, and is no answer."""
    features, labels = np.random.default_rng(0).normal(size=(12, 8)), np.arange(12) % 3
    expected = HeadRecipe().fit(features, labels)
    monkeypatch.setattr("t2v_hub.logistic._STEPS", 1)

    actual = HeadRecipe().fit(features, labels)

    np.testing.assert_allclose(actual.weight, expected.weight, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(actual.weight, expected.weight)


@pytest.mark.parametrize("strength", [1e-20, 1e-16])
def test_a_penalty_that_rounding_swallows_goes_to_scikit_learn(strength):
    """The Hessian is singular then; that must not take the others of the batch with it."""
    features, labels = np.random.default_rng(0).normal(size=(10, 64)), np.arange(10) % 2

    head = HeadRecipe(strength=strength).fit(features, labels)

    assert np.isfinite(head.weight).all()
    assert (head.probabilities(features).argmax(axis=1) == labels).all()


def test_what_one_huge_image_blurs_is_not_called_solved():
    """Their Gram matrix loses, beside it, what a small penalty would weigh."""
    x, codes, share = problem(3, 10, 64, 2)
    x[0] *= 1e6

    *_, solved = fit_small(x[None], codes[None], share[None], 2, 1e-8)

    assert not solved[0]


def test_problems_are_cut_into_parts_that_fit_into_memory(monkeypatch):
    parts = [problem(seed) for seed in range(5)]
    lists = [list(part) for part in zip(*parts, strict=True)]
    expected = list(fit_many(*lists, 5, 10.0))
    monkeypatch.setattr("t2v_hub.logistic._BYTES", 1)

    actual = list(fit_many(*lists, 5, 10.0))

    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
