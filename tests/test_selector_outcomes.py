"""`Outcomes`: predicted errors, their intervals, and ties by differences image by image; `shortlist`."""

import numpy as np
import pytest
from scipy import stats

from t2v_hub.selector import shortlist
from t2v_hub.selector.outcomes import Outcomes, tie_groups


def outcomes(*hits):
    return Outcomes(np.array(hits, dtype=np.float64))


def drawn(rng, n, error, like=None, agree=0.0):
    """Hits of a checkpoint; with ``like``, the same as that one's on a share of the images."""
    hits = (rng.random(n) >= error).astype(float)
    if like is not None:
        same = rng.random(n) < agree
        hits[same] = like.hits[same]
    return Outcomes(hits)


@pytest.mark.parametrize(("missed", "n"), [(0, 10), (1, 10), (37, 100), (100, 100), (0, 2)])
def test_the_interval_is_wilsons(missed, n):
    """A normal interval is of length 0 where nothing is missed, which nobody should believe."""
    own = Outcomes(np.arange(n) >= missed)
    expected = stats.binomtest(missed, n).proportion_ci(method="wilson")

    assert own.error == pytest.approx(missed / n)
    assert own.interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_shared_hits_count_in_parts():
    """Of two classes equally likely, one is the image's own."""
    assert outcomes(1, 0.5, 0.5, 0).error == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_a_difference_is_that_of_a_paired_test(seed):
    """By an implementation that is not ours."""
    rng = np.random.default_rng(seed)
    one = drawn(rng, 80, 0.2)
    other = drawn(rng, 80, 0.3, like=one, agree=0.7)
    expected = stats.ttest_rel(one.hits, other.hits)

    difference = one.better_than(other)

    assert difference.value == pytest.approx(other.error - one.error)
    assert difference.value / difference.standard_error == pytest.approx(expected.statistic)
    assert difference.is_sure == (abs(expected.statistic) > 1.96)


def test_pairs_tell_apart_what_intervals_cannot():
    """What is hard for one checkpoint is hard for the other, and says nothing of which is better."""
    hits = np.ones(200)
    hits[:60] = 0
    one, other = Outcomes(hits.copy()), Outcomes(hits.copy())
    other.hits[60:68] = 0

    assert one.interval[1] > other.error
    assert one.better_than(other).is_sure
    assert other.better_than(one).is_sure


def test_the_stated_error_is_the_spread_of_differences_over_new_images():
    """Simulated: two checkpoints that agree on two images of three."""
    rng = np.random.default_rng(0)
    differences, errors = [], []
    for _ in range(600):
        one = drawn(rng, 100, 0.2)
        found = one.better_than(drawn(rng, 100, 0.25, like=one, agree=2 / 3))
        differences.append(found.value)
        errors.append(found.standard_error)

    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(differences), rel=0.1)


def test_equal_outcomes_are_tied_and_a_single_image_tells_nothing():
    """There is no spread then; 0 is not more than 0."""
    assert not outcomes(1, 0, 1).better_than(outcomes(1, 0, 1)).is_sure
    alone = outcomes(1).better_than(outcomes(0))
    assert (alone.value, alone.standard_error, alone.is_sure) == (1.0, None, False)


@pytest.mark.parametrize("seed", range(3))
def test_groups_reach_as_far_as_their_first_cannot_be_told_apart(seed):
    """The walk restated with the textbook's formula of a paired difference."""
    rng = np.random.default_rng(seed)
    base = drawn(rng, 150, 0.1)
    ordered = [base] + [drawn(rng, 150, 0.1 + 0.02 * i, like=base, agree=0.6) for i in range(1, 15)]
    expected, first = [], None
    for i, one in enumerate(ordered):
        d = None if first is None else ordered[first].hits - one.hits
        if d is None or abs(d.mean()) > 1.96 * np.sqrt(((d - d.mean()) ** 2).sum() / (149 * 150)):
            first = i
            expected.append((expected[-1] if expected else 0) + 1)
        else:
            expected.append(expected[-1])

    assert tie_groups(ordered) == expected
    assert 1 < expected[-1] < 15


@pytest.mark.parametrize(
    ("by_distance", "by_prior", "k", "expected"),
    [
        ("abcdef", "fe", 1, "a"),
        ("abcdef", "fe", 2, "af"),
        ("abcdef", "fe", 4, "afbe"),
        ("abcdef", "abcdef", 3, "abc"),
        ("abcdef", "", 3, "abc"),
        ("ab", "ba", 9, "ab"),
        ("", "ba", 2, "ba"),
        ("", "", 2, ""),
    ],
)
def test_the_shortlist_takes_turns(by_distance, by_prior, k, expected):
    """The one of the highest prior is among two: else nobody learns whether the ranking beats it."""
    assert shortlist(list(by_distance), list(by_prior), k) == tuple(expected)
