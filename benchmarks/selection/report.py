"""The rows of the table, and the table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.selection.costs import FREE, Costs
from benchmarks.selection.policies import (
    alternating,
    available,
    best_first,
    by_combined,
    by_index,
    domain_distances,
    effects,
    embedding_distances,
    learned_distances,
    levelled,
    random_shortlist,
    refined,
    regression,
)
from benchmarks.selection.pool import Array, Embedded, Measured
from t2v_hub.judging import Judge, Row, rows
from t2v_hub.judging.rows import Cost
from t2v_hub.scores import BUILT_IN_SCORES
from t2v_hub.selector.combined import PARTS
from t2v_hub.selector.outcomes import Outcomes, tie_groups

LOADED = (1, 3, 5)
SECOND = ("ridge_loss", "logme", "logistic_loss")
"""Scores that are judged behind every first stage, beside the combined one."""

FREE_LISTS = ("mean over the other sources", "parameter count")
"""Shortlists that need no embedding of the target."""

REGRESSION = "regression on distance, size, mean over sources"
DEFAULT = "relative + parameter count"
"""The shortlist of a ranking without recorded results."""
WITH_RESULTS = "relative + best of the other sources and parameter count"
"""The shortlist of a ranking with recorded results on other tasks: their best, and then by parameters."""


@dataclass(frozen=True)
class Judged:
    """The rows of a table by name, and what each costs for one target.

    Attributes:
        rows: In the table's order.
        costs: Of all but those that no one can have: the oracle and the noise floor.
        shortlists: Orders in which candidates are loaded.
    """

    rows: dict[str, Row]
    costs: dict[str, Cost]
    shortlists: dict[str, Array]


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
    return {
        "DOMAIN": domain_distances(measured, embedded),
        "symmetric": embedding_distances(measured, embedded, "symmetric"),
        "symmetric, one mean": embedding_distances(measured, levelled(embedded), "symmetric"),
        "asymmetric": embedding_distances(measured, embedded, "asymmetric"),
        "relative": embedding_distances(measured, embedded, "relative"),
        "MODEL2VEC, task left out": learned_distances(measured, embedded, leave="task"),
        "MODEL2VEC, source left out": learned_distances(measured, embedded, leave="source"),
    }


def everything(judge: Judge, measured: Measured, found: Mapping[str, Array]) -> Judged:
    """All rows; ``found`` is what `first_stages` gives."""
    result = {row.name: row for row in free_rows(judge, measured)}
    price = Costs(measured)
    costs = {name: FREE for name in result if name not in ("oracle", "noise floor")}

    def add(name: str, scores: Array, cost: Cost) -> None:
        result[name], costs[name] = judge.scored(name, scores), cost

    stages = {name: available(measured, scores) for name, scores in found.items()}
    for name, scores in stages.items():
        cost = Cost(0, np.nan) if name == "DOMAIN" else price.first_stage(embeds=True)
        add(name, scores, cost)  # DOMAIN's mean features were not timed
    scores_of = {name: available(measured, scores) for name, scores in measured.scores.items()}
    n = len(measured.candidates)
    for name in BUILT_IN_SCORES:
        for k in LOADED[1:]:
            label = f"{name}, {k} at random"
            result[label] = random_shortlist(judge, label, scores_of[name], k)
            costs[label] = price.at_random(k, name)
        add(f"{name}, all {n}", scores_of[name], price.everything([name]))
    results = effects(measured, leave="source")
    size_itself = available(measured, -measured.parameters[None, :].repeat(len(measured.tasks), 0))
    shortlists = _shortlists(stages, available(measured, results), by_index(size_itself))
    size = shortlists["parameter count"]
    add("parameter count, ties by index", size, FREE)
    parts = {"relative": stages["relative"], "size": size_itself}
    label = REGRESSION
    add(label, regression(measured, parts, mean=True), price.first_stage(embeds=True))
    for score in SECOND:
        both = regression(measured, parts | {score: scores_of[score]}, mean=True)
        add(f"{label}, {score}; all {n}", both, price.everything([score], embeds=True))
    every = np.where(np.isnan(size), np.nan, 0.0)
    add(f"combined, all {n}", by_combined(measured, every, n), price.everything(PARTS))
    add(f"combined with results, all {n}", by_combined(measured, every, n, results), price.everything(PARTS))
    for name, order in shortlists.items():
        embeds = name not in FREE_LISTS
        for k in LOADED[1:]:
            for score in SECOND:
                cost = price.shortlist(order, k, [score], embeds=embeds)
                add(f"{name}, then {score} of {k}", refined(order, scores_of[score], k), cost)
            cost = price.shortlist(order, k, PARTS, embeds=embeds)
            add(f"{name}, then combined of {k}", by_combined(measured, order, k), cost)
            if name in (DEFAULT, WITH_RESULTS):
                with_results = by_combined(measured, order, k, results)
                add(f"{name}, then combined with results of {k}", with_results, cost)
    # Here alone the target's source is known: from results on its other tasks.
    of_tasks = effects(measured, leave="task")
    order = alternating(stages["relative"], best_first(available(measured, of_tasks), size))
    for k in LOADED[1:]:
        row = f"relative + best of the other tasks and parameter count, then combined with results of {k}"
        add(row, by_combined(measured, order, k, of_tasks), price.shortlist(order, k, PARTS, embeds=True))
    return Judged(result, costs, shortlists)


def _shortlists(stages: Mapping[str, Array], prior: Array, size: Array) -> dict[str, Array]:
    return {
        "mean over the other sources": prior,
        "parameter count": size,
        "asymmetric + parameter count": alternating(stages["asymmetric"], size),
        DEFAULT: alternating(stages["relative"], size),
        WITH_RESULTS: alternating(stages["relative"], best_first(prior, size)),
        "relative + mean over the other sources": alternating(stages["relative"], prior),
        "MODEL2VEC + mean over the other sources": alternating(stages["MODEL2VEC, source left out"], prior),
    }


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


def calibration(measured: Measured, order: Array, k: int) -> Calibration:
    """Of a ranking that loads the first k of an order and goes by the combined score.

    The first tie group is that of `t2v_hub.selector.outcomes.tie_groups`. The best candidate of a target is that
    of the least mean error over the other splits.
    """
    ranked = by_combined(measured, order, k)
    placed = by_index(order)
    errors = measured.truth.errors
    found = []
    for t, s in np.ndindex(len(measured.tasks), errors.shape[2]):
        kept = np.flatnonzero(measured.truth.available[t])
        others = [x for x in range(errors.shape[2]) if x != s]
        oracle = kept[np.argmin(errors[t, kept][:, others].mean(axis=1))]
        loaded = kept[placed[t, kept, s] < k]
        loaded = loaded[np.argsort(ranked[t, loaded, s], kind="stable")]
        tied = np.array(tie_groups([Outcomes(measured.outcomes[t][c][s]) for c in loaded])) == 1
        found.append((oracle in loaded[tied], tied.mean(), oracle == loaded[0], oracle in loaded))
    return Calibration(*(float(value) for value in np.mean(found, axis=0)))
