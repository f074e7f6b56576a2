"""What distances take from a catalog's rows alone is kept beside them, and changes no ranking."""

import numpy as np
import pytest

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.distance import distances
from tests.factories import make_embedding, make_space

SPACE = make_space([12, 20], beta=1e-6)


def embedding(seed):
    rng = np.random.default_rng(seed)
    return make_embedding(np.exp(rng.normal(-7, 1, 32)), space=SPACE, prior=np.full(2, 1e-3))


@pytest.fixture
def catalog(tmp_path):
    result = Catalog(tmp_path / "catalog")
    for seed in range(6):
        result.add(Candidate(f"org/{seed}", embeddings=(embedding(seed),)))
    return result


def kept(catalog):
    return sorted(path.name for path in (catalog.path / "matrices").glob("*-terms"))


@pytest.mark.parametrize("name", ["relative", "asymmetric"])
def test_the_next_ranking_takes_what_the_first_one_kept(catalog, name, monkeypatch):
    """To the bit, and without working it out again."""
    first = catalog.matrix(SPACE).distances(embedding(100), name=name)
    other = catalog.matrix(SPACE).distances(embedding(101), name=name)
    (file,) = kept(catalog)
    before = (catalog.path / "matrices" / file).stat()

    again = catalog.matrix(SPACE).distances(embedding(100), name=name)

    np.testing.assert_array_equal(again, first)
    assert (catalog.path / "matrices" / file).stat().st_mtime_ns == before.st_mtime_ns
    assert name in file
    rows = np.stack([embedding(seed).fisher for seed in range(6)])
    digests = [embedding(seed).digest for seed in range(6)]
    order = np.argsort(digests)
    np.testing.assert_allclose(other, distances(embedding(101), rows, name=name)[order], atol=2e-3)


@pytest.mark.parametrize("harm", ["cut off", "other rows", "no numbers", "gone"])
def test_terms_that_cannot_be_used_are_made_again(catalog, harm):
    """A cache is no reason to fail, or to rank by nonsense."""
    first = catalog.matrix(SPACE).distances(embedding(100), name="relative")
    (file,) = kept(catalog)
    path = catalog.path / "matrices" / file
    if harm == "cut off":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "gone":
        path.unlink()
    else:
        from safetensors import safe_open
        from safetensors.numpy import save

        with safe_open(path, framework="numpy") as opened:
            about, values = opened.metadata(), opened.get_tensor("scale")
        values = values[1:] if harm == "other rows" else np.full(6, np.nan)
        path.write_bytes(save({"scale": values, "complexity": values}, metadata=about))

    again = catalog.matrix(SPACE).distances(embedding(100), name="relative")

    np.testing.assert_array_equal(again, first)
    assert kept(catalog) == [file]


def test_terms_of_another_prior_are_not_taken(catalog):
    """Spaces name the probe; if its weights should ever give other priors, distances follow them."""
    rng = np.random.default_rng(100)
    other = make_embedding(np.exp(rng.normal(-7, 1, 32)), space=SPACE, prior=np.full(2, 1.0))
    catalog.matrix(SPACE).distances(embedding(100), name="asymmetric")

    found = catalog.matrix(SPACE).distances(other, name="asymmetric")

    matrix = catalog.matrix(SPACE)
    expected = distances(other, matrix.values, name="asymmetric", scale=matrix.scale, power=matrix.power)
    np.testing.assert_array_equal(found, expected)


def test_a_new_embedding_makes_them_again(catalog):
    """Rows have moved."""
    catalog.matrix(SPACE).distances(embedding(100), name="relative")
    before = kept(catalog)
    catalog.add(Candidate("org/new", embeddings=(embedding(50),)))

    found = catalog.matrix(SPACE).distances(embedding(100), name="relative")

    assert len(found) == 7
    assert len(kept(catalog)) == 1
    assert kept(catalog) != before
