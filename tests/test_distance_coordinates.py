"""Coordinates: their Euclidean distances against the distances themselves, which other code works out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from t2v_hub.distance import coordinates, pairwise, symmetric_distance
from t2v_hub.errors import EmbeddingMismatchError, SettingsError


def near(embedding, *, spread, n=6, seed=0):
    """Embeddings whose logarithms differ by that much, and a factor that no distance should see."""
    rng = np.random.default_rng(seed)
    return [
        replace(
            embedding,
            fisher=embedding.fisher * np.exp(spread * rng.normal(size=len(embedding.fisher)) + rng.normal()),
            deviations=None,
        )
        for _ in range(n)
    ]


@pytest.fixture
def embedding(digits_pool):
    target = digits_pool.target
    return replace(target, fisher=np.maximum(target.fisher, 1e-3 * target.fisher.mean()), deviations=None)


def squared(embeddings, name):
    return squareform(pdist(coordinates(embeddings, name=name), "sqeuclidean"))


def test_squared_euclidean_distances_are_the_symmetric_distance_of_near_tasks(embedding):
    """Otherwise k-means would group by something that no ranking goes by."""
    some = near(embedding, spread=0.02)
    # Factors are no matter of the symmetric distance up to their square; here they are taken out.
    some = [replace(one, fisher=one.fisher / one.fisher.mean() * 1e-4) for one in some]

    off_diagonal = ~np.eye(len(some), dtype=bool)
    np.testing.assert_allclose(
        squared(some, "symmetric")[off_diagonal], pairwise(some)[off_diagonal], rtol=0.01
    )


def test_the_error_is_of_fourth_order(embedding):
    """That is what the docstring claims: a tenth of the spread, a hundredth of the relative error."""
    errors = []
    for spread in (0.2, 0.02):
        pair = [
            replace(one, fisher=one.fisher / one.fisher.mean() * 1e-4)
            for one in near(embedding, spread=spread, n=2)
        ]
        exact = symmetric_distance(*pair)
        errors.append(abs(squared(pair, "symmetric")[0, 1] / exact - 1))

    assert errors[1] < errors[0] / 20
    assert errors[0] < 0.1


@pytest.mark.parametrize("name", ["relative", "asymmetric"])
def test_coordinates_show_the_pair_s_part_of_a_directed_distance(embedding, name):
    """The mean of both directions, with the term for complexity switched off, is what is left of it."""
    some = near(embedding, spread=0.05)
    exact = pairwise(some, name=name, alpha=0.0)

    np.testing.assert_allclose(exact, exact.T, atol=1e-12)  # else there would be no such part
    if name == "relative":
        off_diagonal = ~np.eye(len(some), dtype=bool)
        np.testing.assert_allclose(squared(some, name)[off_diagonal], exact[off_diagonal], rtol=0.02)
    else:  # factors of e apart they are not near any more; the order of pairs stays
        assert (
            np.corrcoef(pdist(coordinates(some, name=name), "sqeuclidean"), squareform(exact, checks=False))[
                0, 1
            ]
            > 0.9
        )


def test_relative_coordinates_do_not_see_how_large_an_embedding_is(embedding):
    """Its size hangs on the number of classes and images, which is why rankings bring it to one mean."""
    larger = replace(embedding, fisher=embedding.fisher * 50)

    rows = coordinates([embedding, larger], name="relative")
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-7)


def test_each_row_hangs_on_its_own_embedding_alone(embedding):
    """What is fitted on some tasks must place a new one as it would have placed it among them."""
    some = near(embedding, spread=0.3)

    for name in ("relative", "asymmetric", "symmetric"):
        together = coordinates(some, name=name)
        alone = np.concatenate([coordinates([one], name=name) for one in some])

        np.testing.assert_array_equal(together, alone)
        np.testing.assert_allclose(together.mean(axis=1), 0, atol=1e-12)


def test_filters_without_information_have_coordinates_too(embedding):
    """A filter that never fires has a Fisher value of 0, which has no logarithm."""
    dead = embedding.fisher.copy()
    dead[:3] = 0

    for name in ("relative", "symmetric"):
        rows = coordinates([replace(embedding, fisher=dead), replace(embedding, fisher=dead * 0)], name=name)

        assert np.isfinite(rows).all()


def test_what_cannot_be_placed_is_refused(embedding):
    """Rows of two spaces have nothing to do with each other."""
    other = replace(embedding, space=replace(embedding.space, beta=1.0))

    with pytest.raises(EmbeddingMismatchError, match="beta"):
        coordinates([embedding, other])
    with pytest.raises(SettingsError, match="no coordinates of 'jsd'. Choose one of: relative, asymm"):
        coordinates([embedding], name="jsd")
    with pytest.raises(SettingsError, match="need at least one embedding"):
        coordinates([])
