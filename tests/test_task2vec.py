"""`Task2Vec`, end to end on a tiny probe."""

import errno
import os

import numpy as np
import pytest
import torch

from t2v_hub import blocks
from t2v_hub.errors import (
    CacheWarning,
    EmbeddingMismatchError,
    InsufficientMemoryError,
    SampleSizeError,
    SettingsError,
    SmallerBatchWarning,
    StorageError,
)
from t2v_hub.fisher import SquaredGradients
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import TINY, TinyNetwork, tiny_probe, tiny_task


def embedder(**settings):
    return Task2Vec(tiny_probe(), **{"cache": False, "progress": False, **settings})


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_vector_does_not_depend_on_the_batch_size(batch_size):
    """Squaring a batch's mean gradient would divide by the batch size."""
    expected = embedder(batch_size=32).embed(tiny_task())

    actual = embedder(batch_size=batch_size).embed(tiny_task())

    np.testing.assert_array_equal(actual.fisher, expected.fisher)


def test_the_seed_decides_and_nothing_else():
    """A measurement that cannot be repeated is none."""
    first, again, other = (embedder(seed=seed, max_samples=20).embed(tiny_task()) for seed in (0, 0, 1))

    assert first == again
    assert not np.array_equal(first.fisher, other.fisher)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """What an interruption costs is one block, and never the result."""
    task = tiny_task(n_per_class=40)
    expected = embedder().embed(task)
    put, count = blocks.BlockStore.put, []

    def stopping(self, index, sums):
        put(self, index, sums)
        count.append(index)
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(blocks.BlockStore, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        embedder(cache=tmp_path).embed(task)
    assert len(list(tmp_path.glob("*.blocks/block-*.safetensors"))) == 2

    actual = embedder(cache=tmp_path).embed(task)

    assert count == [0, 1, 2, 3], "finished blocks are not measured again"
    assert actual == expected
    assert not list(tmp_path.glob("*.blocks"))


def test_a_damaged_cache_is_measured_again(tmp_path):
    """A half-written or tampered cache must cost time, not truth."""
    expected = embedder(cache=tmp_path).embed(tiny_task())
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])

    with pytest.warns(CacheWarning, match="measured again"):
        assert embedder(cache=tmp_path).embed(tiny_task()) == expected
    assert embedder(cache=tmp_path).embed(tiny_task()) == expected


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    """The message must say what to do, and the folder must stay usable."""

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full"):
            embedder(cache=tmp_path).embed(tiny_task())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    embedder(cache=tmp_path).embed(tiny_task())


def test_out_of_memory_halves_the_pass_and_is_recorded(monkeypatch):
    """A large image must not end a run that smaller passes can finish."""
    expected = embedder().embed(tiny_task())
    forward = SquaredGradients.forward

    def small(self, inputs):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, inputs)

    monkeypatch.setattr(SquaredGradients, "forward", small)
    with pytest.warns(SmallerBatchWarning, match="images per pass"):
        actual = embedder().embed(tiny_task())

    assert actual.measurement.pass_size == 2
    np.testing.assert_allclose(actual.fisher, expected.fisher, rtol=1e-5)


def test_one_image_that_does_not_fit_is_an_error(monkeypatch):
    """Halving ends somewhere."""

    def never(self, inputs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(SquaredGradients, "forward", never)
    with (
        pytest.warns(SmallerBatchWarning),
        pytest.raises(InsufficientMemoryError, match="smaller image_size"),
    ):
        embedder().embed(tiny_task())


def test_the_callers_network_is_as_it_was():
    """The reference trains the caller's batch statistics and cannot embed twice."""
    module = TinyNetwork().train()
    module.conv1.weight.grad = torch.ones_like(module.conv1.weight)
    module.head.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    flags = [parameter.requires_grad for parameter in module.parameters()]
    probe = tiny_probe().load(module, preprocessing=TINY)

    Task2Vec(probe, cache=False, progress=False).embed(tiny_task())

    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.training
    assert flags == [parameter.requires_grad for parameter in module.parameters()]
    assert torch.equal(module.conv1.weight.grad, torch.ones_like(module.conv1.weight))
    assert module.conv2.weight.grad is None
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_another_order_of_the_classes_changes_nothing_in_exact():
    """Labels are names: the Fisher of the backbone cannot depend on their order."""
    task = tiny_task()
    moved = task.cast_column("label", task.features["label"].__class__(names=list("abc")))
    moved = moved.map(lambda row: {"label": (row["label"] + 1) % 3})

    first, second = (embedder(estimator="exact").embed(data) for data in (task, moved))

    np.testing.assert_allclose(second.fisher, first.fisher, rtol=1e-5)


def test_a_space_can_be_measured_in_again():
    """A catalog's space must be enough to embed a new task comparably."""
    first = embedder(filters=["conv*"], seed=3).embed(tiny_task())

    again = Task2Vec.for_space(first.space, probe=tiny_probe(), cache=False, progress=False, seed=3)

    assert again.embed(tiny_task()).space == first.space
    with pytest.raises(EmbeddingMismatchError, match="other weights"):
        Task2Vec.for_space(first.space, probe=tiny_probe(seed=1))


def test_many_tasks_name_the_one_that_fails():
    """One bad data set never ends a run over many."""
    one_class = tiny_task().filter(lambda row: row["label"] == 0)

    done = embedder().embed_many({"good": tiny_task(), "bad": one_class})

    assert list(done.embeddings) == ["good"]
    assert done.embeddings["good"].task.id == "good"
    assert "class" in str(done.failures["bad"])


def test_fewer_samples_than_classes_is_an_error():
    """Whole classes would be missing from the head."""
    with pytest.raises(SampleSizeError, match="max_samples"):
        embedder(max_samples=2).embed(tiny_task())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"estimator": "guess"}, "no estimator 'guess'"),
        ({"sampling": "odd"}, "sampling must be"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"beta": 0.0}, "beta must be a finite number > 0"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, message):
    """The argument, what was wanted and what came."""
    with pytest.raises(SettingsError, match=message):
        embedder(**settings)
