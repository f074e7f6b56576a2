"""The ways to select that are judged: each gives scores, smaller is better, per target, candidate and split."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.selection.pool import Array, Embedded, Measured
from t2v_hub import TaskEmbedding
from t2v_hub.distance import DistanceName, distances
from t2v_hub.distance.formulas import level_of, of_mean
from t2v_hub.judging import Judge, Row
from t2v_hub.model2vec import Model2Vec
from t2v_hub.selector.combined import PARTS, combined
from t2v_hub.selector.effects import Cell, additive_effects

BEHIND = 1e6
"""Put behind all that have a distance."""


def by_source(measured: Measured, of_sources: Mapping[str, Array]) -> Array:
    """Distances of candidates from those of their training sets, ``(n_tasks, n_splits)`` each.

    Candidates without a known training set come behind, as in a ranking; equal ones by size, larger first.
    """
    n_tasks, n_candidates, n_splits = measured.truth.errors.shape
    result = np.full((n_tasks, n_candidates, n_splits), BEHIND)
    for c, one in enumerate(measured.candidates):
        if one.origin is not None:
            result[:, c] = of_sources[one.origin]
    larger = np.argsort(np.argsort(-measured.parameters, kind="stable"), kind="stable")
    return result + 1e-9 * larger[:, None]


def embedding_distances(measured: Measured, embedded: Embedded, name: DistanceName) -> Array:
    """`t2v_hub.distance` from training sets to each split's training images."""
    names = list(embedded.sources)
    matrix = np.stack([embedded.sources[n].fisher for n in names])
    rows = np.array([[distances(t, matrix, name=name) for t in row] for row in embedded.splits])
    return by_source(measured, {n: rows[:, :, i] for i, n in enumerate(names)})


def levelled(embedded: Embedded) -> Embedded:
    """All embeddings brought to one mean, as the distance ``relative`` does by itself.

    With many classes and few images of each, a head says little, and the whole embedding is small; the shares
    of a filter in two tasks then say which task has more classes.
    """

    def moved(one: TaskEmbedding) -> TaskEmbedding:
        rows = of_mean(one.fisher.astype(np.float64)[None, :], level_of(one))
        return replace(one, fisher=rows[0].astype(np.float32))

    return replace(
        embedded,
        sources={name: moved(one) for name, one in embedded.sources.items()},
        whole=[moved(one) for one in embedded.whole],
        splits=[[moved(one) for one in row] for row in embedded.splits],
    )


def domain_distances(measured: Measured, embedded: Embedded) -> Array:
    """Cosine distance of mean features; labels are not used."""
    result = {}
    for name, mean in embedded.domain_sources.items():
        rows = [d @ mean / (np.linalg.norm(d, axis=1) * np.linalg.norm(mean)) for d in embedded.domain]
        result[name] = 1 - np.array(rows)
    return by_source(measured, result)


def learned_distances(measured: Measured, embedded: Embedded, *, leave: str, bias: str = "filter") -> Array:
    """MODEL2VEC, fitted to the other tasks' mean errors; ``leave`` the task out, or all of its source.

    The fit sees whole other tasks; the target is what one split's training images make of it.
    """
    errors = measured.truth.mean
    groups = [t.name if leave == "task" else t.source for t in measured.tasks]
    names = measured.truth.candidates
    sources = {one.name: embedded.sources.get(one.origin or "") for one in measured.candidates}
    result = np.full(measured.truth.errors.shape, np.nan)
    for group in dict.fromkeys(groups):
        outside = [t for t, g in enumerate(groups) if g != group]
        model = Model2Vec.fit(
            [embedded.whole[t] for t in outside],
            errors[outside],
            candidates=names,
            sources=sources,
            bias=bias,  # type: ignore[arg-type]
            groups=[groups[t] for t in outside],
        )
        for t, g in enumerate(groups):
            if g == group:
                result[t] = np.stack([model.distances(e) for e in embedded.splits[t]], axis=1)
    return result


def places(scores: Array) -> Array:
    """Places from 0 within each target and split; equal ones share, and what is absent is last."""
    filled = np.where(np.isnan(scores), np.inf, scores)
    moved = np.moveaxis(filled, 1, -1)
    result = (moved[..., None] > moved[..., None, :]).sum(axis=-1)
    return np.moveaxis(result, -1, 1).astype(np.float64)


def available(measured: Measured, scores: Array) -> Array:
    """Scores per split, NaN where a candidate is left out."""
    shape = measured.truth.errors.shape
    full = np.broadcast_to(scores if scores.ndim == 3 else np.atleast_2d(scores)[..., None], shape).copy()
    full[~measured.truth.available] = np.nan
    return full


def alternating(*orders: Array) -> Array:
    """Candidates taken from several orders in turn, as a shortlist takes them."""
    n = orders[0].shape[1]
    result = np.full(orders[0].shape, np.nan)
    ranked = [np.argsort(np.where(np.isnan(o), np.inf, o), axis=1, kind="stable") for o in orders]
    for t in range(result.shape[0]):
        for s in range(result.shape[2]):
            place, seen = 0, set[int]()
            for step in range(n):
                for order in ranked:
                    c = int(order[t, step, s])
                    if c not in seen:
                        seen.add(c)
                        result[t, c, s] = place
                        place += 1
    result[np.isnan(orders[0])] = np.nan
    return result


def by_index(scores: Array) -> Array:
    """Places from 0, equal ones in the order of the pool; NaN where a candidate is left out."""
    ranked = np.argsort(np.where(np.isnan(scores), np.inf, scores), axis=1, kind="stable")
    return np.where(np.isnan(scores), np.nan, np.argsort(ranked, axis=1).astype(np.float64))


