"""Embeddings of the targets, one for each split's training images, and of the experts' training sets."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.selection.experts import Checkpoint, union_of
from benchmarks.selection.measuring import Reader
from benchmarks.selection.tasks import N_SPLITS, SIDE, SIZES, Images, Labels, Task, save, splits
from t2v_hub import Task2Vec, TaskEmbedding
from t2v_hub.head import HeadRecipe
from t2v_hub.probe import Preprocessing, ProbeNetwork

SAMPLES = 400
"""Images of a training set that are measured, at most."""


Part = tuple[str, NDArray[np.bool_]]
"""Its name, and which images."""


class Pairs(Sequence[tuple[Image.Image, int]]):
    """Images and labels as a data set of pairs."""

    def __init__(self, images: Images, labels: Labels) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:  # type: ignore[override]
        return Image.fromarray(self.images[i].transpose(1, 2, 0)), int(self.labels[i])


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "l2 0.1": {"head": HeadRecipe(strength=0.1)},
    "l2 1": {"head": HeadRecipe(strength=1.0)},
    "l2 10": {"head": HeadRecipe(strength=10.0)},
    "l2 100": {"head": HeadRecipe(strength=100.0)},
    "cv": {"head": HeadRecipe(kind="cv", scaling="each")},
    "adam": {"head": HeadRecipe(kind="adam", scaling="each")},
    "entropy .9": {"head": HeadRecipe(kind="entropy", strength=10.0, entropy=0.9)},
    "exact": {"estimator": "exact"},
    "4 labels": {"n_labels": 4},
    "empirical": {"estimator": "empirical"},
    "60 images": {"max_samples": 60},
    "balanced": {"sampling": "balanced"},
}
"""Ways to embed, for the table that settles which is the default."""


def embedder(probe: Checkpoint, recipe: str = "default", *, of_sources: bool = False) -> Task2Vec:
    """Measures with a checkpoint as probe, on images of 96 pixels as they are.

    How many images are measured is a matter of the targets: training sets may have hundreds of classes.
    """
    own = ProbeNetwork.load(probe.path, image_size=SIDE).preprocessing
    pixels = Preprocessing(size=(SIDE, SIDE), resize=SIDE, mean=own.mean, std=own.std, scale=own.scale)
    settings = {"max_samples": SAMPLES, "standard_error": False, "cache": False, "progress": False}
    own_settings = settings | RECIPES[recipe] | ({"max_samples": SAMPLES} if of_sources else {})
    return Task2Vec(probe.path, preprocessing=pixels, **own_settings)  # type: ignore[arg-type]


def embed_sources(
    task2vec: Task2Vec, experts: Sequence[Checkpoint], tasks: Sequence[Task], images: Path, folder: Path
) -> None:
    """One embedding per training set, as ``sources/<name>.safetensors``."""
    by_name = {task.name: task for task in tasks}
    for origin, names in sorted({(one.origin or "", one.tasks) for one in experts}):
        path = folder / "sources" / f"{origin}.safetensors"
        if not path.exists():
            pixels, labels = union_of([by_name[name] for name in names], images)
            write(task2vec.embed(Pairs(pixels, labels)), path)


def embed_task(task2vec: Task2Vec, task: Task, images: Pairs, chosen: Sequence[Part], folder: Path) -> None:
    """Each of the parts, as ``<part>.safetensors``, and how long that took as ``<part>.seconds``."""
    for name, rows in chosen:
        path = folder / task.key / f"{name}.safetensors"
        if not path.exists():
            start = time.perf_counter()
            embedding = task2vec.embed(Pairs(images.images[rows], images.labels[rows]))
            seconds = time.perf_counter() - start
            write(embedding, path)
            path.with_suffix(".seconds").write_text(f"{seconds:.4f}", encoding="utf-8")


def mean_features(
    probe: Checkpoint, task: Task, images: Images, chosen: Sequence[Part], folder: Path
) -> None:
    """The DOMAIN embedding, the mean feature, of the same parts."""
    path = folder / task.key / "domain.npz"
    if not path.exists():
        features = Reader(probe).read(images)["features"]
        save(path, **{name: features[rows].mean(axis=0) for name, rows in chosen})


def parts(labels: Labels, sizes: Sequence[str] = SIZES, n_splits: int = N_SPLITS) -> Iterator[Part]:
    """The sets of a target's images that are embedded: all, as ``whole``, and each split's training images."""
    yield "whole", np.ones(len(labels), np.bool_)
    for size in sizes:
        for split, train in enumerate(splits(labels, size)[:n_splits]):
            yield f"{size}-{split}", train


def write(embedding: TaskEmbedding, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    embedding.save(path)
