"""Transferability scores: each against an implementation written another way, its invariances, its edges."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from t2v_hub.errors import LabelError, ProbeOutputError, SettingsError
from t2v_hub.scores import BUILT_IN_SCORES as SCORES
from t2v_hub.scores import (
    PENALTIES,
    h_score,
    knn_accuracy,
    layer_means,
    leep,
    logistic_loss,
    logme,
    nce,
    ridge_accuracy,
    ridge_loss,
    score,
    transrate,
)
from t2v_hub.scores.labels import Classes
from t2v_hub.scores.logistic import fold_numbers

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Function = Callable[..., float]

ON_FEATURES = {name: entry.function for name, entry in SCORES.items() if entry.needs == "features"}
ON_PREDICTIONS = {name: entry.function for name, entry in SCORES.items() if entry.needs == "predictions"}
SIZES = [(40, 6, 3), (12, 30, 3), (20, 20, 4), (21, 20, 2), (9, 2, 5)]  # images, features, classes
sizes = pytest.mark.parametrize(("n", "d", "n_classes"), SIZES)
on_features = pytest.mark.parametrize("name", ON_FEATURES)
on_predictions = pytest.mark.parametrize("name", ON_PREDICTIONS)


def task(n: int, d: int, n_classes: int, *, seed: int = 0, apart: float = 1.0) -> tuple[Array, Labels]:
    """Normal classes of unlike sizes around random centres, off the origin."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    centres = apart * rng.normal(size=(n_classes, d))
    return 2.0 + centres[labels] + rng.normal(size=(n, d)), labels


def predicted(n: int, k: int, n_classes: int, *, seed: int = 0, apart: float = 1.0) -> tuple[Array, Labels]:
    """Source probabilities that follow the labels the more, the larger ``apart``."""
    logits, labels = task(n, k, n_classes, seed=seed, apart=apart)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), labels


# LogME


def best_log_density(x: Array, y: Array) -> float:
    """Of the targets per image, over both precisions, by a simplex from many starts."""
    n = len(x)
    gram = x @ x.T

    def negative(logs: Array) -> float:
        covariance = np.exp(-logs[1]) * np.eye(n) + np.exp(-logs[0]) * gram
        return -float(multivariate_normal.logpdf(y, np.zeros(n), covariance)) / n

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
    starts = [(a, b) for a in (-2.0, 2.0, 6.0) for b in (1.0, 4.0)]
    return -min(minimize(negative, s, method="Nelder-Mead", options=options).fun for s in starts)


@sizes
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_logme_is_the_largest_normal_density_of_the_targets(n, d, n_classes, scale):
    """Evidence is the density of y ~ N(0, I/beta + X X^T/alpha); a general optimiser finds its maximum."""
    features, labels = task(n, d, n_classes)
    features = scale * (features + np.random.default_rng(1).normal(size=(n, d)))

    actual = logme(features, labels)

    targets = [(labels == code).astype(float) for code in range(n_classes)]
    assert actual == pytest.approx(np.mean([best_log_density(features, y) for y in targets]), rel=1e-6)


