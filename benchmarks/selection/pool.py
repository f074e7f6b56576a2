"""What was measured, as arrays over targets, candidates and splits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from benchmarks.selection.experts import Checkpoint
from benchmarks.selection.tasks import N_SPLITS, Task
from t2v_hub import TaskEmbedding
from t2v_hub.judging import GroundTruth
from t2v_hub.scores import BUILT_IN_SCORES

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One size's measurements; NaN where a candidate was trained on the target.

    Attributes:
        size: Training images a class, or ``half``.
        tasks: The targets.
        candidates: The checkpoints.
        truth: Test errors.
        scores: Per second-stage score, ``(n_tasks, n_candidates, n_splits)``, smaller is better; NaN where a
            candidate has none.
        outcomes: Per target and candidate, the leave-one-out hits ``(n_splits, n_train)``.
        seconds: Of making a candidate's features, per target and candidate.
        score_seconds: Of each score, likewise.
        parameters: Of each candidate.
        embedding_seconds: Of embedding each split's training images, ``(n_tasks, n_splits)``, NaN where that
            was not recorded; None without embeddings.
    """

    size: str
    tasks: tuple[Task, ...]
    candidates: tuple[Checkpoint, ...]
    truth: GroundTruth
    scores: dict[str, Array]
    outcomes: list[list[Array]]
    seconds: Array
    score_seconds: dict[str, Array]
    parameters: Array
    embedding_seconds: Array | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(task.source for task in self.tasks)

    def raw_score(self, name: str) -> Array:
        """A score in its own direction."""
        return -self.scores[name] if BUILT_IN_SCORES[name].larger_is_better else self.scores[name]

    def place(self, name: str) -> int:
        """Number of a candidate."""
        return self.truth.candidates.index(name)


def read_measured(
    tasks: Sequence[Task], candidates: Sequence[Checkpoint], folder: Path, size: str
) -> Measured:
    """The measurements of one size, of the targets that are measured on every candidate."""
    kept, files = [], []
    for task in tasks:
        paths = [folder / task.key / f"{one.name}.npz" for one in candidates]
        if all(path.exists() for path in paths):
            loaded = [_read(path, size) for path in paths]
            if loaded[0]:
                kept.append(task)
                files.append(loaded)
    if not kept:
        raise SystemExit(f"No target of {folder} is measured on all {len(candidates)} candidates at {size}.")
    own = np.array([[task.name in one.tasks for one in candidates] for task in kept])

    def stacked(key: str) -> Array:
        return np.array([[np.asarray(f[key], np.float64) for f in row] for row in files])

    errors = np.where(own[:, :, None], np.nan, stacked("error"))
    truth = GroundTruth(
        errors=errors,
        n_test=np.array([float(row[0]["n_test"]) for row in files]),
        candidates=tuple(one.name for one in candidates),
        sources=tuple(task.source for task in kept),
    )
    scores = {
        name: (-1 if BUILT_IN_SCORES[name].larger_is_better else 1) * stacked(name)
        for name in BUILT_IN_SCORES
    }
    return Measured(
        size=size,
        tasks=tuple(kept),
        candidates=tuple(candidates),
        truth=truth,
        scores=scores,
        outcomes=[[np.asarray(f["outcomes"], np.float64) for f in row] for row in files],
        seconds=stacked("read_seconds"),
        score_seconds={name: stacked(f"{name}/seconds") for name in BUILT_IN_SCORES},
        parameters=np.array([_parameters(one.path) for one in candidates], np.float64),
    )


def _read(path: Path, size: str) -> dict[str, NDArray[np.generic]]:
    with np.load(path) as file:
        found = {
            name.removeprefix(f"{size}/"): file[name] for name in file.files if name.startswith(f"{size}/")
        }
        return found | {"read_seconds": file["read_seconds"]} if found else {}


def _parameters(path: Path) -> int:
    """Weights of a checkpoint without its head, as its file's header says."""
    head = json.loads(path.read_text(encoding="utf-8"))["pretrained_cfg"].get("classifier", "classifier")
    with safe_open(path.with_suffix(".safetensors"), "np") as file:
        names = [name for name in file.keys() if not name.startswith(f"{head}.")]  # noqa: SIM118
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)


@dataclass(frozen=True)
class Embedded:
    """Embeddings under one probe.

    Attributes:
        sources: Of training sets, by name.
        whole: Of each target's images, all of them.
        splits: Of each split's training images, per target.
        domain: Mean features ``(n_splits, d)`` of the same, per target.
        domain_sources: Mean features of training sets: of those of their tasks that are targets, all alike.
        seconds: Of embedding each split's training images, ``(n_tasks, n_splits)``; NaN where not recorded.
    """

    sources: dict[str, TaskEmbedding]
    whole: list[TaskEmbedding]
    splits: list[list[TaskEmbedding]]
    domain: list[Array]
    domain_sources: dict[str, Array]
    seconds: Array | None = None


def read_embedded(measured: Measured, folder: Path) -> Embedded:
    """The embeddings of the targets at one size, and of the candidates' training sets."""
    size = measured.size
    experts = [one for one in measured.candidates if one.origin]
    sources = {
        one.origin: TaskEmbedding.load(folder / "sources" / f"{one.origin}.safetensors")
        for one in experts
        if one.origin is not None
    }
    means = {}
    for one in experts:
        assert one.origin is not None
        places = [folder / name.replace("/", "__") / "domain.npz" for name in one.tasks]
        parts = [np.load(place)["whole"] for place in places if place.exists()]
        means[one.origin] = np.mean(parts, axis=0)
    whole, splits, domain, seconds = [], [], [], []
    for task in measured.tasks:
        place = folder / task.key
        whole.append(TaskEmbedding.load(place / "whole.safetensors"))
        splits.append([TaskEmbedding.load(place / f"{size}-{s}.safetensors") for s in range(N_SPLITS)])
        seconds.append([_seconds(place / f"{size}-{s}.seconds") for s in range(N_SPLITS)])
        with np.load(place / "domain.npz") as file:
            domain.append(np.stack([file[f"{size}-{s}"] for s in range(N_SPLITS)]))
    return Embedded(sources, whole, splits, domain, means, np.array(seconds))


def _seconds(path: Path) -> float:
    """What was recorded beside an embedding; NaN where nothing was."""
    return float(path.read_text(encoding="utf-8")) if path.exists() else float("nan")
