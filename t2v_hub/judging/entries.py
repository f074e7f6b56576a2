"""`Entry`: a row of a benchmark's table; which rows there are for a pool."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from t2v_hub.distance import DistanceName
from t2v_hub.judging import rows
from t2v_hub.judging.metrics import Figures, Judge, Row

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate
    from t2v_hub.judging.evidence import Evidence
    from t2v_hub.judging.nearness import Nearness

Kind = Literal["reference", "free", "task-aware"]
"""What a row reads: ``free`` ones read no data of the task at hand, ``task-aware`` ones its embedding."""

LEAST_FOR_MODEL2VEC = 4
"""Groups of tasks: one is left out, and its cross-validation needs three."""

_FACTS = (
    ("parameter count", "parameters"),
    ("upstream accuracy", "upstream_accuracy"),
    ("downloads", "downloads"),
)


_DISTANCES: tuple[DistanceName, ...] = ("relative", "asymmetric", "symmetric")
"""What rankings go by unless told otherwise, the paper's, and that without a complexity term."""


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        row: The policy as it was judged.
        kind: What it reads.
        figures: What the table shows of it.
    """

    row: Row
    kind: Kind
    figures: Figures

    @property
    def name(self) -> str:
        """Of the policy."""
        return self.row.name


def references(judge: Judge, *, cross_fit: bool) -> list[Row]:
    """Oracle, noise floor and chance.

    Without cross-fitting the oracle is itself the luckiest of the candidates, so there is no floor to show.
    """
    return [rows.oracle(judge), *([rows.noise_floor(judge)] if cross_fit else []), rows.chance(judge)]


def free(
    judge: Judge, candidates: Sequence["Candidate"], *, leave: rows.Leave
) -> tuple[list[Row], list[str]]:
    """Rows that read no data of the task at hand, and which facts are not known, in words."""
    found = [rows.best_constant(judge, leave=leave), rows.mean_over_others(judge, leave=leave)]
    notes = []
    if any(candidate.has_prior for candidate in candidates):
        found.append(_best_known(judge, candidates))
    for name, fact in _FACTS:
        values = [getattr(candidate, fact) for candidate in candidates]
        n_known = sum(value is not None for value in values)
        if n_known < len(values):
            notes.append(f"{name}: known of {n_known} of {len(values)} candidates")
        if n_known:
            scores = [math.nan if value is None else float(value) for value in values]
            found.append(judge.scored(name, scores, higher_is_better=True))
    return found, notes


def task_aware(
    judge: Judge,
    evidence: "Evidence",
    near: "Nearness",
    candidates: Sequence["Candidate"],
    *,
    model2vec: bool,
) -> tuple[list[Row], list[str]]:
    """Rows that read the tasks' embeddings, and why one is missing, in words."""
    found = [judge.scored(name, near.scores(candidates, name=name)) for name in _DISTANCES]
    if not model2vec:
        return found, []
    if evidence.n_groups < LEAST_FOR_MODEL2VEC:
        lack = f"MODEL2VEC needs {LEAST_FOR_MODEL2VEC} of them to learn from; there are {evidence.n_groups}"
        return found, [lack]
    from t2v_hub.model2vec import Model2Vec

    names = evidence.truth.candidates
    learned = Model2Vec.leave_one_out(
        list(near.tasks.values()),
        evidence.truth.mean,
        candidates=names,
        sources={name: near.source_of(c) for c, name in enumerate(names)},
        groups=evidence.truth.sources,
    )
    return [*found, judge.scored("MODEL2VEC", learned)], []


def _best_known(judge: Judge, candidates: Sequence["Candidate"]) -> Row:
    """The candidate of the highest prior, whatever the task; where left out, the next one."""
    order = sorted(range(len(candidates)), key=lambda c: candidates[c].prior, reverse=True)
    available = judge.truth.available
    choice = np.array([next(c for c in order if available[t, c]) for t in range(len(available))])
    name = f"always {candidates[order[0]].id}"
    return judge.chosen(name if len(set(choice)) == 1 else f"{name}, or the next", choice)