def iterated(x: Array, labels: Labels) -> tuple[float, bool]:
    """LogME by the papers' iteration from alpha = beta = 1, and whether it came to rest."""
    n, d = x.shape
    u, s, _ = np.linalg.svd(x, full_matrices=True)
    values = np.zeros(n)
    values[: min(n, d)] = s**2
    evidences, rests = [], True
    for code in np.unique(labels):
        z = (u.T @ (labels == code)) ** 2
        alpha, beta, before = 1.0, 1.0, 0.0
        for _ in range(20_000):
            gamma = (beta * values / (alpha + beta * values)).sum()
            m2 = (beta**2 * values * z / (alpha + beta * values) ** 2).sum()
            residual = (alpha**2 * z / (alpha + beta * values) ** 2).sum()
            alpha, beta = gamma / m2, (n - gamma) / residual
            if abs(alpha / beta - before) <= 1e-12 * before:
                break
            before = alpha / beta
        else:
            rests = False
        log_determinant = np.log(alpha + beta * values)[: min(n, d)].sum() + max(d - n, 0) * np.log(alpha)
        if n > d:
            log_determinant = np.log(alpha + beta * values[:d]).sum()
        evidences.append(
            n / 2 * np.log(beta) + d / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
            - beta / 2 * residual - alpha / 2 * m2 - log_determinant / 2
        )  # fmt: skip
    return float(np.mean(evidences)) / n, rests


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d"), [(80, 10), (60, 20), (60, 40)])
def test_logme_is_where_the_papers_iteration_rests(n, d, seed):
    """The published algorithm and the bisection to its fixed point must agree where there is one optimum."""
    features, labels = task(n, d, 3, seed=seed, apart=0.7)
    features += np.random.default_rng(seed).normal(size=features.shape)

    expected, rests = iterated(features, labels)

    assert rests
    assert logme(features, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_logme_is_never_below_the_papers_iteration(seed):
    """With more features than images it creeps towards noise 0, and may not arrive."""
    features, labels = task(30, 50, 3, seed=seed, apart=0.7)
    features += np.random.default_rng(seed).normal(size=features.shape)

    expected, _ = iterated(features, labels)

    assert logme(features, labels) >= expected - 1e-9
    assert logme(features, labels) == pytest.approx(expected, rel=1e-3)


def test_logme_takes_the_highest_of_several_optima():
    """Noise of large scale beside a small feature that knows: where the iteration starts decides its end."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = np.column_stack([10 * rng.normal(size=(60, 3)), labels - 0.5 + 0.3 * rng.normal(size=60)])
    small, large = (iterated(scale * features, labels) for scale in (1e-3, 1.0))
    assert small[1] and large[1] and large[0] > small[0] + 0.01

    values = [logme(scale * features, labels) for scale in (1e-3, 1.0, 1e6)]

    assert values == pytest.approx([values[0]] * 3, rel=1e-9)
    assert values[0] > large[0] + 0.005
    targets = [(labels == code).astype(float) for code in range(2)]
    assert values[0] == pytest.approx(np.mean([best_log_density(features, y) for y in targets]), rel=1e-6)


def test_logme_of_features_that_say_nothing_is_that_of_noise():
    """With the weights' precision without bound, targets are independent normal of variance n_k/n."""
    labels = np.array([0, 0, 0, 1, 1])
    noise = np.mean([-(np.log(2 * np.pi * share) + 1) / 2 for share in (3 / 5, 2 / 5)])

    assert logme(np.zeros((5, 4)), labels) == pytest.approx(noise, rel=1e-12)
    apart = np.array([[1.0], [-1.0], [0.0], [1.0], [-1.0]])  # orthogonal to both targets
    assert logme(apart, labels) == pytest.approx(noise, rel=1e-12)


def test_logme_of_labels_that_features_spell_out_is_finite_and_large():
    """No noise is left, so the evidence has no bound: the docstring's limit keeps it finite and steady."""
    labels = np.arange(60) % 3
    features = np.eye(3)[labels]
    order = np.random.default_rng(0).permutation(60)

    spelled = logme(features, labels)

    assert np.isfinite(spelled)
    assert spelled > logme(features + 0.01 * np.random.default_rng(1).normal(size=(60, 3)), labels) + 1
    assert logme(1e3 * features[order], labels[order]) == pytest.approx(spelled, rel=1e-6)


def test_logme_ignores_empty_columns_and_pools_equal_ones():
    """A zero column carries no weight; a column twice is one column times the root of 2."""
    features, labels = task(30, 5, 3)
    value = logme(features, labels)

    assert logme(np.hstack([features, np.zeros((30, 40))]), labels) == pytest.approx(value, rel=1e-9)
    doubled, stretched = np.hstack([features, features[:, :1]]), features.copy()
    stretched[:, 0] *= np.sqrt(2)
    assert logme(doubled, labels) == pytest.approx(logme(stretched, labels), rel=1e-9)


# LEEP and NCE


@pytest.mark.parametrize(("n", "k", "n_classes"), [(30, 7, 3), (12, 40, 4), (50, 2, 6)])
def test_leep_is_the_papers_sum(n, k, n_classes):
    """Joint, conditional and log-likelihood, number by number."""
    theta, labels = predicted(n, k, n_classes)
    total = 0.0
    for i in range(n):
        likelihood = 0.0
        for z in range(k):
            joint = sum(theta[j, z] for j in range(n) if labels[j] == labels[i]) / n
            marginal = sum(theta[j, z] for j in range(n)) / n
            likelihood += joint / marginal * theta[i, z]
        total += np.log(likelihood)

    assert leep(theta, labels) == pytest.approx(total / n, rel=1e-12)


@pytest.mark.parametrize("form", ["codes", "words", "probabilities", "logits"])
def test_nce_is_mutual_information_less_entropy(form):
    """H(Y|Z) = H(Y) - I(Y; Z), with scikit-learn's mutual information."""
    theta, labels = predicted(80, 6, 4)
    source = theta.argmax(axis=1)
    given = {
        "codes": 7 * source,
        "words": source.astype(str),
        "probabilities": theta,
        "logits": np.log(theta),
    }

    actual = nce(given[form], labels)

    assert actual == pytest.approx(
        mutual_info_score(labels, source) - mutual_info_score(labels, labels), rel=1e-9
    )


def test_leep_of_certain_predictions_is_nce():
    """Both papers' scores are one score where the source classifier never doubts."""
    theta, labels = predicted(60, 5, 3)
    source = theta.argmax(axis=1)

    assert leep(np.eye(9)[source], labels) == pytest.approx(nce(source, labels), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_leep_lies_between_its_bounds(seed):
    """At least minus the labels' entropy (Jensen), at least NCE plus the mean log of the largest."""
    theta, labels = predicted(50, 6, 4, seed=seed, apart=2)
    entropy = mutual_info_score(labels, labels)

    value = leep(theta, labels)

    assert -entropy <= value <= 0
    assert value >= nce(theta, labels) + np.log(theta.max(axis=1)).mean()


def test_leep_forgives_what_float16_rounds():
    """Rows of float16 probabilities miss a sum of 1; dividing by the sum is what the caller meant."""
    theta, labels = predicted(40, 300, 3, apart=0.3)

    assert leep(theta.astype(np.float16), labels) == pytest.approx(leep(theta, labels), rel=1e-2)
    assert leep(0.995 * theta, labels) == pytest.approx(leep(theta, labels), rel=1e-12)


def test_leep_works_in_parts(monkeypatch):
    """Thousands of images by thousands of source classes are summed block by block."""
    theta, labels = predicted(50, 6, 4)
    whole = leep(theta, labels)
    monkeypatch.setattr("t2v_hub.scores.predictions._BLOCK", 20)

    assert leep(theta, labels) == pytest.approx(whole, rel=1e-13)


# H-score


def trace_of_ratio(x: Array, labels: Labels, covariance: Array, part: float = 1.0) -> float:
    means = np.empty_like(x)
    for code in np.unique(labels):
        means[labels == code] = x[labels == code].mean(axis=0)
    return float(np.trace(np.linalg.pinv(covariance, hermitian=True) @ np.cov(means.T, bias=True)) * part)


def test_plain_h_score_is_the_papers_trace():
    features, labels = task(200, 6, 4)

    actual = h_score(features, labels, shrinkage=0)

    assert actual == pytest.approx(trace_of_ratio(features, labels, np.cov(features.T, bias=True)), rel=1e-9)


@sizes
def test_shrunk_h_score_is_that_of_scikit_learns_covariance(n, d, n_classes):
    """`LedoitWolf` estimates covariance and weight; the formula of Ibrahim et al. does the rest."""
    features, labels = task(n, d, n_classes)
    model = LedoitWolf().fit(features)

    actual = h_score(features, labels)

    expected = trace_of_ratio(features, labels, model.covariance_, 1 - model.shrinkage_)
    assert actual == pytest.approx(expected, rel=1e-9)


def test_h_score_takes_a_given_shrinkage():
    features, labels = task(30, 50, 3)
    covariance = np.cov(features.T, bias=True)
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / 50 * np.eye(50)

    actual = h_score(features, labels, shrinkage=0.3)

    assert actual == pytest.approx(trace_of_ratio(features, labels, shrunk, 0.7), rel=1e-9)


def test_plain_h_score_says_nothing_of_few_images():
    """What makes shrinkage the default: with n <= d the plain score is n_classes - 1, even of noise."""
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(20, 60)), np.arange(20) % 4

    assert h_score(noise, labels, shrinkage=0) == pytest.approx(3, rel=1e-9)
    assert h_score(noise, labels) < 1


def test_plain_h_score_is_free_of_any_linear_map():
    """The covariance's inverse undoes it."""
    features, labels = task(60, 5, 3)
    matrix = np.random.default_rng(1).normal(size=(5, 5))

    value = h_score(features @ matrix + 3, labels, shrinkage=0)

    assert value == pytest.approx(h_score(features, labels, shrinkage=0), rel=1e-9)


# TransRate


@sizes
@pytest.mark.parametrize("unit_trace", [False, True])
def test_transrate_is_a_difference_of_log_determinants(n, d, n_classes, unit_trace):
    features, labels = task(n, d, n_classes)
    z = features / np.sqrt(np.trace(features @ features.T)) if unit_trace else features
    z = z - z.mean(axis=0)
    expected = np.linalg.slogdet(np.eye(d) + z.T @ z / (n * 0.01))[1] / 2
    for code in range(n_classes):
        own = z[labels == code]
        log_determinant = np.linalg.slogdet(np.eye(d) + own.T @ own / (len(own) * 0.01))[1]
        expected -= len(own) / n * log_determinant / 2

    actual = transrate(features, labels, eps=0.01, unit_trace=unit_trace)

    assert actual == pytest.approx(expected, rel=1e-9)


def test_transrate_weighs_a_factor_as_eps():
    """The docstring's warning: scale and distortion are one thing; without a unit of size none compares."""
    features, labels = task(40, 6, 3)

    assert transrate(10 * features, labels, eps=10) == pytest.approx(transrate(features, labels, eps=0.1))
    assert transrate(10 * features, labels, eps=10) > 1.2 * transrate(features, labels, eps=10)
    unit = [transrate(scale * features, labels, unit_trace=True) for scale in (1.0, 1e-3, 1e60)]
    assert unit == pytest.approx([unit[0]] * 3, rel=1e-9)


# Nearest neighbours


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 2, 5, 11])
@sizes
def test_knn_accuracy_is_scikit_learns_fitted_n_times(n, d, n_classes, k, metric):
    """Each image left out in turn; equal votes by who is met first on the way outwards."""
    features, labels = task(n, d, n_classes, apart=0.8)
    hits = 0
    for i in range(n):
        others = np.arange(n) != i
        model = KNeighborsClassifier(min(k, n - 1), metric=metric, algorithm="brute")
        model.fit(features[others], labels[others])
        order = model.kneighbors(features[i : i + 1], return_distance=False)[0]
        near = labels[others][order]
        votes = np.bincount(near, minlength=n_classes)
        hits += labels[i] == next(code for code in near if votes[code] == votes.max())

    assert knn_accuracy(features, labels, k=k, metric=metric) == pytest.approx(hits / n, abs=1e-12)


