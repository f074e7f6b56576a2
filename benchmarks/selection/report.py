"""The rows of the table, and the table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.selection.policies import (
    alternating,
    available,
    combined,
    domain_distances,
    effects,
    embedding_distances,
    learned_distances,
    levelled,
    random_shortlist,
    refined,
    tie_broken,
)
from benchmarks.selection.pool import Array, Embedded, Measured
from t2v_hub.judging import Judge, Row, rows
from t2v_hub.scores import SCORES
from t2v_hub.selector.outcomes import Outcomes, tie_groups

LOADED = (1, 3, 5)
SECOND = ("ridge_loss", "logme")
"""Scores that are judged behind every first stage."""


def free_rows(judge: Judge, measured: Measured) -> Iterator[Row]:
    """What needs no look at the target."""
    yield rows.oracle(judge)
    yield rows.noise_floor(judge)
    yield rows.chance(judge)
    yield rows.best_constant(judge, leave="task")
    yield rows.best_constant(judge, leave="source")
    always = [rows.always(judge, one.name) for one in measured.candidates if one.name.endswith("in1k")]
    yield from sorted(always, key=lambda row: float(row.error.mean()))
    yield rows.mean_over_others(judge, leave="task")
    yield rows.mean_over_others(judge, leave="source")
    yield judge.scored("parameter count", -measured.parameters)


def first_stages(measured: Measured, embedded: Embedded) -> dict[str, Array]:
    """Orders of all candidates that load none; "one mean": embeddings were brought to it first."""
    level = levelled(embedded)
    return {
        "DOMAIN": domain_distances(measured, embedded),
        "symmetric": embedding_distances(measured, embedded, "symmetric"),
        "symmetric, one mean": embedding_distances(measured, level, "symmetric"),
        "asymmetric": embedding_distances(measured, embedded, "asymmetric"),
        "asymmetric, one mean": embedding_distances(measured, level, "asymmetric"),
        "MODEL2VEC, task left out": learned_distances(measured, embedded, leave="task"),
        "MODEL2VEC, one mean, task left out": learned_distances(measured, level, leave="task"),
        "MODEL2VEC, one mean, source left out": learned_distances(measured, level, leave="source"),
    }


def everything(judge: Judge, measured: Measured, found: Mapping[str, Array]) -> dict[str, Row]:
    """All rows by name; ``found`` is what `first_stages` gives."""
    result = {row.name: row for row in free_rows(judge, measured)}

    def add(name: str, scores: Array) -> None:
        result[name] = judge.scored(name, scores)

    stages = {name: available(measured, scores) for name, scores in found.items()}
    for name, scores in stages.items():
        add(name, scores)
    scores_of = {name: available(measured, scores) for name, scores in measured.scores.items()}
    n = len(measured.candidates)
    for name in SCORES:
        for k in LOADED[1:]:
            label = f"{name}, {k} at random"
            result[label] = random_shortlist(judge, label, scores_of[name], k)
        add(f"{name}, all {n}", scores_of[name])
    prior = available(measured, effects(measured, leave="source"))
    size = available(measured, -measured.parameters[None, :].repeat(len(measured.tasks), 0))
    near, learned = stages["asymmetric, one mean"], stages["MODEL2VEC, one mean, source left out"]
    parts = {"asymmetric, one mean": near, "size": size}
    label = "combined: distance, size, mean over sources"
    add(label, combined(measured, parts, mean=True))
    for score in SECOND:
        add(f"{label}, {score}; all {n}", combined(measured, parts | {score: scores_of[score]}, mean=True))
    shortlists = {
        "mean over the other sources": prior,
        "parameter count": size,
        "asymmetric + parameter count": alternating(stages["asymmetric"], size),
        "asymmetric + mean over the other sources": alternating(stages["asymmetric"], prior),
        "asymmetric, one mean + parameter count": alternating(near, size),
        "asymmetric, one mean + mean over the other sources": alternating(near, prior),
        "MODEL2VEC, one mean + mean over the other sources": alternating(learned, prior),
    }
    for name, order in shortlists.items():
        for score in SECOND:
            for k in LOADED[1:]:
                add(f"{name}, then {score} of {k}", refined(order, scores_of[score], k))
                if "mean" in name.split("+")[-1] and measured.outcomes:
                    ties = tie_broken(measured, order, scores_of[score], prior, k)
                    add(f"{name}, then {score} of {k}, ties by the mean", ties)
    return result


@dataclass(frozen=True)
class Calibration:
    """How honest the marked ties are.

    Attributes:
        inside: Share of splits in which the best candidate of the target is in the first tie group.
        share: Mean share of the candidates in that group.
        first: Share of splits in which the best candidate is the first.
        loaded: Share of splits in which it was loaded at all.
    """

    inside: float
    share: float
    first: float
    loaded: float


def calibration(measured: Measured, order: Array | None = None, k: int | None = None) -> Calibration:
    """Of the ranking by ``ridge_loss`` of all candidates, or of the first k of an order.

    The first tie group is that of `t2v_hub.selector.outcomes.tie_groups`. The best candidate of a target is that of the least mean error over the
    other splits.
    """
    loss = available(measured, measured.scores["ridge_loss"])
    errors = measured.truth.errors
    found = []
    for t, s in np.ndindex(len(measured.tasks), errors.shape[2]):
        kept = np.flatnonzero(measured.truth.available[t])
        others = [x for x in range(errors.shape[2]) if x != s]
        oracle = kept[np.argmin(errors[t, kept][:, others].mean(axis=1))]
        loaded = kept
        if order is not None:
            loaded = kept[np.argsort(order[t, kept, s], kind="stable")[:k]]
        loaded = loaded[np.argsort(loss[t, loaded, s], kind="stable")]
        tied = np.array(tie_groups([Outcomes(measured.outcomes[t][c][s]) for c in loaded])) == 1
        found.append((oracle in loaded[tied], tied.mean(), oracle == loaded[0], oracle in loaded))
    return Calibration(*(float(value) for value in np.mean(found, axis=0)))
