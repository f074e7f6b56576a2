"""Distances against restatements that share no code with them, and against simulation."""

import itertools
import math
from decimal import Decimal, localcontext
from typing import get_args

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch
from factories import make_embedding, make_space

from t2v_hub.distance import (
    DistanceName,
    asymmetric_distance,
    distance,
    distance_standard_error,
    distances,
    pairwise,
    recorded_standard_error,
    replicates,
    symmetric_distance,
)
from t2v_hub.embedding import jackknife_standard_error
from t2v_hub.errors import EmbeddingMismatchError, SettingsError

NAMES = get_args(DistanceName)
POSITIVE = np.exp(np.random.default_rng(5).normal(-6.0, 2.0, (2, 40))).astype(np.float32)


def slow_symmetric(source, target):
    """The formula with 60 decimal digits; 0/0 counts as equal."""
    with localcontext() as context:
        context.prec = 60
        uu = uv = vv = Decimal(0)
        for a, b in zip(source, target, strict=True):
            a, b = Decimal(float(a)), Decimal(float(b))
            u, v = (Decimal("0.5"),) * 2 if a + b == 0 else (a / (a + b), b / (a + b))
            uu, uv, vv = uu + u * u, uv + u * v, vv + v * v
        return float(1 - uv / (uu * vv).sqrt())


@pytest.mark.parametrize("ratio", [10.0**power for power in range(-8, 9, 2)])
def test_symmetric_holds_for_any_ratio_of_scales(ratio):
    """Sums such as d - 2Σu + Σu² cancel when norms differ, in float32 already at 1e-4."""
    near, far = POSITIVE[0], (POSITIVE[1] * ratio).astype(np.float32)
    expected = slow_symmetric(near, far)

    actual = symmetric_distance(make_embedding(near), make_embedding(far))

    assert actual == pytest.approx(expected, rel=1e-12)
    assert 0 < actual < 1


@pytest.mark.parametrize("ratio", [1e-8, 1e-3, 1.0, 7.0, 1e8])
def test_proportional_vectors_have_distance_zero(ratio):
    """Tasks that differ in overall difficulty alone have one direction."""
    fisher = POSITIVE[0].astype(np.float64)

    actual = symmetric_distance(make_embedding(fisher), make_embedding((fisher * ratio).astype(np.float32)))

    assert actual == pytest.approx(0.0, abs=1e-13)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([1, 3], [3, 1], 0.4),  # u = (1/4, 3/4), v = (3/4, 1/4): 1 - (6/16)/(10/16)
        ([1, 0], [0, 1], 1.0),  # nothing in common
        ([0, 2], [0, 2], 0.0),  # zero in both counts as equal
        ([0, 0, 1], [0, 0, 0], 1 - 0.5 / math.sqrt(1.5 * 0.5)),  # u = (½, ½, 1), v = (½, ½, 0)
        ([1, 1], [0, 0], 1.0),  # v has no direction left
        ([0, 0], [0, 0], 0.0),
    ],
)
def test_symmetric_has_the_value_worked_out_by_hand(source, target, expected):
    """A closed form is a witness that no program wrote."""
    assert symmetric_distance(make_embedding(source), make_embedding(target)) == pytest.approx(
        expected, abs=1e-15
    )


def test_asymmetric_has_the_value_worked_out_by_hand():
    """With beta = 1/2 the robust precision is F + t0, here t0 = 1: (1, 3) and (3, 1) again."""
    space = make_space(2, beta=0.5)
    source = make_embedding([0, 2], space=space, prior=[1.0])
    target = make_embedding([2, 0], space=space, prior=[1.0])
    to_trivial = slow_symmetric([1, 3], [1, 1])

    assert asymmetric_distance(source, target, alpha=0.0) == pytest.approx(0.4, abs=1e-15)
    assert asymmetric_distance(source, target, alpha=0.2) == pytest.approx(0.4 - 0.2 * to_trivial, abs=1e-15)


def test_asymmetric_maps_both_tasks_through_the_robust_precision():
    """Each layer has a prior of its own; one beta serves all."""
    space = make_space([3, 2], beta=1e-4)
    priors, layers = [1e-3, 0.5], [0, 0, 0, 1, 1]
    source, target = (make_embedding(seed=seed, n_filters=5, space=space, prior=priors) for seed in (1, 2))
    trivial = [1 / float(np.float32(priors[layer])) for layer in layers]
    robust = [
        [float(value) / 2e-4 + base for value, base in zip(item.fisher, trivial, strict=True)]
        for item in (source, target)
    ]

    actual = asymmetric_distance(source, target)

    assert actual == pytest.approx(
        slow_symmetric(*robust) - 0.15 * slow_symmetric(robust[0], trivial), rel=1e-9
    )