def test_knn_accuracy_works_in_parts(monkeypatch):
    """The matrix of distances of 5,000 images is never whole."""
    features, labels = task(50, 8, 3)
    whole = knn_accuracy(features, labels)
    monkeypatch.setattr("t2v_hub.scores.neighbours._BLOCK", 120)

    assert knn_accuracy(features, labels) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_duplicates_of_two_classes_share_their_hits(metric):
    """Four equal images of two classes are as near to each other; no order of rows may choose."""
    features = np.array([[1.0, 2.0]] * 4 + [[-3.0, 1.0]] * 2)
    labels = np.array([0, 0, 1, 1, 2, 2])
    order = np.array([3, 0, 5, 1, 4, 2])

    # of each of the four, the three others vote 1:2 against its own class
    assert knn_accuracy(features, labels, k=1, metric=metric) == pytest.approx(2 / 6)
    assert knn_accuracy(features[order], labels[order], k=1, metric=metric) == pytest.approx(2 / 6)
    even = np.array([0, 0, 0, 1, 1, 2]), np.array([[1.0, 2.0]] * 5 + [[-3.0, 1.0]])
    # 0 against (0, 0, 1, 1): half a hit each; 1 against (0, 0, 0, 1) and 2: none
    assert knn_accuracy(even[1], even[0], k=1, metric=metric) == pytest.approx(1.5 / 6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rounding_does_not_choose_among_duplicates(metric):
    """Distances of equal rows to a third may differ in the last bits, by where they stand in a product."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(20, 30)), 4, axis=0)
    features *= 1 + 1e-15 * rng.normal(size=features.shape)
    labels = np.tile([0, 0, 1, 1], 20)

    accuracy = knn_accuracy(features, labels, k=1, metric=metric)

    # all three duplicates vote, two of them for the other class
    assert accuracy == 0


def test_rows_of_zeros_are_at_distance_one_by_cosine():
    """A dead network's zeros must neither divide by zero nor look alike to others' features."""
    features = np.array([[0.0, 0], [1, 0], [1, 0.1], [0, 1], [0.1, 1]])

    assert knn_accuracy(features, [0, 0, 0, 1, 1], k=1) == pytest.approx((4 + 0.5) / 5)


# Logistic regression


@sizes
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
def test_the_logistic_loss_is_that_of_classifiers_fitted_by_others(n, d, n_classes, balanced, apart):
    """By scikit-learn or SciPy, fold by fold, and calibrated by SciPy; the folds are checked below."""
    features, labels = task(n, d, n_classes, apart=apart)
    share = 1 / np.bincount(labels)[labels] if balanced else np.ones(n)
    share = share / share.sum()
    x = features - share @ features
    x = np.column_stack([x / np.sqrt(share @ (x**2).sum(axis=1)), np.ones(n)])
    folds = fold_numbers(Classes.of(labels))
    logits = np.zeros((n, n_classes))
    for fold in np.unique(folds):
        kept = folds != fold
        present = np.unique(labels[kept])
        wanted = np.eye(n_classes)[labels[kept]]

        def loss(flat, kept=kept, wanted=wanted):
            weights = flat.reshape(n_classes, -1)
            own = share[kept] / share[kept].sum()
            entropies = logsumexp(x[kept] @ weights.T, axis=1) - (x[kept] @ weights.T * wanted).sum(axis=1)
            return own @ entropies + 0.005 * np.square(weights).sum()

        if len(present) == n_classes and n_classes > 2:
            fitted = LogisticRegression(C=100, fit_intercept=False, tol=1e-10, max_iter=100_000)
            fitted.fit(x[kept], labels[kept], sample_weight=share[kept] / share[kept].sum())
            logits[~kept] = x[~kept] @ fitted.coef_.T
        else:  # scikit-learn has one logit for two classes, and none for those that a fold lacks
            found = minimize(loss, np.zeros(n_classes * x.shape[1]), tol=1e-12, options={"gtol": 1e-10})
            logits[~kept] = x[~kept] @ found.x.reshape(n_classes, -1).T

    def calibrated(factor):
        own = logits[np.arange(n), labels]
        return share @ (logsumexp(factor * logits, axis=1) - factor * own)

    best = minimize_scalar(calibrated, bounds=(0, 16), method="bounded", options={"xatol": 1e-10}).fun
    expected = min(best, calibrated(16.0), calibrated(0.0))

    assert logistic_loss(features, labels, balanced=balanced) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("counts", [(20, 20, 20), (7, 1, 30, 4), (5, 5)])
def test_folds_hold_their_share_of_every_class(counts):
    """Else a fold's classifier might not know a class that it is asked for."""
    labels = np.repeat(np.arange(len(counts)), counts)

    folds = fold_numbers(Classes.of(labels))

    table = np.array(
        [[(folds[labels == code] == fold).sum() for fold in range(5)] for code in range(len(counts))]
    )
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()
    assert np.ptp(table.sum(axis=0)) <= 1


def test_folds_fitted_in_parts_are_those_fitted_side_by_side(monkeypatch):
    """Many images of many classes would not fit into memory at once."""
    features, labels = task(40, 6, 3)
    whole = logistic_loss(features, labels)

    monkeypatch.setattr("t2v_hub.scores.logistic._BYTES", 1)

    assert logistic_loss(features, labels) == pytest.approx(whole, rel=1e-6)


# Ridge probe


def refitted(x: Array, labels: Labels, *, balanced: bool) -> tuple[float, float]:
    """Accuracy and loss of the probe refitted n times for each penalty, by least squares on more rows."""
    n, d = x.shape
    one_hot = np.eye(labels.max() + 1)[labels]
    share = 1 / np.bincount(labels)[labels] if balanced else np.ones(n)
    share = share / share.sum()
    total = (share * ((x - share @ x) ** 2).sum(axis=1)).sum()
    best = (np.inf, 0.0)
    for penalty in PENALTIES:
        held = np.hstack([np.sqrt(penalty * total) * np.eye(d), np.zeros((d, 1))])
        predictions = np.empty_like(one_hot)
        for i in range(n):
            kept = np.arange(n) != i
            root = np.sqrt(share[kept])[:, None]
            rows = np.vstack([root * np.column_stack([x - x.mean(axis=0), np.ones(n)])[kept], held])
            targets = np.vstack([root * one_hot[kept], np.zeros((d, one_hot.shape[1]))])
            solution = np.linalg.lstsq(rows, targets, rcond=1e-14)[0]
            predictions[i] = np.append(x[i] - x.mean(axis=0), 1.0) @ solution
        loss = float(share @ ((one_hot - predictions) ** 2).sum(axis=1))
        if loss < best[0]:
            best = loss, float(share @ (predictions.argmax(axis=1) == labels))
    return best[1], best[0]


@sizes
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("apart", [0.5, 3.0])
def test_the_ridge_probe_is_the_one_refitted_n_times(n, d, n_classes, balanced, apart):
    """Closed forms are right or wrong, not approximate; the penalty is chosen among the same 17."""
    features, labels = task(n, d, n_classes, apart=apart)
    accuracy, loss = refitted(features, labels, balanced=balanced)

    assert ridge_accuracy(features, labels, balanced=balanced) == pytest.approx(accuracy, abs=1e-12)
    assert ridge_loss(features, labels, balanced=balanced) == pytest.approx(loss, rel=1e-7)


@pytest.mark.parametrize(("n", "d"), [(20, 4), (8, 30)])
def test_the_ridge_probe_of_constant_features_predicts_the_mean_of_the_others(n, d):
    """Leaving an image out makes its class rarer: always wrong for classes of one size, as documented."""
    labels = np.arange(n) % 2
    others = (n / 2 - 1) / (n - 1)

    assert ridge_accuracy(np.full((n, d), 0.1), labels) == 0
    assert ridge_loss(np.full((n, d), 0.1), labels) == pytest.approx(2 * (1 - others) ** 2, rel=1e-9)


def test_equal_predictions_share_a_hit():
    """Of three and two images, leaving out one of three leaves two classes of two."""
    labels = np.array([0, 0, 0, 1, 1])

    assert ridge_accuracy(np.ones((5, 3)), labels) == pytest.approx(3 * 0.5 / 5)


# All of them


def value(name: str, x: Array, labels: NDArray[np.generic]) -> float:
    result = score(name, labels, features=x, predictions=x)
    assert result is not None
    return result


@given(st.integers(0, 10**6), st.sampled_from(SIZES), st.sampled_from(sorted(SCORES)))
@settings(max_examples=120, deadline=None)
def test_neither_the_order_nor_the_names_matter(seed, size, name):
    """A score is a function of the set of pairs, and of which labels are equal; folds go by the order."""
    n, d, n_classes = size
    make = predicted if SCORES[name].needs == "predictions" else task
    x, labels = make(n, d, n_classes, seed=seed)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(n), rng.permutation(n_classes) * 17 - 5
    if name == "logistic_loss":
        order = np.arange(n)

    changed = value(name, x[order], names[labels][order])

    assert changed == pytest.approx(value(name, x, labels), rel=1e-7, abs=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(SIZES), st.floats(-30, 30))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", sorted(set(ON_FEATURES) - {"transrate"}))
def test_a_common_factor_does_not_matter(name, seed, size, exponent):
    features, labels = task(*size, seed=seed)

    changed = ON_FEATURES[name](10.0**exponent * features, labels)

    assert changed == pytest.approx(ON_FEATURES[name](features, labels), rel=1e-7, abs=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(SIZES))
@settings(max_examples=30, deadline=None)
@on_features
def test_rotations_do_not_matter(name, seed, size):
    """No score may know the axes: what a checkpoint calls feature 17 is arbitrary."""
    features, labels = task(*size, seed=seed)
    rotation = ortho_group.rvs(size[1], random_state=seed)

    changed = ON_FEATURES[name](features @ rotation, labels)

    assert changed == pytest.approx(ON_FEATURES[name](features, labels), rel=1e-7, abs=1e-9)


SHIFTED: dict[str, Function] = {
    "h_score": h_score,
    "transrate": transrate,
    "knn_accuracy": lambda x, y: knn_accuracy(x, y, metric="euclidean"),
    "ridge_accuracy": ridge_accuracy,
    "ridge_loss": ridge_loss,
    "logistic_loss": logistic_loss,
}


@given(st.integers(0, 10**6), st.sampled_from(SIZES))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", SHIFTED)
def test_a_shift_does_not_matter_where_features_are_centred(name, seed, size):
    features, labels = task(*size, seed=seed)
    shift = 100 * np.random.default_rng(seed).normal(size=size[1])

    changed = SHIFTED[name](features + shift, labels)

    assert changed == pytest.approx(SHIFTED[name](features, labels), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("n", "d"), [(120, 10), (40, 80)])
def test_classes_farther_apart_score_better(name, n, d):
    """What every score is for, in the direction that the registry names."""
    make = predicted if SCORES[name].needs == "predictions" else task
    d = 10 if SCORES[name].needs == "predictions" else d  # of many source classes each holds one image
    averages = [
        np.mean([value(name, *make(n, d, 4, seed=seed, apart=apart)) for seed in range(3)])
        for apart in (0.0, 0.3, 0.6, 1.2)
    ]

    steps = np.diff(averages) if SCORES[name].larger_is_better else -np.diff(averages)

    assert (steps > 0).all(), averages


@pytest.mark.parametrize("name", SCORES)
def test_permuted_labels_score_worse(name):
    """Real images: the digits, as features and, softened, as predictions of 64 source classes."""
    features, labels = load_digits(return_X_y=True)
    features, labels = features[:400], labels[:400]
    x = features / features.sum(axis=1, keepdims=True) if name in ON_PREDICTIONS else features
    permuted = np.random.default_rng(0).permutation(labels)

    better, worse = value(name, x, labels), value(name, x, permuted)

    assert better > worse if SCORES[name].larger_is_better else better < worse


@pytest.mark.parametrize("name", SCORES)
def test_the_same_input_gives_the_same_bits_and_stays_as_it_was(name):
    make = predicted if SCORES[name].needs == "predictions" else task
    x, labels = make(30, 8, 3)
    before = x.copy(), labels.copy()

    first, second = value(name, x, labels), value(name, x, labels)

    assert first == second
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(labels, before[1])


@on_features
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_features_of_other_types_are_computed_in_double(name, dtype):
    """Half precision overflows at 65,504 and its squares at 256."""
    features, labels = task(30, 12, 3)
    features = (300 * features).astype(dtype)

    expected = ON_FEATURES[name](features.astype(np.float64), labels)

    assert ON_FEATURES[name](features, labels) == expected
    assert ON_FEATURES[name](np.asfortranarray(features), labels) == pytest.approx(expected, rel=1e-9)


LABELLINGS: dict[str, Callable[[Labels], object]] = {
    "words": lambda codes: np.array(["ant", "bee", "cat"])[codes],
    "objects": lambda codes: np.array(["ant", "bee", "cat"], dtype=object)[codes],
    "list": lambda codes: [["ant", "bee", "cat"][code] for code in codes],
    "far apart": lambda codes: np.array([-(2**62), 0, 2**62])[codes],
    "unsigned": lambda codes: codes.astype(np.uint8),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("kind", LABELLINGS)
def test_labels_may_be_of_any_kind(name, kind):
    make = predicted if SCORES[name].needs == "predictions" else task
    x, labels = make(20, 6, 3)

    named = score(name, LABELLINGS[kind](labels), features=x, predictions=x)

    assert named == pytest.approx(value(name, x, labels), rel=1e-12)


def test_truth_values_are_labels():
    features, labels = task(20, 6, 2)

    assert ridge_loss(features, labels == 1) == ridge_loss(features, labels)


EDGES = {
    "two images": (np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 5.0]]), [0, 1]),
    "equal images of two classes": (np.ones((2, 3)), [0, 1]),
    "one feature": (np.arange(6.0)[:, None], [0, 0, 0, 1, 1, 1]),
    "a class of one image": (task(9, 4, 2)[0], [0] * 8 + [1]),
    "every class of one image": (task(6, 10, 6)[0], range(6)),
    "zeros": (np.zeros((6, 4)), [0, 1, 2] * 2),
    "constant": (np.full((6, 4), 0.1), [0, 1, 2] * 2),
    "constant but for rounding": (0.1 + 1e-17 * task(6, 4, 3)[0], [0, 1, 2] * 2),
    "dead columns": (np.pad(task(8, 3, 2)[0], ((0, 0), (0, 60))), [0, 1] * 4),
    "duplicates": (np.repeat(task(4, 9, 2)[0], 5, axis=0), [0, 1] * 10),
    "tiny": (1e-120 * task(8, 3, 2)[0], [0, 1] * 4),
    "huge": (1e99 * task(8, 3, 2)[0], [0, 1] * 4),
    "scales": (task(9, 5, 2)[0] * 10.0 ** np.arange(-20, 30, 10), [0, 1] * 4 + [0]),
}


