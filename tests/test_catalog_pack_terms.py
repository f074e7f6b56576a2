"""What distances take from packed rows alone is kept beside the pack, and goes with it."""

import os
import time

import numpy as np
import pytest
from factories import make_embedding, make_space

from t2v_hub.card import CardEntry
from t2v_hub.catalog.pack import delete_packs, open_pack, write_pack
from t2v_hub.distance import distances
from t2v_hub.embedding import HalfVector

SPACE = make_space([20, 12])
TARGET = make_embedding(np.random.default_rng(99).random(32) + 0.1, space=SPACE)


@pytest.fixture(params=["in order", "scattered"])
def pack(request, tmp_path):
    """Key of a pack; scattered, some vectors serve several embeddings, with other scales."""
    entries = []
    for seed in range(9):
        fisher = np.random.default_rng(seed % 4 if request.param == "scattered" else seed).random(32) + 0.1
        half = HalfVector.encode((fisher * (1 + seed)).astype(np.float32))
        embedding = make_embedding(half.decode(), seed=seed, space=SPACE)
        entries.append(CardEntry(embedding, "finetune", half))
    return write_pack(tmp_path, SPACE, entries)


@pytest.mark.parametrize("name", ["asymmetric", "relative"])
def test_a_pack_keeps_its_terms(pack, tmp_path, name):
    """Most candidates of a large catalog lie in packs; the next ranking has the same bits."""
    matrix = open_pack(tmp_path, pack).matrix()
    assert len(matrix.values) in (4, 9)
    first = matrix.distances(TARGET, name=name)
    (path,) = tmp_path.glob("*-terms")
    before = path.stat().st_mtime_ns

    again = open_pack(tmp_path, pack).matrix().distances(TARGET, name=name)

    assert path.name == f"{pack}.{name}-terms"
    assert path.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again, first)
    rows = matrix.values[matrix.rows].astype(np.float64) ** matrix.power[:, None] * matrix.scale[:, None]
    np.testing.assert_allclose(first, distances(TARGET, rows, name=name), rtol=0, atol=1e-6)
    assert list(tmp_path.glob("*.symmetric-terms")) == []


def test_terms_go_with_their_pack(pack, tmp_path):
    """Else they would pile up, a file for every synchronisation."""
    open_pack(tmp_path, pack).matrix().distances(TARGET, name="relative")
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 100,) * 2)

    delete_packs(tmp_path, keep={pack}, older_than_s=10)
    assert len(list(tmp_path.glob("*-terms"))) == 1
    delete_packs(tmp_path, keep=set(), older_than_s=10)

    assert list(tmp_path.iterdir()) == []
