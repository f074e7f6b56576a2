"""Entries of cards that hold real embeddings: what float16 costs where values span many powers of ten."""

import json
from itertools import permutations
from typing import get_args

import pytest

from t2v_hub import Task2Vec
from t2v_hub.card import entry_values, read_entry
from t2v_hub.distance import DistanceName, distance, distance_standard_error

pytestmark = pytest.mark.kit

TASKS = ("caltech101/birds", "fruits360/citrus_a", "omniglot/greek", "trashnet/materials")
_INFINITE = ("kl", "asymmetric_kl", "jsd")  # where a filter is zero in just one task, as it is here


def test_a_card_loses_less_than_a_tenth_of_a_distances_standard_error(kit):
    """The second task spans 15 powers of ten and has many zeros, the last one has the smallest values."""
    probe = kit / "weights" / "resnet18.pqf_in1k.safetensors"
    embedder = Task2Vec(probe, image_size=64, max_samples=60, cache=False, progress=False)
    full = [embedder.embed(str(kit / "data" / f"{name}.parquet"), name=name) for name in TASKS]
    texts = [json.dumps(entry_values(one, role="finetune", publish_names=True)) for one in full]

    stored = [read_entry(json.loads(text)).embedding for text in texts]

    assert {one.task.id for one in stored} == set(TASKS)
    for name in get_args(DistanceName):
        for i, j in permutations(range(len(TASKS)), 2):
            before = distance(full[i], full[j], name=name)
            after = distance(stored[i], stored[j], name=name)
            if name in _INFINITE:
                assert after == pytest.approx(before, rel=1e-3)
                continue
            assert abs(after - before) < 0.1 * distance_standard_error(full[i], full[j], name=name), name
    assert all(len(text) < 20_000 for text in texts)