@on_features
@pytest.mark.parametrize("edge", EDGES)
def test_at_the_edges_a_score_is_a_finite_number_in_its_range(name, edge, recwarn):
    """A candidate with dead or few features is ranked low; it does not stop the run, or warn."""
    features, labels = EDGES[edge]
    labels = np.array(labels)

    result = ON_FEATURES[name](features, labels)

    assert isinstance(result, float) and np.isfinite(result)
    if name in ("knn_accuracy", "ridge_accuracy"):
        assert 0 <= result <= 1
    if name in ("h_score", "transrate", "ridge_loss", "logistic_loss"):
        assert result >= 0
    if name == "h_score":
        assert result <= len(np.unique(labels)) - 1 + 1e-9
    assert not recwarn.list


@on_predictions
def test_predictions_of_one_source_class_say_nothing(name):
    """The score is then minus the labels' entropy."""
    labels = np.array([0, 0, 0, 1])
    entropy = mutual_info_score(labels, labels)

    assert ON_PREDICTIONS[name](np.ones((4, 1)), labels) == pytest.approx(-entropy)
    assert ON_PREDICTIONS[name](np.eye(50)[[7, 7, 7, 7]], labels) == pytest.approx(-entropy)


def test_a_class_of_one_image_is_missed_when_left_out():
    """No other image shows it; documented for both leave-one-out scores."""
    features = np.array([[0.0, 1], [0, 1.1], [0.1, 1], [9, 0]])
    labels = [0, 0, 0, 1]

    assert knn_accuracy(features, labels, k=1) == 0.75
    assert ridge_accuracy(features, labels) == 0.75
    assert nce([0, 0, 0, 5], labels) == 0


