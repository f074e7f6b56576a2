"""What decides the first stage: probe, head, estimator, distance, layers, weight of t₀, number of images.

Only experts count here, whose training sets are known, and of each target's experts those of one base at a
time: so nothing but the choice of the training set is judged.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.selection.experts import SMALL
from benchmarks.selection.pool import Array, Measured
from benchmarks.selection.tasks import N_SPLITS
from t2v_hub import TaskEmbedding
from t2v_hub.distance import ALPHA, distances
from t2v_hub.distance.formulas import of_mean, symmetric
from t2v_hub.judging import GroundTruth, Judge, Row

Distance = Callable[[list[TaskEmbedding], TaskEmbedding], Array]


def named(name: str, alpha: float = ALPHA) -> Distance:
    return lambda sources, target: distances(target, _matrix(sources), name=name, alpha=alpha)  # type: ignore[arg-type]


def _matrix(sources: Sequence[TaskEmbedding]) -> Array:
    return np.stack([one.fisher.astype(np.float64) for one in sources])


def mean_one(sources: list[TaskEmbedding], target: TaskEmbedding) -> Array:
    """Symmetric, both vectors first brought to mean 1."""
    rows = _matrix(sources)
    return symmetric(of_mean(rows, 1.0), of_mean(_matrix([target]), 1.0))


def log_cosine(sources: list[TaskEmbedding], target: TaskEmbedding) -> Array:
    rows = np.log(np.vstack([_matrix(sources), target.fisher]) + 1e-30)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return 1 - rows[:-1] @ rows[-1]


def robust(beta: float, alpha: float = ALPHA, *, level: float | None = None) -> Distance:
    """Asymmetric under another weight of the prior; with a level, Fisher vectors first brought to that mean."""

    def function(sources: list[TaskEmbedding], target: TaskEmbedding) -> Array:
        rows, other, prior = _matrix(sources), _matrix([target]), target.prior_precision[None, :]
        if level is not None:
            rows, other = of_mean(rows, level), of_mean(other, level)
        rows, other = rows / (2 * beta) + prior, other / (2 * beta) + prior
        return symmetric(rows, other) - alpha * symmetric(rows, prior)

    return function


def layers(part: slice) -> Distance:
    """Asymmetric, of a part of the filters only, which stand from the first layer to the last."""

    def function(sources: list[TaskEmbedding], target: TaskEmbedding) -> Array:
        rows, other = _matrix(sources)[:, part], _matrix([target])[:, part]
        beta = target.space.beta
        rows, other, prior = rows / (2 * beta), other / (2 * beta), target.prior_precision[None, part]
        return symmetric(rows + prior, other + prior) - ALPHA * symmetric(rows + prior, prior)

    return function


def table(n_filters: int) -> dict[str, Distance]:
    """Distances to compare on the same embeddings."""
    third = n_filters // 3
    result: dict[str, Distance] = {
        "symmetric": named("symmetric"),
        "symmetric, both of mean 1": mean_one,
        "log-Fisher cosine": log_cosine,
        "normalized_cosine": named("normalized_cosine"),
        "correlation": named("correlation"),
    }
    for alpha in (0.0, 0.05, 0.15, 0.3, 0.6):
        result[f"asymmetric, alpha {alpha}"] = named("asymmetric", alpha)
    for exponent in (-7, -8, -10, -11):
        result[f"asymmetric, beta 1e{exponent}"] = robust(10.0**exponent)
    for exponent in (-2, -4, -6, -7, -8):
        result[f"asymmetric, both of mean 1e{exponent}"] = robust(1e-9, level=10.0**exponent)
    for alpha in (0.0, 0.3):
        result[f"asymmetric, both of mean 1e-4, alpha {alpha}"] = robust(1e-9, alpha, level=1e-4)
    for k, name in enumerate(("first", "middle", "last")):
        result[f"asymmetric, {name} third of the filters"] = layers(slice(k * third, (k + 1) * third))
    return result


def embedded(measured: Measured, folder: Path, n_splits: int = N_SPLITS) -> Measured | None:
    """The targets whose splits are all embedded in a folder; None where there is none."""
    names = [f"{measured.size}-{s}.safetensors" for s in range(n_splits)]
    kept = [all((folder / task.key / name).exists() for name in names) for task in measured.tasks]
    places = np.flatnonzero(kept)
    if not len(places):
        return None
    truth = replace(
        measured.truth,
        errors=measured.truth.errors[places],
        n_test=measured.truth.n_test[places],
        sources=tuple(measured.sources[place] for place in places),
    )
    return replace(measured, tasks=tuple(measured.tasks[place] for place in places), truth=truth)


def judged(
    measured: Measured, folder: Path, chosen: dict[str, Distance] | None = None, n_splits: int = N_SPLITS
) -> Iterator[tuple[str, Row, Judge]]:
    """Rows of every distance on one folder of embeddings, over the bases of the experts."""
    origins = sorted({one.origin for one in measured.candidates if one.origin})
    sources = [TaskEmbedding.load(folder / "sources" / f"{origin}.safetensors") for origin in origins]
    targets = [
        [TaskEmbedding.load(folder / task.key / f"{measured.size}-{s}.safetensors") for s in range(n_splits)]
        for task in measured.tasks
    ]
    judge = Judge(expert_truth(measured, origins, n_splits))
    for name, distance in (chosen or table(sources[0].space.n_filters)).items():
        scores = np.array([[distance(sources, one) for one in row] for row in targets]).transpose(0, 2, 1)
        yield name, judge.scored(name, np.concatenate([scores, scores])), judge
    yield "chance", judge.scored("chance", np.zeros(len(origins))), judge


def expert_truth(measured: Measured, origins: Sequence[str], n_splits: int) -> GroundTruth:
    """Errors of the experts, targets × training sets, once for the large base and once for the small one."""
    parts = []
    for small in (False, True):
        place = {
            one.origin: c
            for c, one in enumerate(measured.candidates)
            if one.origin and (one.base == SMALL) == small
        }
        parts.append(measured.truth.errors[:, [place[origin] for origin in origins], :n_splits])
    n_test = np.concatenate([measured.truth.n_test] * 2)
    return GroundTruth(np.concatenate(parts), n_test, tuple(origins), measured.sources * 2)