def test_asymmetric_favours_the_complex_source():
    """Of two sources as far from the target, the one further from the trivial embedding wins."""
    space = make_space(4, beta=0.5)
    target = make_embedding([5, 5, 5, 5], space=space, prior=[1.0])
    simple = make_embedding([0, 0, 0, 0], space=space, prior=[1.0])
    complex_ = make_embedding([40, 0, 10, 3], space=space, prior=[1.0])

    taken_off = [
        asymmetric_distance(item, target, alpha=0) - asymmetric_distance(item, target)
        for item in (simple, complex_)
    ]

    assert taken_off[0] == pytest.approx(0, abs=1e-15)
    assert taken_off[1] > 0.01


def gaussian_divergences(precision, other):
    """KL divergences of centred Gaussians, per filter, by torch."""
    first, second = (
        torch.distributions.Normal(0.0, torch.tensor(values, dtype=torch.float64) ** -0.5)
        for values in (precision.astype(np.float64), other.astype(np.float64))
    )
    return torch.distributions.kl_divergence(first, second).numpy()


@pytest.mark.parametrize("ratio", [1e-8, 1.0, 1e8])
def test_divergences_are_those_of_gaussians(ratio):
    """The reference's divergences are of N(0, 1/F); torch has them too."""
    source, target = POSITIVE[0], (POSITIVE[1] * ratio).astype(np.float32)
    forward, backward = gaussian_divergences(source, target), gaussian_divergences(target, source)
    middle = 2 / (1 / source.astype(np.float64) + 1 / target.astype(np.float64))
    to_middle = (gaussian_divergences(source, middle) + gaussian_divergences(target, middle)) / 2
    pair = make_embedding(source), make_embedding(target)

    assert distance(*pair, name="kl") == pytest.approx(np.maximum(forward, backward).sum(), rel=1e-9)
    assert distance(*pair, name="asymmetric_kl") == pytest.approx(forward.sum(), rel=1e-9)
    assert distance(*pair, name="jsd") == pytest.approx(to_middle.mean(), rel=1e-9)


def test_divergences_of_near_vectors_do_not_cancel():
    """Second order: for F' = F(1 + e), the divergence is e²/4; ratio - 1 - ln ratio rounds it away."""
    source = np.full(8, 2.0)
    target = source * (1 + 2.0**-20)

    actual = distance(make_embedding(source), make_embedding(target), name="asymmetric_kl")

    assert actual == pytest.approx(8 * 2.0**-40 / 4, rel=1e-5)


def test_divergences_survive_ratios_that_float64_cannot_add():
    """1 - 1e-30 is 1: the logarithm must come from the ratio there."""
    actual = distance(make_embedding([1.0]), make_embedding([1e-30]), name="asymmetric_kl")

    assert actual == pytest.approx(0.5 * (-1 + 30 * math.log(10)), rel=1e-6)


def test_entropy_is_the_information_a_filter_has_of_its_task():
    """Ln 2 less the mean binary entropy of u; scipy has entropies."""
    u = POSITIVE[0].astype(np.float64) / POSITIVE.astype(np.float64).sum(axis=0)
    expected = math.log(2) - scipy.stats.entropy(np.stack([u, 1 - u])).mean()

    actual = distance(*map(make_embedding, POSITIVE), name="entropy")

    assert actual == pytest.approx(expected, rel=1e-9)


def test_correlation_and_cosine_are_those_of_the_variances():
    """Zero filters have no variance and are left out."""
    source, target = (
        np.concatenate([values, zero]) for values, zero in zip(POSITIVE, [[0, 1], [1, 0]], strict=True)
    )
    variances = 1 / POSITIVE.astype(np.float64)
    space = make_space([20, 22])
    pair = [make_embedding(values, space=space, prior=[1e-3, 0.2]) for values in (source, target)]
    normalised = variances / pair[0].prior.astype(np.float64)[[0] * 20 + [1] * 20]

    assert distance(*pair, name="correlation") == pytest.approx(
        1 - scipy.stats.pearsonr(*variances).statistic
    )
    assert distance(*pair, name="normalized_cosine") == pytest.approx(
        scipy.spatial.distance.cosine(*normalised), rel=1e-9
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("asymmetric", "relative")])
def test_an_embedding_has_distance_zero_from_itself(name):
    """Also where filters are zero: 0/0 counts as equal."""
    embedding = make_embedding([0.0, 1e-9, 1.0, 3e5, 0.0])

    assert distance(embedding, embedding, name=name) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", ["kl", "asymmetric_kl", "jsd"])
