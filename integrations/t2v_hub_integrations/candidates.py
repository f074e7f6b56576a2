"""`Candidates`: what every adapter takes from a ranking."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from t2v_hub import ModelSelector, Ranking
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
            top_k: How many; None for all. Where there are fewer, all, with a `FewCandidatesWarning`.
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
        if top_k is not None and len(ranking) < top_k:
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
