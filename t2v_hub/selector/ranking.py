"""`Ranking`: candidates, best first, and how sure their order is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, overload

from t2v_hub.distance import WITH_COMPLEXITY, DistanceName
from t2v_hub.embedding import Json, Space, TaskInfo
from t2v_hub.errors import MissingDependencyError, SettingsError
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.plain import EMPTY, item_to_dict, origin_to_dict, refinement_to_dict
from t2v_hub.selector.ranked import RankedCandidate
from t2v_hub.selector.second_stage import Refinement

if TYPE_CHECKING:
    import pandas

SCHEMA = "t2v-ranking/1"

RankedBy = DistanceName | Literal["model2vec"]
"""By which distance a ranking was made; ``model2vec``: a learned one."""


@dataclass(frozen=True, repr=False)
class Ranking(Sequence[RankedCandidate]):
    """Candidates, best first; an immutable sequence that prints as a table.

    Attributes:
        items: The candidates with their places.
        task: The task at hand.
        space: The space in which it was compared.
        distance: Name of the distance.
        alpha: Weight of the complexity term, where the distance has one.
        n_considered: Candidates in the catalog.
        n_filtered: Those that ``where`` left out.
        n_without_embedding: Those of the rest without a readable embedding in the space, and without a
            learned distance; they come after all others, by prior.
        n_tied_beyond: Candidates after the last that cannot be told apart from the last group.
        skipped: What could not be read, in words.
        n_measured: Images of the task that were measured, of the ``task.n_samples`` in the data set;
            None where it is not known.
        origin: Where the candidates come from; None where a catalog was given.
        n_learned_from: Checkpoints from whose measured errors the distance ``model2vec`` was learned; None
            for other distances.
        n_learned_tasks: On how many tasks these errors were measured; 0 where an older file does not say.
        n_experience: Other tasks with recorded errors of these candidates, by which the prior goes first.
        refinement: What the second stage did; None where no candidate was to be loaded.
    """

    items: tuple[RankedCandidate, ...]
    task: TaskInfo
    space: Space
    distance: RankedBy
    alpha: float
    n_considered: int
    n_filtered: int = 0
    n_without_embedding: int = 0
    n_tied_beyond: int = 0
    skipped: tuple[str, ...] = ()
    n_measured: int | None = None
    origin: Origin | None = None
    n_learned_from: int | None = None
    n_learned_tasks: int | None = None
    n_experience: int = 0
    refinement: Refinement | None = None

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> RankedCandidate: ...
    @overload
    def __getitem__(self, index: slice) -> "Ranking": ...
    def __getitem__(self, index: int | slice) -> "RankedCandidate | Ranking":
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __str__(self) -> str:
        from t2v_hub.selector.words import table

        return table(self)

    def __repr__(self) -> str:
        best = f", best={self.items[0].candidate.id!r}" if self.items else ""
        return f"Ranking(task={self.task.id!r}, n_candidates={len(self)}{best})"

    @property
    def has_alpha(self) -> bool:
        """Whether alpha times the complexity of the source is taken off its distances."""
        return self.distance == "model2vec" or self.distance in WITH_COMPLEXITY

    def explain(self, i: int = 0) -> str:
        """Why ``ranking[i]`` stands where it stands, in words, and what would change that.

        Args:
            i: Counts from 0, as indices do: the best is 0. (``t2v rank --explain`` counts from 1.)

        Raises:
            SettingsError: ``i`` is no whole number from 0 to ``len(ranking) - 1``.
        """
        from t2v_hub.selector.words import explanation

        if not self.items:
            raise SettingsError("There is nothing to explain: no candidate is in this ranking.")
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(self):
            raise SettingsError(
                f"explain counts from 0: i must be a whole number from 0 (the best) to {len(self) - 1}, not "
                f"{i!r}."
            )
        return explanation(self, i)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Ids of the candidates, best first."""
        return tuple(item.candidate.id for item in self.items)

    @property
    def choices(self) -> tuple[str, ...]:
        """Ids of the candidates, sorted; the same for every ranking of the same candidates."""
        return tuple(sorted(self.ranked))

    @property
    def n_loaded(self) -> int:
        """How many candidates the second stage loaded; they come first."""
        return 0 if self.refinement is None else self.refinement.n_loaded

    @property
    def failed(self) -> Mapping[str, str]:
        """Why a candidate could not be loaded, by its id; it keeps its place after those that could."""
        return {} if self.refinement is None else self.refinement.failed

    @property
    def weights(self) -> tuple[float, ...]:
        """How much of a search each candidate deserves, aligned with `ranked`; they sum to 1.

        ``1/place`` for places 1, 2, 3 …, averaged over each tie group and divided by the sum: equal
        inside a tie group, smaller from group to group, never 0. They say what is worth trying
        first; they are no probabilities of being best.
        """
        totals: dict[int, list[float]] = {}
        for place, item in enumerate(self.items, start=1):
            totals.setdefault(item.tie_group, []).append(1.0 / place)
        means = {group: math.fsum(shares) / len(shares) for group, shares in totals.items()}
        raw = [means[item.tie_group] for item in self.items]
        total = math.fsum(raw)
        return tuple(weight / total for weight in raw)

    def to_dict(self) -> dict[str, Json]:
        """The ranking as plain values that JSON can hold; what is not known or not finite is None.

        The schema is named by ``schema``; fields may join it, none changes its meaning under one name.
        """
        return {
            "schema": SCHEMA,
            "task": {
                "id": self.task.id,
                "config": self.task.config,
                "split": self.task.split,
                "revision": self.task.revision,
                "n_samples": self.task.n_samples,
                "n_measured": self.n_measured,
                "n_classes": self.task.n_classes,
            },
            "space": self.space.id,
            "probe": self.space.probe,
            "distance": self.distance,
            "alpha": self.alpha if self.has_alpha else None,
            "n_considered": self.n_considered,
            "n_filtered": self.n_filtered,
            "n_without_embedding": self.n_without_embedding,
            "n_tied_beyond": self.n_tied_beyond,
            "origin": None if self.origin is None else origin_to_dict(self.origin),
            "skipped": list(self.skipped),
            "n_learned_from": self.n_learned_from,
            "n_learned_tasks": self.n_learned_tasks,
            "n_experience": self.n_experience,
            "refinement": None if self.refinement is None else refinement_to_dict(self.refinement),
            "candidates": [
                item_to_dict(item, weight) for item, weight in zip(self.items, self.weights, strict=True)
            ],
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per candidate, with the fields of `to_dict`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise MissingDependencyError(
                "Ranking.to_pandas needs pandas, which is not installed: pip install 't2v-hub[pandas]'. "
                "Ranking.to_dict needs nothing."
            ) from error
        columns = item_to_dict(EMPTY, 0.0).keys()
        rows = [item_to_dict(item, weight) for item, weight in zip(self.items, self.weights, strict=True)]
        return pandas.DataFrame(rows, columns=list(columns))