def test_divergences_are_infinite_where_just_one_filter_is_zero(name):
    """No finite number of nats tells an infinite variance from a finite one."""
    with np.errstate(all="raise"):
        assert distance(make_embedding([0, 1]), make_embedding([1, 1]), name=name) == math.inf


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("query_is", ["source", "target"])
def test_distances_pairwise_and_pairs_agree(name, query_is):
    """Three ways to one number; entry [i, j] is from i to j."""
    space = make_space([5, 7])
    items = [make_embedding(seed=seed, space=space, prior=[1e-2, 1e-3]) for seed in range(4)]
    matrix = np.stack([item.fisher for item in items])
    expected = np.array([[distance(a, b, name=name) for b in items] for a in items])

    torch.testing.assert_close(pairwise(items, name=name), expected, rtol=1e-12, atol=1e-15)
    for place, query in enumerate(items):
        actual = distances(query, matrix, query_is=query_is, name=name)
        wanted = expected[place] if query_is == "source" else expected[:, place]
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-15)


def test_pairwise_of_nothing_is_empty():
    """A loop over no tasks should not need a special case."""
    assert pairwise([]).shape == (0, 0)


def test_distances_reads_memory_mapped_float16(tmp_path):
    """A catalog's rows are scaled float16; 2^-11 per filter moves a distance by far less."""
    query = make_embedding(seed=99, n_filters=300)
    rows = [make_embedding(seed=seed, n_filters=300).fisher.astype(np.float64) for seed in range(250)]
    scale = np.array([row.max() / 6e4 for row in rows])
    np.save(
        tmp_path / "rows.npy",
        np.stack([row / s for row, s in zip(rows, scale, strict=True)]).astype(np.float16),
    )
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")

    actual = distances(query, mapped, scale=scale)

    assert isinstance(mapped, np.memmap)
    torch.testing.assert_close(actual, distances(query, np.stack(rows)), rtol=0, atol=2e-5)


def test_wrong_arguments_are_named():
    """Each message says what was wanted and what came."""
    embedding = make_embedding(seed=1)
    other = make_embedding(seed=2, space=make_space(12, probe_digest="sha256:" + "cd" * 32))
    matrix = np.ones((3, 12))
    with pytest.raises(EmbeddingMismatchError, match=r"different spaces: probe .* other weights.*one probe"):
        symmetric_distance(embedding, other)
    with pytest.raises(EmbeddingMismatchError, match="different spaces"):
        pairwise([embedding, other])
    with pytest.raises(EmbeddingMismatchError, match="different spaces"):
        distance_standard_error(embedding, other)
    with pytest.raises(
        SettingsError, match=r"no distance 'cosine'\. Choose one of: asymmetric, relative, normalized_cosine"
    ):
        distance(embedding, embedding, name="cosine")
    with pytest.raises(SettingsError, match="alpha must be a finite number >= 0, not -1"):
        asymmetric_distance(embedding, embedding, alpha=-1)
    with pytest.raises(SettingsError, match=r"shape \(3, 11\); wanted \(n, 12\)"):
        distances(embedding, matrix[:, 1:])
    with pytest.raises(SettingsError, match=r"scale has shape \(2,\); wanted \(3,\)"):
        distances(embedding, matrix, scale=[1.0, 2.0])
    with pytest.raises(SettingsError, match="query_is must be 'source' or 'target', not 'both'"):
        distances(embedding, matrix, query_is="both")
    with pytest.raises(SettingsError, match="no jackknife deviations"):
        replicates(embedding)


def sampled_embedding(rng, mean, *, n_images=400, n_groups=20, space):
    """An embedding of fresh images with known mean, and its delete-a-group deviations."""
    squares = mean * rng.gamma(0.5, 2.0, (n_images, len(mean)))  # squared Gaussian gradients
    fisher = squares.mean(axis=0)
    without = [
        np.delete(squares, np.arange(start, n_images, n_groups), axis=0).mean(axis=0)
        for start in range(n_groups)
    ]
    return make_embedding(fisher, space=space, deviations=np.stack(without) / fisher - 1)


@pytest.mark.parametrize("name", ["symmetric", "asymmetric"])
def test_standard_error_is_the_spread_over_new_samples(name):
    """The truth is known where new images can be drawn at will."""
    rng = np.random.default_rng(0)
    space = make_space(30, beta=1e-5)
    means = np.exp(rng.normal(-9, 1.0, (2, 30)))
    runs = [[sampled_embedding(rng, mean, space=space) for mean in means] for _ in range(250)]
    values = [distance(*pair, name=name) for pair in runs]
    errors = [distance_standard_error(*pair, name=name) for pair in runs]

    # The spread of 250 runs is itself known to 4.5 %.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.15)
    covered = np.abs(values - np.mean(values)) < 1.96 * np.array(errors)
    assert 0.90 <= covered.mean() <= 0.98


