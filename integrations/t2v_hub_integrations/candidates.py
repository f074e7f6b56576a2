"""`Candidates`: what every adapter takes from a ranking."""

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from t2v_hub import Candidate, ModelSelector, RankedCandidate, Ranking
from t2v_hub.errors import CandidateNotFoundError, EmptyCatalogError, FewCandidatesWarning, SettingsError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Candidates:
    """The first candidates of a ranking, as a search needs them.

    Attributes:
        ranking: The ranking that they are the first of, best first; never empty.
    """

    ranking: Ranking

    @classmethod
    def of(
        cls, selection: "Candidates | Ranking | ModelSelector", *, top_k: int | None = None, **options: Any
    ) -> Self:
        """The candidates of a ranking, or of a selector that is bound to a task.

        Args:
            selection: A ranking, a `ModelSelector` that is bound to a task (`AutoSelector.from_task`), or
                candidates already.
            top_k: How many; None for all. Where a ranking or a selector has fewer, all, with a
                `FewCandidatesWarning`; who made candidates was told then.
            **options: Further arguments of `ModelSelector.rank`, such as ``where`` and ``refine``; for a
                selector only.

        Raises:
            EmptyCatalogError: The ranking has no candidate.
            SettingsError: ``top_k`` is no whole number >= 1, options for a ranking that is made already, or
                something else than a ranking or a selector.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise SettingsError(f"top_k must be a whole number >= 1, or None for all; got {top_k!r}.")
        if isinstance(selection, ModelSelector):
            ranking = selection.rank(top_k=top_k, **options)
        elif isinstance(selection, Candidates | Ranking):
            if options:
                raise SettingsError(
                    f"The ranking is made already; {', '.join(sorted(options))} cannot change it. Pass the "
                    f"selector instead, or pass them to its rank()."
                )
            ranking = selection if isinstance(selection, Ranking) else selection.ranking
            ranking = ranking[:top_k]
        else:
            raise SettingsError(
                f"Wanted a Ranking, or a ModelSelector that is bound to a task "
                f"(AutoSelector.from_task(data)); got {type(selection).__name__}."
            )
        if not ranking:
            raise EmptyCatalogError(
                "The ranking has no candidate, so there is nothing to search among. Loosen where=, or add "
                "candidates to the catalog (t2v catalog add, t2v catalog sync)."
            )
        if top_k is not None and len(ranking) < top_k and not isinstance(selection, Candidates):
            warnings.warn(
                f"{top_k} candidates were asked for and the ranking has {len(ranking)}; all of them are "
                f"taken. Loosen where=, or add candidates to the catalog.",
                FewCandidatesWarning,
                stacklevel=2,
            )
        return cls(ranking)

    def __len__(self) -> int:
        return len(self.ranking)

    def __contains__(self, id: object) -> bool:
        return id in self.ranked

    @property
    def ranked(self) -> tuple[str, ...]:
        """Ids, best first."""
        return self.ranking.ranked

    @property
    def choices(self) -> tuple[str, ...]:
        """Ids, sorted: the same for every ranking of the same candidates, as stored searches need it."""
        return self.ranking.choices

    @property
    def weights(self) -> dict[str, float]:
        """How much of a search each deserves, best first; of sum 1, see `Ranking.weights`."""
        return dict(zip(self.ranked, self.ranking.weights, strict=True))

    def without(self, ids: Collection[str]) -> Self:
        """The others, in the same order; all where none would be left."""
        items = tuple(item for item in self.ranking if item.candidate.id not in ids)
        return type(self)(replace(self.ranking, items=items)) if items else self

    def load(self, id: str, data: object = None, **options: Any) -> "torch.nn.Module":
        """A candidate as a network that is ready to be fine-tuned, as `RankedCandidate.load`.

        Args:
            id: One of `choices`.
            data: Labelled images, for a fresh head with one output per class.
            **options: Further arguments of `RankedCandidate.load`.

        Raises:
            CandidateNotFoundError: No candidate has this id.
            CheckpointError: It does not load.
        """
        for item in self.ranking:
            if item.candidate.id == id:
                return item.load(data, **options)
        raise CandidateNotFoundError(
            f"{id!r} is none of the {len(self)} candidates of this search; the first is {self.ranked[0]!r}. "
            f"Take one of Candidates.choices."
        )


def unranked(id: str, *, n_before: int) -> RankedCandidate:
    """A checkpoint that a stored search knows and the ranking does not: its id alone, its newest revision.

    Args:
        id: Its repository or folder.
        n_before: How many candidates stand before it.
    """
    return RankedCandidate(Candidate(id), None, None, None, None, 1, "of the stored search", n_before + 1)


def n_ranked(n_trials: int, share: float) -> int:
    """How many of a search's trials go by the ranking.

    Raises:
        SettingsError: ``n_trials`` is no whole number >= 1, or ``share`` not in (0, 1].
    """
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise SettingsError(
            f"n_trials must be a whole number >= 1, the budget of the search; got {n_trials!r}."
        )
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise SettingsError(
            f"share must be a number in (0, 1], the part of the trials that goes by the ranking; "
            f"got {share!r}."
        )
    return max(1, math.floor(share * n_trials + 1e-9))  # 0.29 * 100 is a little less than 29
