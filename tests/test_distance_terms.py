"""Distances whose complexity terms are given, and shares of which only one is made."""

import numpy as np
import pytest
import torch
from factories import make_embedding, make_space

from t2v_hub.distance import SourceTerms, distances, distances_with_terms
from t2v_hub.distance.half import half_distances
from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.symmetric import symmetric_matrix
from t2v_hub.embedding import HalfVector
from t2v_hub.errors import SettingsError

NAMES = ["asymmetric", "relative"]


def encoded(rows):
    halves = [HalfVector.encode(np.asarray(row, np.float32)) for row in rows]
    return (
        np.stack([half.values for half in halves]),
        np.array([half.scale for half in halves]),
        np.array([half.power for half in halves]),
    )


def exact(source, target):
    """The symmetric distance as it is written down, in long double."""
    source, target = source.astype(np.longdouble), target.astype(np.longdouble)
    total = source + target
    equal = total == 0
    total[equal] = 1
    u, v = np.where(equal, 0.5, source / total), np.where(equal, 0.5, target / total)
    norm = np.sqrt((u @ u) * (v @ v))
    return float(1 - (u @ v) / norm) if norm > 0 else 1.0


@pytest.mark.parametrize("family", ["fisher", "variational"])
@pytest.mark.parametrize("name", NAMES)
def test_terms_that_came_with_another_target_change_no_bit(name, family):
    """Else a ranking would depend on what was ranked before."""
    rng = np.random.default_rng(0)
    space = make_space(400, family=family)
    rows = np.exp(rng.normal(-9, 2, (700, 400)) + rng.normal(0, 2, (700, 1)))
    rows[3] = 0  # which float32 leaves to float64
    values, scale, power = encoded(rows)
    values[5, 7] = np.nan
    scale[[8, 9]] = 1e-300, 1e250
    first, second = (
        make_embedding(np.exp(rng.normal(mean, 2, 400)), seed=seed, space=space)
        for seed, mean in enumerate((-9, -3))
    )
    with np.errstate(all="ignore"):
        _, terms = distances_with_terms(first, values, name=name, scale=scale, power=power)
        actual, again = distances_with_terms(second, values, name=name, scale=scale, power=power, terms=terms)
        expected = distances(second, values, name=name, scale=scale, power=power)

    assert again is terms
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", NAMES)
def test_terms_serve_rows_of_any_type(name):
    """Those of float64 go through float64 alone."""
    rows = np.stack([make_embedding(seed=seed).fisher for seed in range(9)]).astype(np.float64)
    target = make_embedding(seed=20)

    found, terms = distances_with_terms(target, rows, name=name)
    again, _ = distances_with_terms(target, rows, name=name, terms=terms)

    np.testing.assert_array_equal(found, distances(target, rows, name=name))
    np.testing.assert_array_equal(again, found)


def test_terms_that_do_not_fit_are_refused():
    """Of another matrix they would be added to the wrong rows."""
    target = make_embedding(seed=0)
    rows = np.stack([make_embedding(seed=seed).fisher for seed in range(3)])
    terms = SourceTerms(np.ones(2), np.zeros(2))

    with pytest.raises(SettingsError, match=r"The terms are of 2 rows and the matrix has 3; give those"):
        distances_with_terms(target, rows, name="relative", terms=terms)
    with pytest.raises(SettingsError, match=r"Only asymmetric and relative take a term .* not 'symmetric'"):
        distances_with_terms(target, rows, name="symmetric")
    with pytest.raises(SettingsError, match=r"alpha must be a finite number >= 0"):
        distances_with_terms(target, rows, name="relative", alpha=-1.0)


@pytest.mark.parametrize("offset", [None, np.linspace(0.5, 2.0, 600)])
@pytest.mark.parametrize("factor", [1e-4, 1e-2, 0.5, 2.0, 1e2, 1e4])
@pytest.mark.parametrize("peak", [1.0, 1e6])
def test_the_other_share_is_made_where_the_guess_was_wrong(peak, factor, offset):
    """The maximum tells a row from a vector, and is far off where one filter sticks out of either."""
    rng = np.random.default_rng(0)
    rows = factor * np.exp(rng.normal(0, 0.4, (20, 600)))
    vector = np.exp(rng.normal(0, 0.4, 600))
    rows[:10, 3] *= peak
    vector[4] *= np.sqrt(peak)
    if offset is None:
        vector[8:12] = 0
        rows[::2, 10:14] = 0
    values, scale, power = encoded(rows)
    shift = 0.0 if offset is None else offset
    decoded = values.astype(np.float64) ** power[:, None] * scale[:, None] + shift

    actual = half_distances(StoredRows(values, scale, power), vector + shift, offset=offset).values[0]

    expected = np.array([exact(row, vector + shift) for row in decoded])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["alike", "of many scales", "with a peak"])
def test_pairwise_distances_are_exact_to_the_last_digits(kind):
    """One share is made of two, and which one is a guess; nothing may cancel."""
    rng = np.random.default_rng(0)
    rows = np.exp(rng.normal(-9, 2, (12, 3000)))
    if kind == "alike":
        rows = rows[:1] * np.exp(rng.normal(0, 0.01, (12, 3000)))
    if kind == "of many scales":
        rows *= 10.0 ** rng.uniform(-8, 8, (12, 1))
    if kind == "with a peak":
        rows[::2, 5] *= 1e9
    rows[:, :7] = 0
    rows[2, 7:30] = 0

    actual = symmetric_matrix(rows)

    expected = np.array([[exact(a, b) for b in rows] for a in rows])
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=5e-15)