def best_first(one: Array, other: Array) -> Array:
    """The first of one order, and then the other order."""
    return np.where(by_index(one) == 0, -1.0, by_index(other))


def refined(first: Array, second: Array, k: int) -> Array:
    """The first k of one order, by another; the rest behind in the first's order.

    No more than k: equal ones are taken in the order of the pool. By parameters, all experts of a base are
    equal.
    """
    loaded = by_index(first) < k
    by_second = places(np.where(loaded, second, np.nan))
    return np.where(np.isnan(first), np.nan, np.where(loaded, by_second, 1e3 + places(first)))


def by_combined(measured: Measured, first: Array, k: int, effects: Array | None = None) -> Array:
    """The first k of one order, by the combined score of `t2v_hub.selector.combined`; the rest behind.

    Args:
        measured: The scores.
        first: The order, ``(n_tasks, n_candidates, n_splits)``.
        k: How many are loaded.
        effects: Of candidates on the errors of other tasks, ``(n_tasks, n_candidates)``; none by default.
    """
    loaded = by_index(first) < k
    second = np.full(first.shape, np.nan)
    for t, s in np.ndindex(first.shape[0], first.shape[2]):
        kept = np.flatnonzero(loaded[t, :, s])
        parts = [{name: float(measured.raw_score(name)[t, c, s]) for name in PARTS} for c in kept]
        own = None if effects is None else effects[t, kept].tolist()
        second[t, kept, s] = -np.array(combined(parts, own))
    return refined(first, second, k)


def random_shortlist(judge: Judge, name: str, second: Array, k: int) -> Row:
    """A score alone: k candidates drawn at random are loaded, and the best of them by the score is taken.

    Of n candidates the one at place r (from 0) is the best of k random ones with probability
    ``C(n - 1 - r, k - 1) / C(n, k)``; equal ones share theirs.
    """
    picks = np.zeros(second.shape)
    for t, s in np.ndindex(second.shape[0], second.shape[2]):
        kept = np.flatnonzero(judge.truth.available[t])
        values = np.nan_to_num(second[t, kept, s], nan=np.inf)
        n = len(kept)
        by_place = np.array([math.comb(n - 1 - r, min(k, n) - 1) for r in range(n)]) / math.comb(n, min(k, n))
        order = np.argsort(values, kind="stable")
        group = np.unique(values, return_inverse=True)[1]
        shared = np.bincount(group, by_place[np.argsort(order)]) / np.bincount(group)
        picks[t, kept, s] = shared[group]
    return judge.drawn(name, picks)


def effects(measured: Measured, *, leave: str, without: str | None = None) -> Array:
    """What errors on the other tasks (or the other sources' tasks) say of each candidate, as in a ranking.

    By `t2v_hub.selector.effects.additive_effects`, each error counting alike; 0, the average, for a candidate
    without any. ``without`` leaves a further source out for all targets.
    """
    errors = measured.truth.mean
    known = measured.truth.available
    usable = (known.sum(axis=1) > 1) & np.array([source != without for source in measured.sources])
    groups = np.array([t.name if leave == "task" else t.source for t in measured.tasks])
    result = np.zeros(errors.shape)
    for group in dict.fromkeys(groups):
        others = np.flatnonzero((groups != group) & usable)
        cells = [
            Cell(row, int(c), errors[t, c]) for row, t in enumerate(others) for c in np.flatnonzero(known[t])
        ]
        if cells:
            result[groups == group] = additive_effects(cells, n_rows=len(others), n_columns=errors.shape[1])
    return result


def regression(measured: Measured, parts: Mapping[str, Array], *, mean: bool, strength: float = 1.0) -> Array:
    """Predicted standardised errors: ridge regression on standardised parts, learned on the other sources.

    ``mean`` adds the mean over the other sources; to those that are learned from, it is the mean over
    sources that are neither theirs nor the target's. Each part is centred and scaled within target and split; what a candidate lacks counts as average, and
    that it lacks it is a part of its own.
    """
    errors = measured.truth.errors
    y = _standard(errors)
    known = ~np.isnan(y)
    fixed = [column for values in parts.values() for column in _columns(measured, values)]
    result = np.full(errors.shape, np.nan)
    for source in dict.fromkeys(measured.sources):
        own = np.array([s == source for s in measured.sources])
        means = _columns(measured, effects(measured, leave="source", without=source)) if mean else []
        x = np.stack([*fixed, *means], axis=-1)  # (n_tasks, n_candidates, n_splits, n_parts)
        a, b = x[~own][known[~own]], y[~own][known[~own]]
        design = np.column_stack([a, np.ones(len(a))])
        penalty = np.diag([strength] * a.shape[1] + [0.0])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ b)
        result[own] = x[own] @ weights[:-1] + weights[-1]
    result[~known] = np.nan
    return result


def _standard(values: Array) -> Array:
    """Centred and scaled within target and split."""
    centred = values - np.nanmean(values, axis=1, keepdims=True)
    result: Array = centred / (np.nanstd(values, axis=1, keepdims=True) + 1e-12)
    return result


def _columns(measured: Measured, values: Array) -> list[Array]:
    """A part as columns of the regression."""
    full = available(measured, values)
    full = np.where(np.abs(full) >= BEHIND / 2, np.nan, full)
    absent = np.isnan(full)
    lacking = absent & measured.truth.available[:, :, None]
    standard = np.where(absent, 0.0, _standard(full))
    return [standard, lacking.astype(np.float64)] if lacking.any() else [standard]
