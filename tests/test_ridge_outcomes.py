"""`ridge_outcomes`: hits of the leave-one-out ridge probe by image, held to scikit-learn refitted n times."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from t2v_hub.errors import LabelError, ProbeOutputError, SettingsError
from t2v_hub.scores import PENALTIES, ridge_accuracy, ridge_outcomes


def task(n, d, n_classes, *, seed=0, apart=1.0):
    """Normal classes around random centres, off the origin."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    centres = apart * rng.normal(size=(n_classes, d))
    return 2.0 + centres[labels] + rng.normal(size=(n, d)), labels


def refitted(x, labels):
    """Hits of scikit-learn's ridge regression on one-hot labels, refitted without each image."""
    n = len(x)
    one_hot = np.eye(labels.max() + 1)[labels]
    variance = np.square(x - x.mean(axis=0)).sum() / n
    best = np.inf, np.zeros(n)
    for penalty in PENALTIES:
        predictions = np.empty_like(one_hot)
        for i in range(n):
            kept = np.arange(n) != i
            model = Ridge(alpha=n * penalty * variance, solver="svd").fit(x[kept], one_hot[kept])
            predictions[i] = model.predict(x[i : i + 1])[0]
        loss = np.square(one_hot - predictions).sum() / n
        if loss < best[0]:
            best = loss, (predictions.argmax(axis=1) == labels).astype(float)
    return best[1]


@pytest.mark.parametrize(
    ("n", "d", "n_classes", "apart"), [(30, 6, 3, 0.4), (15, 30, 3, 1.5), (21, 20, 2, 0.4)]
)
def test_outcomes_are_those_of_the_probe_refitted_without_each_image(n, d, n_classes, apart):
    """Which images are missed decides ties between checkpoints, not only how many."""
    features, labels = task(n, d, n_classes, apart=apart)

    assert ridge_outcomes(features, labels).tolist() == refitted(features, labels).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_outcome_is_the_accuracy(seed):
    """Two figures of one probe; balanced, the mean over classes of their means."""
    features, labels = task(60, 5, 4, seed=seed, apart=0.7)
    balanced = ridge_outcomes(features, labels, balanced=True)
    recalls = [balanced[labels == code].mean() for code in range(4)]

    assert ridge_outcomes(features, labels).mean() == pytest.approx(ridge_accuracy(features, labels))
    assert np.mean(recalls) == pytest.approx(ridge_accuracy(features, labels, balanced=True))


def test_equal_predictions_share_a_hit():
    """Of three and two images, leaving out one of three leaves two classes of two."""
    labels = np.array([0, 0, 0, 1, 1])

    assert ridge_outcomes(np.ones((5, 3)), labels).tolist() == [0.5, 0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("features", "labels", "error", "words"),
    [
        (np.ones((4, 2)), [1, 1, 1, 1], LabelError, "labels of two classes or more"),
        (np.ones(4), [0, 1, 0, 1], SettingsError, r"numbers of shape \(n, d\)"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], ProbeOutputError, "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, labels, error, words):
    """As for the accuracy."""
    with pytest.raises(error, match=words):
        ridge_outcomes(features, labels)
