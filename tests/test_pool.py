"""Many small tasks in one call, against the same tasks one by one."""

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from t2v_hub import pool
from t2v_hub.errors import ProbeOutputError, SmallerBatchWarning
from t2v_hub.fisher import SquaredGradients
from t2v_hub.probe import ProbeNetwork
from t2v_hub.task2vec import EmbeddedTasks, Task2Vec
from t2v_hub.testing import TINY, TinyNetwork, tiny_probe, tiny_task


def embedder(probe: object = None, **settings: object) -> Task2Vec:
    return Task2Vec(
        tiny_probe() if probe is None else probe, **{"cache": False, "progress": False, **settings}
    )  # type: ignore[arg-type]


def episodes() -> dict[str, Dataset]:
    """Of several sizes and numbers of classes; ``half`` and ``other half`` share images with ``whole``."""
    whole = tiny_task(6)
    return {
        "whole": whole,
        "one shot": tiny_task(2, 5, seed=3),
        "half": whole.select(range(9)),
        "other half": whole.select(range(6, 18)),
        "two": tiny_task(5, 2, seed=4),
        "again": whole,
    }


def assert_like_one_by_one(done: EmbeddedTasks, tasks: dict[str, Dataset], **settings: object) -> None:
    assert not done.failures
    assert list(done.embeddings) == list(tasks)
    for name, task in tasks.items():
        alone = embedder(**settings).embed(task, name=name)
        ours = done.embeddings[name]
        np.testing.assert_allclose(ours.fisher, alone.fisher, rtol=1e-5, atol=1e-6 * alone.fisher.mean())
        assert ours.task == alone.task
        assert ours.space == alone.space
        assert ours.measurement.n_samples == alone.measurement.n_samples
        assert ours.standard_error == pytest.approx(alone.standard_error, rel=1e-2, nan_ok=True)
        if alone.deviations is None:
            assert ours.deviations is None
        else:
            np.testing.assert_allclose(ours.deviations, alone.deviations, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"standard_error": False},
        {"estimator": "exact", "standard_error": False},
        {"estimator": "empirical"},
        {"n_labels": 3, "dtype": "float64"},
        {"sampling": "balanced", "max_samples": 10},
        {"filters": ["conv*"], "normalisation": True, "standard_error": False},
    ],
    ids=str,
)
def test_tasks_in_one_call_are_measured_as_one_by_one(settings):
    """Which images share a pass must decide nothing: the draws are each task's own."""
    tasks = episodes()

    done = embedder(**settings).embed_many(tasks)

    assert_like_one_by_one(done, tasks, **settings)


