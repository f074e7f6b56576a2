"""Diagnostics against plain numpy, closed forms, and populations whose truth is known."""

import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance
from factories import make_embedding, make_space

from t2v_hub import CrossDiversity, Diversity, Readiness, cross_diversity, diagnostics, diversity, readiness
from t2v_hub.distance import distance, symmetric_distance
from t2v_hub.embedding import jackknife_standard_error
from t2v_hub.errors import EmbeddingMismatchError, SettingsError

N_FILTERS = 12
SPACE = make_space(N_FILTERS)
SPREADS = np.array([0.4, 1.2, 2.4])  # of kinds of tasks: near to all others, and far out


def embedded(rows):
    return [make_embedding(row, seed=place, space=SPACE) for place, row in enumerate(rows)]


def drawn(rng, n, *, shift=0.0):
    """Fisher vectors of tasks of three kinds, log-normal."""
    spreads = rng.choice(SPREADS, n, p=[0.4, 0.3, 0.3])
    return np.exp(shift + spreads[:, None] * rng.normal(size=(n, N_FILTERS)))


def plain_distances(first, second):
    """Symmetric distances of float32 rows, restated; no zeros."""
    a, b = (rows.astype(np.float32).astype(np.float64) for rows in (first, second))
    u = a[:, None] / (a[:, None] + b[None])
    v = b[None] / (a[:, None] + b[None])
    return 1 - (u * v).sum(-1) / np.sqrt(np.square(u).sum(-1) * np.square(v).sum(-1))


TASKS = embedded(drawn(np.random.default_rng(0), 7))
OTHERS = embedded(drawn(np.random.default_rng(1), 5, shift=1.0))


def test_diversity_is_the_mean_over_pairs():
    """A pair once, a task with itself never."""
    pairs = [symmetric_distance(a, b) for a, b in itertools.combinations(TASKS, 2)]

    found = diversity(TASKS)

    assert isinstance(found, Diversity)
    assert found.value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert (found.n, found.distance) == (7, "symmetric")


def test_its_standard_error_is_the_jackknife_done_by_hand():
    """The closed form against leaving out each task in turn."""
    without = [diversity([*TASKS[:i], *TASKS[i + 1 :]]).value for i in range(7)]

    assert diversity(TASKS).standard_error == pytest.approx(jackknife_standard_error(np.array(without)))


def test_cross_diversity_is_the_mean_over_both():
    """Every task of one collection with every task of the other."""
    pairs = [[symmetric_distance(a, b) for b in OTHERS] for a in TASKS]

    found = cross_diversity(TASKS, OTHERS)

    assert isinstance(found, CrossDiversity)
    assert found.value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert found.n == (7, 5)


def test_its_standard_error_joins_the_jackknives_of_both():
    """The collections are drawn independently: variances add."""
    without_a = [cross_diversity([*TASKS[:i], *TASKS[i + 1 :]], OTHERS).value for i in range(7)]
    without_b = [cross_diversity(TASKS, [*OTHERS[:i], *OTHERS[i + 1 :]]).value for i in range(5)]
    errors = [jackknife_standard_error(np.array(values)) for values in (without_a, without_b)]

    assert cross_diversity(TASKS, OTHERS).standard_error == pytest.approx(math.hypot(*errors))


def test_a_distance_with_a_direction_is_averaged_both_ways():
    """A pair has no first task; between collections there is one."""
    there = np.array([[distance(a, b, name="asymmetric", alpha=0.3) for b in TASKS] for a in TASKS])
    across = np.mean([[distance(a, b, name="asymmetric") for b in OTHERS] for a in TASKS])

    found = diversity(TASKS, distance="asymmetric", alpha=0.3)

    assert found.value == pytest.approx((there.sum() - there.trace()) / 42, rel=1e-12)
    assert found.distance == "asymmetric"
    assert cross_diversity(TASKS, OTHERS, distance="asymmetric").value == pytest.approx(across, rel=1e-12)