# What comes in


WRONG_LABELS = {
    "one class": (np.zeros(6, int), "labels of two classes or more; 6 labels show 1"),
    "none": (np.zeros(0, int), "0 labels show 0"),
    "several per image": (np.eye(6, dtype=int), r"one per image, of shape \(n,\), not of shape \(6, 6\)"),
    "numbers with a point": (np.arange(6) / 2, "whole numbers or strings, not float64"),
    "mixed": (np.array(["a", 1, "a", 1, "a", 1], dtype=object), "mix numbers and strings"),
    "absent": (np.array(["a", None] * 3, dtype=object), "whole numbers or strings; one is None"),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("case", WRONG_LABELS)
def test_labels_that_cannot_work_are_refused(name, case):
    labels, message = WRONG_LABELS[case]

    with pytest.raises(LabelError, match=message):
        score(name, labels, features=np.ones((6, 2)) / 2, predictions=np.ones((6, 2)) / 2)


WRONG_FEATURES = {
    "too few rows": (np.ones((5, 2)), r"There are 5 rows of \w+ and 6 labels"),
    "no matrix": (np.ones((6, 2, 2)), r"numbers of shape \(n, d\), not float64 of shape \(6, 2, 2\)"),
    "no columns": (np.ones((6, 0)), r"not float64 of shape \(6, 0\)"),
    "words": (np.full((6, 2), "a"), r"not <U1 of shape \(6, 2\)"),
    "complex": (np.ones((6, 2), complex), "not complex128"),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("case", WRONG_FEATURES)
def test_values_that_are_no_matrix_are_refused(name, case):
    values, message = WRONG_FEATURES[case]

    with pytest.raises(SettingsError, match=message):
        score(name, [0, 1] * 3, features=values, predictions=values)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e101])