def test_images_run_once_however_many_tasks_hold_them(monkeypatch):
    """18 images of ``whole`` and 6 others in 6 tasks: 3 passes for features, 3 for the Fisher."""
    tasks = {"one shot": tiny_task(2, seed=3), **{name: tiny_task(6) for name in "abcd"}}
    probe = tiny_probe()
    seen: list[int] = []
    features = probe.features

    def counting(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return features(inputs)

    many = embedder(probe, standard_error=False)
    many.embed(tiny_task(3, seed=9))  # the kernels are compared with autograd, once
    monkeypatch.setattr(probe, "features", counting)
    many._measurer._placed[1].features = counting

    done = many.embed_many(tasks)

    assert len(done.embeddings) == 5
    assert seen == [8] * 6


def test_large_tasks_are_measured_among_small_ones_in_the_order_given(monkeypatch):
    monkeypatch.setattr("t2v_hub.task2vec.SMALL", 17)
    tasks = episodes()

    done = embedder(standard_error=False).embed_many(tasks)

    assert_like_one_by_one(done, tasks, standard_error=False)
    alone = embedder(standard_error=False).embed(tasks["whole"], name="whole")
    assert done.embeddings["whole"] == alone  # to the bit: 18 images are many here


@pytest.mark.parametrize("bytes_of_pixels", [1, 30_000])
def test_pools_are_cut_where_memory_would_run_out(bytes_of_pixels, monkeypatch):
    monkeypatch.setattr("t2v_hub.task2vec._WAITING_BYTES", bytes_of_pixels)
    monkeypatch.setattr(pool, "_GROUP_IMAGES", 20)
    tasks = episodes()

    assert_like_one_by_one(embedder(standard_error=False).embed_many(tasks), tasks, standard_error=False)


def test_an_interrupted_call_goes_on_with_the_groups_that_are_left(tmp_path, monkeypatch):
    """Finished tasks are kept as soon as their group is."""
    monkeypatch.setattr(pool, "_GROUP_IMAGES", 20)
    tasks = episodes()
    expected = embedder().embed_many(tasks)
    finished, count = pool.TaskPool._group, []

    def stopping(self, members, features):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(members)
        return finished(self, members, features)

    with monkeypatch.context() as patched:
        patched.setattr(pool.TaskPool, "_group", stopping)
        with pytest.raises(KeyboardInterrupt):
            embedder(cache=tmp_path).embed_many(tasks)
    kept = len(list(tmp_path.glob("*.safetensors")))
    assert 0 < kept < len(tasks)

    again = embedder(cache=tmp_path).embed_many(tasks)

    for name, one in expected.embeddings.items():
        np.testing.assert_allclose(again.embeddings[name].fisher, one.fisher, rtol=1e-6)
    assert len(list(tmp_path.glob("*.safetensors"))) >= kept
    monkeypatch.setattr(SquaredGradients, "forward", None)  # nothing is measured a third time
    third = embedder(cache=tmp_path).embed_many(tasks)
    assert third.embeddings == again.embeddings


class Dark(TinyNetwork):
    """NaN features for a black image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        black = images.amax(dim=(1, 2, 3), keepdim=True) < -1.9
        return super().forward(torch.where(black, torch.nan, images))


class Flat(TinyNetwork):
    """Finite features of infinite slope for a black image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = (images.amax(dim=(1, 2, 3)) + 2).clamp_min(0)[:, None, None, None]
        level = (level * self.conv1(images).mean(dim=(1, 2, 3), keepdim=True) ** 2).sqrt()
        return super().forward(images + level)


@pytest.mark.parametrize(("network", "what"), [(Dark, "features"), (Flat, "gradients")])
def test_a_task_that_cannot_be_measured_leaves_the_others_alone(network, what):
    """In whose passes it was."""
    from PIL import Image

    good = tiny_task(4)
    black = good.map(
        lambda row, i: {"image": Image.new("RGB", (16, 16))} if i == 5 else row, with_indices=True
    )
    probe = ProbeNetwork.load(network(), head="head", preprocessing=TINY)
    both = concatenate_datasets([good.select(range(6)), tiny_task(2, seed=5)])

    done = embedder(probe, standard_error=False).embed_many({"a": good, "bad": black, "b": both})

    assert list(done.embeddings) == ["a", "b"]
    assert isinstance(done.failures["bad"], ProbeOutputError)
    assert f"gives NaN or infinite {what}" in str(done.failures["bad"])
    alone = embedder(probe, standard_error=False).embed(both)
    np.testing.assert_allclose(done.embeddings["b"].fisher, alone.fisher, rtol=1e-5)


class Limited(TinyNetwork):
    """Has memory for so many images at a time."""

    most = 8

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().forward(images)


def test_passes_of_a_pool_shrink_until_they_fit():
    module = Limited()
    probe = ProbeNetwork.load(module, head="head", preprocessing=TINY)
    module.most = 3
    tasks = episodes()

    with pytest.warns(SmallerBatchWarning, match="going on with [24] images"):
        done = embedder(probe, standard_error=False).embed_many(tasks)

    assert {one.measurement.pass_size for one in done.embeddings.values()} == {2}
    whole = embedder(TinyNetwork(), preprocessing=TINY, standard_error=False).embed(tasks["whole"])
    np.testing.assert_allclose(done.embeddings["whole"].fisher, whole.fisher, rtol=1e-5)


def test_a_pool_that_does_not_fit_names_each_of_its_tasks():
    """No exception takes what else was measured with it."""
    module = Limited()
    probe = ProbeNetwork.load(module, head="head", preprocessing=TINY)
    module.most = 0

    with pytest.warns(SmallerBatchWarning):
        done = embedder(probe).embed_many({"a": tiny_task(3), "b": tiny_task(4)})

    assert not done.embeddings
    assert list(done.failures) == ["a", "b"]
    assert all("does not fit into the memory" in str(error) for error in done.failures.values())


def test_no_tasks_are_no_embeddings():
    done = embedder().embed_many({})

    assert (dict(done.embeddings), dict(done.failures)) == ({}, {})
