"""`Experience`: how checkpoints did on other tasks, from the errors that the user recorded."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import CatalogFileError
from t2v_hub.selector.effects import Errors
from t2v_hub.selector.expectation import Expectation
from t2v_hub.selector.ranked import RankedCandidate


@dataclass(frozen=True, eq=False)
class Experience:
    """What the errors on other tasks say of checkpoints; the first thing that a prior goes by.

    Attributes:
        effects: Of each checkpoint that was measured beside others, its effect on the error, in standard
            deviations of a task's errors; negative is better, 0 is the average.
        tasks: On which tasks, by their ids in lower case.
        skipped: What could not be read, in words.
        errors: The table that says so; None where there is none.
    """

    effects: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    errors: Errors | None = None

    @classmethod
    def of(cls, catalog: Catalog, target: TaskEmbedding) -> Self:
        """What a catalog's results with the origin ``run`` say, without those on the target.

        Left out are results on the target (by its id, whatever the case, or by the very embedding), those of
        a checkpoint on a task that it was trained on, and then tasks with one checkpoint. Results that cannot
        be read are named in ``skipped``: there is then no experience.

        Args:
            catalog: The candidates and the results.
            target: The task at hand.
        """
        try:
            results = catalog.results(origin="run")
        except CatalogFileError as error:
            return cls(skipped=(str(error),))
        return cls.from_results(not_own(results, catalog), without=(target.task.id, target.digest))

    @classmethod
    def from_results(cls, results: Iterable[Result], *, without: Collection[str] = ()) -> Self:
        """What some results say, without tasks that have one checkpoint.

        Args:
            results: None of a checkpoint on what it was trained on, see `not_own`.
            without: Ids of tasks, and digests of embeddings, on which results do not count.
        """
        left_out = {name.casefold() for name in without}
        errors = Errors.of(
            result
            for result in results
            if result.task.casefold() not in left_out and result.embedding not in left_out
        )
        effects = errors.fit().effects if errors.names else ()
        return cls(dict(zip(errors.names, map(float, effects), strict=True)), errors.tasks_of, errors=errors)

    def n_tasks(self, checkpoint: str) -> int:
        """On how many tasks a checkpoint was measured beside others."""
        return len(self.tasks.get(checkpoint, ()))

    def n_tasks_of(self, candidates: Iterable[Candidate]) -> int:
        """On how many tasks any of these was."""
        return len(frozenset().union(*(self.tasks.get(candidate.id, ()) for candidate in candidates)))

    @cached_property
    def expectation(self) -> Expectation | None:
        """What errors the results let one expect on another task; None of fewer than three tasks."""
        return None if self.errors is None else Expectation.of(self.errors)

    def prior(self, candidate: Candidate) -> tuple[float, int, float, int]:
        """What is known without looking at the task, larger is better: effect, then `Candidate.prior`.

        A checkpoint without recorded errors counts as the average of those that have some.
        """
        return (-self.effects.get(candidate.id, 0.0), *candidate.prior)

    def by_prior(self, candidate: Candidate) -> tuple[float, int, float, int, str]:
        """Sorts candidates, the highest prior first; of equal ones by id."""
        effect, parameters, accuracy, downloads = self.prior(candidate)
        return -effect, -parameters, -accuracy, -downloads, candidate.id

    def marked(self, item: RankedCandidate) -> RankedCandidate:
        """A ranked candidate that says what is known of it, and what error that lets one expect."""
        id = item.candidate.id
        if id not in self.effects:
            return item
        known = replace(item, experience=self.effects[id], n_experience=self.n_tasks(id))
        return known if self.expectation is None else with_expected(known, self.expectation)


NO_EXPERIENCE = Experience()


def with_expected(item: RankedCandidate, expectation: Expectation) -> RankedCandidate:
    """A ranked candidate with the error that one may expect of it, where any is known."""
    expected = expectation.of_checkpoint(item.candidate.id)
    if expected is None:
        return item
    return replace(
        item,
        predicted_error=expected.error,
        predicted_interval=expected.interval,
        predicted_from="loaded candidates" if expectation.n_anchors else "other tasks",
    )


def not_own(results: Iterable[Result], catalog: Catalog) -> tuple[Result, ...]:
    """The results without those of a candidate on what it was trained on (`Candidate.was_trained_on`)."""
    return tuple(
        result
        for result in results
        if result.checkpoint not in catalog
        or not catalog[result.checkpoint].was_trained_on(result.task, result.embedding)
    )
