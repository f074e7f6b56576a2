"""Replicates: their spread is the variance, whatever the classes and groups."""

import numpy as np
import pytest

from t2v_hub.embedding import jackknife_standard_error
from t2v_hub.replication import N_REPLICATES, TO_JACKKNIFE, changes_of_heads, replicate_factors


@pytest.mark.parametrize(("n", "n_classes"), [(100, 5), (100, 40), (33, 3), (17, 2), (1000, 10)])
def test_the_variance_of_a_stratified_mean_is_estimated_without_bias(n, n_classes):
    """With classes far apart, whose counts do not vary; the true variance is 1/n."""
    rng = np.random.default_rng(0)
    classes = np.arange(n) % n_classes
    factors = replicate_factors(classes)
    images = rng.normal(0, 5, n_classes)[classes] + rng.normal(size=(3000, n))

    replicates = images @ factors.T / factors.sum(axis=1) - images.mean(axis=1, keepdims=True)
    errors = jackknife_standard_error(replicates.T * TO_JACKKNIFE)

    assert factors.min() > 0
    # The mean of 3,000 estimates of about 14 degrees of freedom each.
    assert 0.94 < np.square(errors).mean() * n < 1.08


def test_the_first_images_are_dealt_as_evenly_as_all():
    """So that a sum that stops early has its standard error, too."""
    classes = np.arange(800) % 5

    factors = replicate_factors(classes)[:, :240]  # 48 of each class: three times 16

    np.testing.assert_allclose(factors.mean(axis=1), 1, atol=1e-12)


def test_classes_keep_their_part_in_every_replicate():
    classes = np.array([0, 0, 1, 0, 2, 1, 0, 2, 0, 1])

    factors = replicate_factors(classes)

    for code in range(3):
        np.testing.assert_allclose(factors[:, classes == code].mean(axis=1), 1)


@pytest.mark.parametrize("classes", [[0, 1, 1, 1], [0, 1, 2, 3], [0, 1, 1, 2, 3, 3, 3]], ids=str)
def test_classes_of_one_image_vary_together(classes):
    """Alone they would seem to have no variance."""
    factors = replicate_factors(np.array(classes))

    assert (factors.std(axis=0) > 0.1).all()
    np.testing.assert_allclose(factors.sum(axis=1), len(classes))


@pytest.mark.parametrize("effect", [0.0, 0.05, 0.3])
def test_changes_read_off_few_passes_have_the_variance_of_the_changes(effect):
    """Of one layer whose filters change alike, seen through noise of .1 per quotient."""
    rng = np.random.default_rng(1)
    n_shown, n_filters, squares = 3, 50, []
    for _ in range(300):
        change = effect * rng.normal(size=(N_REPLICATES, 1))
        noise = 0.1 * np.sqrt(n_shown) * rng.normal(size=(n_shown, N_REPLICATES, n_filters))
        shown = np.concatenate([np.ones((n_shown, 1, n_filters)), 1 + change + noise], axis=1)
        squares.append(changes_of_heads(shown, np.ones(n_filters), [n_filters]).var(axis=0, ddof=1).mean())

    assert np.mean(squares) == pytest.approx(effect**2, rel=0.1, abs=0.1**2 / 10)


def test_filters_that_no_shown_image_moves_do_not_change():
    shown = np.zeros((3, 1 + N_REPLICATES, 2))
    shown[:, :, 0] = np.linspace(1, 2, 1 + N_REPLICATES)

    changes = changes_of_heads(shown, np.ones(2), [1, 1])

    np.testing.assert_array_equal(changes[:, 1], 0)
    assert changes[0, 0] < 0 < changes[-1, 0]
