"""Distances to many rows: float16 in float32, in threads, and where float32 will not do."""

import numpy as np
import pytest
import torch
from factories import make_embedding, make_space

from t2v_hub.catalog.matrix import Matrix
from t2v_hub.distance import distances, pairwise, symmetric_distance
from t2v_hub.distance.half import half_distances
from t2v_hub.distance.rows import _stored
from t2v_hub.distance.threads import in_threads, n_threads
from t2v_hub.embedding import HalfVector
from t2v_hub.errors import SettingsError

NAMES = ["symmetric", "asymmetric", "relative"]


def encoded(rows):
    """Float16 values with scales and powers, and what they decode to."""
    halves = [HalfVector.encode(np.asarray(row, np.float32)) for row in rows]
    stored = {
        "matrix": np.stack([half.values for half in halves]),
        "scale": np.array([half.scale for half in halves]),
        "power": np.array([half.power for half in halves]),
    }
    return stored, np.stack([half.decode() for half in halves])


def ordinary(n=40, n_filters=300, *, seed=0, spread=2.0, ratio=1.0):
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(-9, spread, (n, n_filters))) * ratio


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("query_is", ["source", "target"])
@pytest.mark.parametrize("ratio", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("spread", [0.3, 2.0, 5.0, 9.0])
def test_float32_is_near_float64(name, query_is, ratio, spread):
    """Whatever the scales; a row's float16 moves a distance a hundred times as far."""
    query = make_embedding(ordinary(1, 300, seed=1, spread=spread)[0], space=make_space([100, 200]))
    stored, decoded = encoded(ordinary(spread=spread, ratio=ratio))

    actual = distances(query, **stored, name=name, query_is=query_is)

    assert set(stored["power"]) <= {1, 2, 4, 8}
    expected = distances(query, decoded, name=name, query_is=query_is)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_filters", [1, 15, 2048, 2049, 8512])
def test_any_length_is_summed_whole(n_filters):
    """Sums are taken in parts, rows laid on cache lines."""
    query = make_embedding(ordinary(1, n_filters, seed=1)[0])
    stored, decoded = encoded(ordinary(9, n_filters))

    actual = distances(query, **stored)

    torch.testing.assert_close(actual, distances(query, decoded), rtol=0, atol=1e-6)


def test_ordinary_rows_take_the_fast_way():
    """NaN means that float64 has to do it again, and it would for all without anybody's notice."""
    for spread in (0.3, 2.0, 5.0):
        for ratio in (1e-8, 1.0, 1e8):
            query = make_embedding(ordinary(1, 300, seed=1, spread=spread)[0])
            stored, _ = encoded(ordinary(spread=spread, ratio=ratio))
            rows = _stored(query, stored["matrix"], stored["scale"], stored["power"])

            assert np.isfinite(half_distances(rows, query.fisher.astype(np.float64)).values).all()
            trivial = query.prior_precision
            assert np.isfinite(
                half_distances(rows, query.robust, trivial, gain=5e6, offset=trivial).values
            ).all()


@pytest.mark.parametrize("name", NAMES)
def test_zeros_of_query_and_rows_count_as_equal(name):
    """Dead filters are zero for every task; and a task may be zero throughout."""
    rows = ordinary(30, 60)
    rows[:, :10] = 0
    rows[3:20, 10:20] = 0
    rows[7] = 0
    fisher = ordinary(1, 60, seed=1)[0]
    fisher[5:15] = 0
    stored, decoded = encoded(rows)
    for values in (fisher, np.zeros(60)):
        query = make_embedding(values, space=make_space(60))

        actual = distances(query, **stored, name=name)

        torch.testing.assert_close(actual, distances(query, decoded, name=name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_float32_cannot_hold_is_done_in_float64(name):
    """Bits are moved unseen, so NaN would become a number; and squares of extremes would vanish."""
    query = make_embedding(ordinary(1, 50, seed=1)[0])
    stored, decoded = encoded(ordinary(40, 50))
    matrix, scale, power = stored["matrix"], stored["scale"], stored["power"]
    for row, value in ((2, np.nan), (3, np.inf), (5, -1.0), (7, -0.0), (8, 1e-7)):
        matrix[row, 4] = value
    scale[[11, 12, 13, 14, 15]] = 0.0, 1e-300, 1e250, np.inf, np.nan
    power[17] = 3
    decoded = matrix.astype(np.float64) ** power[:, None] * scale[:, None]

    rows = _stored(query, matrix, scale, power)
    with np.errstate(all="ignore"):
        actual = distances(query, matrix, scale=scale, power=power, name=name)
        expected = distances(query, decoded, name=name)
        (fast,) = half_distances(rows, query.fisher.astype(np.float64)).values

    assert set(np.flatnonzero(np.isnan(fast))) == {2, 3, 5, 7, 11, 12, 13, 14, 15, 17}
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_a_query_beyond_float32_is_done_in_float64():
    """Its quotients would overflow, or fall below the smallest number that keeps its digits."""
    space = make_space(50, beta=1e-9)
    stored, decoded = encoded(ordinary(20, 50, spread=12.0, ratio=1e-8))
    for values in (np.geomspace(1e-44, 1e38, 50), np.geomspace(1e30, 1e38, 50), np.full(50, 1e-44)):
        query = make_embedding(values, space=space)
        for name in NAMES:
            actual = distances(query, **stored, name=name)

            torch.testing.assert_close(actual, distances(query, decoded, name=name), rtol=0, atol=1e-6)


def test_precisions_are_taken_as_they_are():
    """The family ``variational`` holds robust precisions already."""
    space = make_space(80, family="variational")
    query = make_embedding(1e3 * ordinary(1, 80, seed=1)[0], space=space)
    stored, decoded = encoded(1e3 * ordinary(20, 80))

    actual = distances(query, **stored, name="asymmetric")

    torch.testing.assert_close(actual, distances(query, decoded, name="asymmetric"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*NAMES, "kl"])
def test_threads_change_no_bit(name, monkeypatch):
    """A ranking must not depend on the machine's cores."""
    query = make_embedding(ordinary(1, 64, seed=1)[0])
    rows = ordinary(1300, 64)
    rows[:, 7] = 0
    stored, _ = encoded(rows)
    items = [make_embedding(row, seed=i, space=query.space) for i, row in enumerate(rows[:40])]
    results = []
    for n in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", n)
        results.append((distances(query, **stored, name=name), pairwise(items, name=name)))

    for found in results[1:]:
        np.testing.assert_array_equal(found[0], results[0][0])
        np.testing.assert_array_equal(found[1], results[0][1])


def test_big_endian_and_scattered_rows_are_read_rightly():
    """Bits are moved only where they are this machine's."""
    query = make_embedding(ordinary(1, 30, seed=1)[0])
    stored, decoded = encoded(ordinary(12, 30))
    expected = distances(query, decoded)
    swapped = {**stored, "matrix": stored["matrix"].astype(">f2")}
    turned = {**stored, "matrix": np.asfortranarray(stored["matrix"])}

    torch.testing.assert_close(distances(query, **swapped), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(distances(query, **turned), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_vectors", [8, 12])
def test_a_matrix_works_out_each_distinct_row_once(n_vectors):
    """Embeddings from cards share vectors, and one vector may have several scales."""
    stored, decoded = encoded(ordinary(n_vectors, 30))
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(8), rng.integers(0, 8, 30)])
    factors = [1.0] if n_vectors == 8 else [1.0, 3.0]  # with 8, all in order
    scale = stored["scale"][rows] * rng.choice(factors, len(rows))
    target = make_embedding(ordinary(1, 30, seed=1)[0])
    matrix = Matrix(
        tuple(map(str, rows)), stored["matrix"], scale, stored["power"][rows], damaged={}, rows=rows
    )
    expected = distances(target, decoded[rows] * (scale / stored["scale"][rows])[:, None], name="asymmetric")

    actual = matrix.distances(target, name="asymmetric")

    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    empty = Matrix((), stored["matrix"][:0], scale[:0], rows[:0], damaged={}, rows=rows[:0])
    assert empty.distances(target).shape == (0,)


@pytest.mark.parametrize("n_filters", [20, 9000])
def test_pairwise_is_symmetric_with_zeros_for_equals(n_filters):
    """Each pair is worked out once; rounding may not tell equal tasks apart."""
    rows = ordinary(7, n_filters)
    rows[:, :5] = 0
    rows[2, 5:9] = 0
    rows[5] = rows[1]
    rows[6] = 0
    space = make_space(n_filters)
    items = [make_embedding(row, seed=i, space=space) for i, row in enumerate(rows)]

    actual = pairwise(items)

    expected = np.array([[symmetric_distance(a, b) for b in items] for a in items])
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(actual, actual.T)
    assert (np.diag(actual) == 0).all()
    assert actual[1, 5] == 0


def test_powers_that_are_none_are_named():
    """Whatever they came from, it was not `HalfVector.encode`."""
    query = make_embedding(ordinary(1, 30, seed=1)[0])
    stored, _ = encoded(ordinary(3, 30))

    with pytest.raises(SettingsError, match=r"power has shape \(2,\); wanted \(3,\)"):
        distances(query, stored["matrix"], power=[1, 2])
    for power in ([0, 1, 1], [0.5, 1.0, 1.0]):
        with pytest.raises(SettingsError, match=r"power must be whole numbers >= 1, as `HalfVector.encode`"):
            distances(query, stored["matrix"], power=power)


@pytest.mark.parametrize(
    ("setting", "expected"), [("3", 3), ("2,4", 2), ("", None), ("0", None), ("many", None)]
)
def test_threads_are_as_many_as_other_libraries_are_told(setting, expected, monkeypatch):
    """A scheduler that gives a process one core says so there."""
    monkeypatch.setenv("OMP_NUM_THREADS", setting)

    assert n_threads() == expected if expected else n_threads() >= 1


@pytest.mark.parametrize("n", ["1", "3"])
def test_an_exception_in_a_thread_is_raised_and_ends_the_work(n, monkeypatch):
    """A failure that is lost would leave rows as they were."""
    monkeypatch.setenv("OMP_NUM_THREADS", n)
    done = []

    def work(part):
        if part == 3:
            raise ZeroDivisionError("part 3")
        done.append(part)

    with pytest.raises(ZeroDivisionError, match="part 3"):
        in_threads(work, range(10_000))
    assert len(done) < 10_000