def test_values_that_are_not_finite_are_counted(name, bad):
    """A checkpoint that overflows is named and left out, not ranked."""
    values = np.full((6, 2), 0.5)
    values[1] = values[4, 0] = bad

    with pytest.raises(
        ProbeOutputError, match=r"3 of 12 \w+ are not finite or beyond 1e\+100, in 2 of 6 rows"
    ):
        score(name, [0, 1] * 3, features=values, predictions=values)


@pytest.mark.parametrize("theta", [np.full((4, 2), 0.6), np.array([[1.5, -0.5]] * 4), np.zeros((4, 3))])
def test_leep_refuses_what_are_no_probabilities(theta):
    """Logits taken for probabilities would give a number that looks like a score."""
    with pytest.raises(SettingsError, match="must be probabilities.*Apply softmax to logits first"):
        leep(theta, [0, 1, 0, 1])


def test_nce_refuses_another_number_of_source_classes():
    with pytest.raises(SettingsError, match="There are 3 source classes and 4 labels"):
        nce([0, 1, 2], [0, 1, 0, 1])
    with pytest.raises(LabelError, match="The source classes must be whole numbers or strings, not float64"):
        nce([0.5, 1.0, 2.0, 2.0], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (h_score, {"shrinkage": 1.0}, r"must be 'ledoit_wolf' or in \[0, 1\), not 1.0"),
        (h_score, {"shrinkage": -0.1}, "not -0.1"),
        (h_score, {"shrinkage": float("nan")}, "not nan"),
        (h_score, {"shrinkage": "oas"}, "not 'oas'"),
        (h_score, {"shrinkage": True}, "not True"),
        (transrate, {"eps": 0}, "eps must be a finite number > 0, not 0"),
        (transrate, {"eps": float("inf")}, "not inf"),
        (knn_accuracy, {"k": 0}, "k must be a whole number >= 1, not 0"),
        (knn_accuracy, {"k": 2.0}, "not 2.0"),
        (knn_accuracy, {"metric": "manhattan"}, "must be 'cosine' or 'euclidean', not 'manhattan'"),
    ],
)
def test_options_that_cannot_work_are_refused(function, options, message):
    features, labels = task(10, 3, 2)

    with pytest.raises(SettingsError, match=message):
        function(features, labels, **options)