@pytest.mark.parametrize("n", [6, 25])
def test_the_interval_holds_the_truth_as_often_as_it_says(n):
    """Pairs share tasks. Taken as independent, they hold it far less often."""
    rng = np.random.default_rng(n)
    many = drawn(rng, 1500)
    truth = np.concatenate([plain_distances(part, many).ravel() for part in np.array_split(many, 100)])
    truth = truth.sum() / (1500 * 1499)  # the zeros of tasks with themselves add nothing
    held, held_by_naive, values, errors = [], [], [], []
    for _ in range(400):
        rows = drawn(rng, n)
        found = diversity(embedded(rows))
        pairs = plain_distances(rows, rows)[np.triu_indices(n, 1)]
        naive = 1.96 * pairs.std(ddof=1) / math.sqrt(len(pairs))
        held.append(found.interval[0] <= truth <= found.interval[1])
        held_by_naive.append(abs(pairs.mean() - truth) <= naive)
        values.append(found.value)
        errors.append(found.standard_error)

    assert 0.91 <= np.mean(held) <= 0.985
    assert np.mean(held_by_naive) < 0.75
    assert 0.9 <= np.sqrt(np.mean(np.square(errors))) / np.std(values) <= 1.3


def test_the_interval_between_collections_holds_the_truth():
    """Also of unlike sizes, of which the smaller decides."""
    rng = np.random.default_rng(3)
    many, others = drawn(rng, 1000), drawn(rng, 1000, shift=1.0)
    truth = np.mean([plain_distances(part, others).mean() for part in np.array_split(many, 100)])
    held, held_by_naive = [], []
    for _ in range(300):
        first, second = drawn(rng, 20), drawn(rng, 8, shift=1.0)
        found = cross_diversity(embedded(first), embedded(second))
        naive = 1.96 * plain_distances(first, second).std(ddof=1) / math.sqrt(160)
        held.append(found.interval[0] <= truth <= found.interval[1])
        held_by_naive.append(abs(found.value - truth) <= naive)

    assert 0.91 <= np.mean(held) <= 0.985
    assert np.mean(held_by_naive) < 0.75


@pytest.mark.parametrize("n", [3, 40])
def test_where_no_task_is_central_the_error_is_wide_by_a_known_factor(n, monkeypatch):
    """Distances that depend on no task are independent, and their mean's variance is 2/(n(n - 1))."""
    rng = np.random.default_rng(4)

    def noise(embeddings, **settings):
        upper = np.triu(rng.normal(size=(n, n)), 1)
        return upper + upper.T

    monkeypatch.setattr(diagnostics, "pairwise", noise)
    variances = [diversity([TASKS[0]] * n).standard_error ** 2 for _ in range(2000)]

    # A factor of two for many tasks, and of four for three.
    assert np.mean(variances) * n * (n - 1) / 2 == pytest.approx(2 * (n - 1) / (n - 2), rel=0.06)


def test_with_three_tasks_the_interval_is_students():
    """Two degrees of freedom: 4.30 standard errors."""
    found = diversity(TASKS[:3])
    low, high = found.interval

    assert high - found.value == pytest.approx(4.3027 * found.standard_error, rel=1e-4)
    assert found.value - low == pytest.approx(high - found.value)


def test_two_tasks_or_one_against_many_have_no_interval():
    """One distance says nothing of how far distances spread."""
    pair = diversity(TASKS[:2])
    single = cross_diversity(TASKS[:1], OTHERS)

    assert pair.value == pytest.approx(symmetric_distance(*TASKS[:2]))
    assert (pair.standard_error, pair.interval) == (None, None)
    assert single.value == pytest.approx(np.mean([symmetric_distance(TASKS[0], b) for b in OTHERS]))
    assert (single.standard_error, single.interval) == (None, None)


def test_equal_tasks_have_no_diversity():
    """And the error of a mean of zeros is zero, not NaN."""
    same = [TASKS[0]] * 4

    assert diversity(same) == Diversity(0.0, 0.0, (0.0, 0.0), 4, "symmetric")
    assert cross_diversity(same, same[:2]) == CrossDiversity(0.0, 0.0, (0.0, 0.0), (4, 2), "symmetric")