def test_standard_error_joins_both_shares():
    """The two data sets are independent: variances add."""
    space = make_space(12)
    noisy = make_embedding(seed=1, space=space, n_groups=10, noise=0.3)
    exact = make_embedding(seed=2, space=space, deviations=np.zeros((10, 12)))
    other = make_embedding(seed=2, space=space, n_groups=10, noise=0.3)
    shares = [
        distance_standard_error(noisy, exact),
        distance_standard_error(make_embedding(seed=1, space=space, deviations=np.zeros((10, 12))), other),
    ]

    assert min(shares) > 0
    assert distance_standard_error(noisy, other) == pytest.approx(math.hypot(*shares))
    assert distance_standard_error(exact, exact) == 0.0


def test_standard_error_falls_back_on_what_was_recorded():
    """A card carries no deviations but one typical share, which is that of the symmetric distance."""
    source = make_embedding(seed=1, distance_standard_error=0.03)
    target = make_embedding(seed=2, distance_standard_error=0.04)
    unknown = make_embedding(seed=3)

    assert distance_standard_error(source, target) == pytest.approx(0.05)
    assert distance_standard_error(source, target, name="asymmetric") == pytest.approx(0.05)
    assert math.isnan(distance_standard_error(source, unknown))
    assert math.isnan(distance_standard_error(source, target, name="kl"))
    assert recorded_standard_error(source) == 0.03


def test_jackknife_of_a_mean_is_its_textbook_error():
    """For a mean, delete-one jackknife is s/sqrt(n) exactly."""
    values = np.random.default_rng(0).normal(size=17)
    without = np.array([np.delete(values, index).mean() for index in range(17)])

    assert jackknife_standard_error(without) == pytest.approx(values.std(ddof=1) / math.sqrt(17))
    assert np.isnan(jackknife_standard_error(np.ones((1, 3)))).all()


def test_symmetric_is_symmetric_and_bounded():
    """A pair of any two tasks, either way round."""
    items = [make_embedding(seed=seed) for seed in range(6)]

    for first, second in itertools.combinations(items, 2):
        there, back = symmetric_distance(first, second), symmetric_distance(second, first)
        assert there == pytest.approx(back, abs=1e-15)
        assert 0 < there <= 1


@pytest.mark.parametrize("factor", [1e-6, 0.03, 1.0, 50.0, 1e5])
def test_the_relative_distance_does_not_see_how_large_an_embedding_is(factor):
    """Only how the information is divided; the asymmetric one sees both."""
    rng = np.random.default_rng(11)
    one, other = (make_embedding(np.exp(rng.normal(-9, 2, 24))) for _ in range(2))
    larger = make_embedding(factor * one.fisher.astype(np.float64))

    expected = distance(one, other, name="relative")

    assert distance(larger, other, name="relative") == pytest.approx(expected, rel=1e-5)
    assert distance(other, larger, name="relative") == pytest.approx(
        distance(other, one, name="relative"), rel=1e-5
    )
    if factor in (1e-6, 1e5):
        assert distance(larger, other, name="asymmetric") != pytest.approx(
            distance(one, other, name="asymmetric"), rel=0.05
        )


def test_the_relative_distance_is_the_asymmetric_one_of_embeddings_of_one_mean():
    """By hand: both brought to a mean of 1e-4 first."""
    rng = np.random.default_rng(12)
    vectors = [np.exp(rng.normal(-9, 2, 24)) for _ in range(2)]
    given = [make_embedding(vector) for vector in vectors]
    moved = [make_embedding(1e-4 * vector / vector.mean()) for vector in vectors]

    assert distance(*given, name="relative", alpha=0.3) == pytest.approx(
        distance(*moved, name="asymmetric", alpha=0.3), rel=1e-5
    )


def test_relative_distances_to_stored_rows_need_no_scale():
    """Rows of float16 with scales and powers, and a row of zeros: as the vectors that they stand for."""
    rng = np.random.default_rng(13)
    target = make_embedding(np.exp(rng.normal(-9, 2, 24)))
    values = rng.uniform(0.1, 1, (5, 24)).astype(np.float16)
    values[4] = 0
    scale, power = np.array([1e-9, 1e-3, 1.0, 1e6, 1.0]), np.array([1, 2, 4, 8, 1])
    rows = values.astype(np.float64) ** power[:, None] * scale[:, None]

    found = distances(target, values, name="relative", scale=scale, power=power)

    expected = [distance(make_embedding(row), target, name="relative") for row in rows]
    np.testing.assert_allclose(found, expected, atol=2e-6)