# Registry and layer means


def test_every_score_stands_under_its_name():
    assert {name: entry.name for name, entry in SCORES.items()} == {name: name for name in SCORES}
    assert [name for name, entry in SCORES.items() if not entry.larger_is_better] == [
        "ridge_loss",
        "logistic_loss",
    ]
    for entry in SCORES.values():
        assert entry.function.__name__ == entry.name
        assert entry.reference
    with pytest.raises(TypeError):
        SCORES["mine"] = SCORES["nce"]  # type: ignore[index]


@pytest.mark.parametrize("name", SCORES)
def test_a_checkpoint_without_a_head_has_blanks(name):
    """LEEP and NCE need a classifier; the others must not notice that there is none."""
    features, labels = task(20, 5, 3)

    result = score(name, labels, features=features)

    if name in ("leep", "nce"):
        assert result is None
    else:
        assert result == ON_FEATURES[name](features, labels)


def test_a_score_that_is_not_known_or_has_no_features_is_named():
    with pytest.raises(SettingsError, match="no score 'sfda'; choose one of logme, leep"):
        score("sfda", [0, 1])
    with pytest.raises(SettingsError, match="'logme' needs features, and none were given"):
        score("logme", [0, 1], predictions=np.eye(2))


def test_layer_means_stand_side_by_side_in_order():
    rng = np.random.default_rng(0)
    maps = {"stem": rng.normal(size=(4, 3, 5, 2)), "head": rng.normal(size=(4, 6)).astype(np.float32)}

    means = layer_means(maps)

    assert means.dtype == np.float64
    expected = [[channel.sum() / 10 for channel in image] for image in maps["stem"]]
    np.testing.assert_allclose(means[:, :3], expected, rtol=1e-12)
    np.testing.assert_array_equal(means[:, 3:], maps["head"].astype(np.float64))