def test_readiness_is_what_its_formulas_say():
    """Against scipy's pairs."""
    rows = np.stack([task.fisher for task in TASKS]).astype(np.float64)
    from_mean = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    apart = scipy.spatial.distance.pdist(rows)

    found = readiness(TASKS)

    assert isinstance(found, Readiness)
    assert found.n == 7
    assert found.cohesion == pytest.approx(1 - scipy.spatial.distance.pdist(rows, "cosine").mean(), rel=1e-9)
    assert found.dispersion == pytest.approx((from_mean / math.sqrt(N_FILTERS)).mean(), rel=1e-12)
    assert found.density == pytest.approx(np.exp(-(apart**2) / (2 * np.median(from_mean) ** 2)).mean())


def test_readiness_of_long_vectors_is_worked_out_in_parts():
    """Rows are taken a few at a time where they are long."""
    rows = np.random.default_rng(0).lognormal(size=(9, 20_000))
    tasks = [make_embedding(row, seed=i) for i, row in enumerate(rows)]
    rows = np.stack([task.fisher for task in tasks]).astype(np.float64)
    width = np.median(np.linalg.norm(rows - rows.mean(axis=0), axis=1))

    expected = np.exp(-((scipy.spatial.distance.pdist(rows) / width) ** 2) / 2).mean()

    assert readiness(tasks).density == pytest.approx(expected)


def test_readiness_of_two_clients_has_one_density():
    """The mean lies half way, so h is half of what is between them."""
    found = readiness(embedded([[3, 0, *np.zeros(10)], [0, 4, *np.zeros(10)]]))

    assert found.density == pytest.approx(math.exp(-2))
    assert found.dispersion == pytest.approx(2.5 / math.sqrt(12))
    assert found.cohesion == 0.0


@pytest.mark.parametrize(
    ("rows", "cohesion", "density"),
    [
        ([[1, 2], [1, 2], [1, 2]], 1.0, 1.0),  # nobody differs
        ([[2, 2], [2, 2], [2, 2], [1, 2], [3, 2]], None, 0.3),  # h = 0: the three pairs of equals, of ten
        ([[0, 0], [0, 0], [1, 1], [1, 1]], 2 / 6, None),  # vectors of zeros are alike, and like no other
    ],
)
def test_readiness_where_a_formula_would_divide_by_zero(rows, cohesion, density):
    """Limits, and counts of equals."""
    found = readiness([make_embedding(row, seed=i) for i, row in enumerate(rows)])

    assert cohesion is None or found.cohesion == pytest.approx(cohesion, abs=1e-15)
    assert density is None or found.density == pytest.approx(density, abs=1e-15)


def test_what_cannot_be_diagnosed_is_named():
    """Each message says what was wanted and what came."""
    other = make_embedding(seed=2, space=make_space(N_FILTERS, probe_digest="sha256:" + "cd" * 32))
    zero = make_embedding([0.0, *np.ones(11)], space=SPACE)

    with pytest.raises(SettingsError, match="diversity needs the embeddings of two tasks or more, and got 1"):
        diversity(TASKS[:1])
    with pytest.raises(SettingsError, match="readiness needs the embeddings of two tasks or more, and got 0"):
        readiness([])
    with pytest.raises(SettingsError, match="an embedding in each collection; they have 7 and 0"):
        cross_diversity(TASKS, [])
    for failing in (diversity, readiness):
        with pytest.raises(EmbeddingMismatchError, match="different spaces"):
            failing([TASKS[0], other])
    with pytest.raises(EmbeddingMismatchError, match="different spaces"):
        cross_diversity(TASKS, [other])
    with pytest.raises(SettingsError, match="2 of the distances 'kl' are infinite.*such as 'symmetric'"):
        diversity([TASKS[0], zero], distance="kl")
    with pytest.raises(SettingsError, match="1 of the distances 'kl' are infinite"):
        cross_diversity([TASKS[0]], [zero], distance="kl")
    with pytest.raises(SettingsError, match="alpha must be a finite number >= 0, not -1"):
        diversity(TASKS, distance="asymmetric", alpha=-1)
    with pytest.raises(SettingsError, match="no distance 'cosine'"):
        cross_diversity(TASKS, OTHERS, distance="cosine")
