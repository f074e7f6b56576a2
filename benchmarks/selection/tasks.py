"""A folder of tasks laid out like the development kit's ``data/``: images, and the splits they are judged on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t2v_hub import data
from t2v_hub.probe import Preprocessing

SIDE = 96
SIZES = ("5", "20", "half")
N_SPLITS = 10

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A labelled set of images.

    Attributes:
        name: Such as ``omniglot/greek``.
        path: Its parquet file.
        source: The data set that it is a part of.
        group: Its kind (animal, vehicle, plant …), for the taxonomy.
        free: Whether tables that are derived from it may be passed on.
    """

    name: str
    path: Path
    source: str
    group: str
    free: bool

    @property
    def key(self) -> str:
        """Its name as part of a path."""
        return self.name.replace("/", "__")


def read_tasks(folder: Path) -> list[Task]:
    """Tasks of a folder, one of each source in turn, so that a part of them is a fair part."""
    listed = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    tasks = [
        Task(
            name=entry["task"],
            path=folder / entry["file"],
            source=entry.get("source", entry["task"].split("/")[0]),
            group=entry.get("group", ""),
            free=entry.get("licence_class", "permissive") == "permissive",
        )
        for entry in listed
    ]
    place: dict[str, int] = {}
    order = []
    for task in tasks:
        place[task.source] = place.get(task.source, -1) + 1
        order.append((place[task.source], task))
    return [task for _, task in sorted(order, key=lambda item: item[0])]


def decoded(task: Task, cap: int, folder: Path, *, seed: int = 0) -> tuple[Images, Labels]:
    """At most ``cap`` images, ``(n, 3, 96, 96)``, drawn class by class, and their labels; kept in ``folder``."""
    path = folder / f"{task.key}-{cap}.npz"
    if not path.exists():
        recipe = Preprocessing(size=(SIDE, SIDE), resize=SIDE)
        loaded = data.load(task.path, progress=False)
        sample = loaded.sample(cap, seed=seed, how="balanced").decode(recipe.prepare, progress=False)
        save(path, images=sample.images, labels=np.asarray(sample.labels, np.int64))
    with np.load(path) as kept:
        return kept["images"], kept["labels"]


def save(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Arrays as one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{np.random.default_rng().integers(1 << 62)}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def splits(labels: Labels, size: str, *, n_splits: int = N_SPLITS, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Which images each split trains on, stratified; empty where a class would leave under 3 to test on."""
    counts = np.bincount(labels)
    if (counts < 6).any() or (size != "half" and counts.min() < int(size) + 3):
        return []
    result = []
    for split in range(n_splits):
        rng = np.random.default_rng([seed, split, SIZES.index(size)])
        train = np.zeros(len(labels), np.bool_)
        for code, count in enumerate(counts):
            n = count // 2 if size == "half" else int(size)
            train[rng.permutation(np.flatnonzero(labels == code))[:n]] = True
        result.append(train)
    return result