def test_standardised_layers_have_the_mean_of_their_gram_matrices():
    """However wide they are, and in whatever unit: each is centred, and of trace n."""
    rng = np.random.default_rng(0)
    maps = {"stem": 1e-4 * rng.normal(size=(9, 3, 4, 4)) + 7, "late": 1e3 * rng.normal(size=(9, 20))}
    grams = []
    for values in maps.values():
        rows = values.reshape(9, values.shape[1], -1).mean(axis=2)
        centre = np.eye(9) - np.full((9, 9), 1 / 9)
        gram = centre @ rows @ rows.T @ centre
        grams.append(9 * gram / np.trace(gram))

    rows = layer_means(maps, standardise=True)

    assert rows.shape == (9, 23)
    np.testing.assert_allclose(rows @ rows.T, np.mean(grams, axis=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-160, 1.0, 1e160])
def test_the_scale_of_a_standardised_layer_changes_nothing(scale):
    """Not even where its squares are beyond float64."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))

    rows = layer_means({"a": scale * a, "b": b}, standardise=True)

    np.testing.assert_allclose(rows, layer_means({"a": a, "b": b}, standardise=True), rtol=1e-9, atol=1e-12)


def test_a_standardised_layer_that_says_nothing_is_zero():
    """Its rounding must not be blown up to the size of the others."""
    rows = layer_means({"a": np.full((5, 3), 0.1), "b": np.arange(5.0)[:, None]}, standardise=True)

    assert not rows[:, :3].any()
    assert rows[:, 3].var() == pytest.approx(1 / 2)


def test_layer_means_of_half_precision_do_not_overflow():
    """The sum of 49 values of 60,000 is beyond float16."""
    maps = {"late": np.full((2, 1, 7, 7), 60_000, dtype=np.float16)}

    np.testing.assert_allclose(layer_means(maps), np.float64(np.float16(60_000)), rtol=1e-12)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "at least one layer"),
        ({"a": np.ones((2, 3, 4))}, r"layer 'a' must be .* not float64 of shape \(2, 3, 4\)"),
        ({"a": np.ones((2, 3, 0, 4))}, "layer 'a' must be"),
        ({"a": np.full((2, 3), "x")}, "layer 'a' must be numbers"),
        ({"a": np.ones((2, 3)), "b": np.ones((3, 3))}, "'b' shows 3 images, the layers before it 2"),
    ],
)
def test_layers_that_do_not_fit_are_named(maps, message):
    with pytest.raises(SettingsError, match=message):
        layer_means(maps)


def test_the_benchmark_of_the_scores_runs():
    """Its quick form times every score on small features."""
    script = Path(__file__).parents[1] / "benchmarks" / "scores.py"
    command = [sys.executable, str(script), "--quick"]

    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert result.returncode == 0, result.stderr[-2000:]
    assert all(name in result.stdout for name in SCORES)
