"""`ModelSelector`: a catalog's candidates, ranked for a task."""

import math
from typing import get_args

from t2v_hub.catalog import Catalog
from t2v_hub.distance import ALPHA, DistanceName
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import EmbeddingMismatchError, EmptyCatalogError, SettingsError
from t2v_hub.selector.comparison import Comparison
from t2v_hub.selector.order import nearest, put_in_order
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.ranking import Ranking
from t2v_hub.selector.where import Where, condition


class ModelSelector:
    """Ranks the candidates of a catalog by the distance of what they were trained on to a task.

    Args:
        catalog: The candidates.
        distance: Which distance; ``asymmetric`` favours checkpoints that were trained on complex tasks.
        alpha: Weight of the complexity term of ``asymmetric``.
        task: Embedding of the task at hand, where `rank` is to be called without one.
        origin: Where the candidates come from, for rankings to say.

    Raises:
        SettingsError: There is no such distance, or an unusable ``alpha``.
        EmptyCatalogError: ``task`` is given and no candidate has an embedding.
        EmbeddingMismatchError: ``task`` is given and no candidate has an embedding in its space.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        distance: DistanceName = "asymmetric",
        alpha: float = ALPHA,
        task: TaskEmbedding | None = None,
        origin: Origin | None = None,
    ) -> None:
        if not isinstance(catalog, Catalog):
            raise SettingsError(
                f"ModelSelector needs a Catalog, not {type(catalog).__name__}. Open one with "
                f"Catalog.load(path)."
            )
        if distance not in get_args(DistanceName):
            known = ", ".join(sorted(get_args(DistanceName)))
            raise SettingsError(f"There is no distance {distance!r}. Choose one of: {known}.")
        if not math.isfinite(alpha) or alpha < 0:
            raise SettingsError(f"alpha must be a finite number >= 0, not {alpha!r}.")
        self.catalog = catalog
        self.distance: DistanceName = distance
        self.alpha = float(alpha)
        self.task = task
        self.origin = origin
        if task is not None:
            self._require_space(task)

    def __repr__(self) -> str:
        task = f", task={self.task.task.id!r}" if self.task else ""
        return f"ModelSelector({self.catalog!r}, distance={self.distance!r}{task})"

    def rank(self, task: object = None, *, top_k: int | None = None, where: Where | None = None) -> Ranking:
        """The candidates, best first.

        A candidate's distance is that of its nearest source task; equal distances are ordered by
        prior (upstream accuracy, then downloads). A candidate belongs to a tie group while its
        distance differs from that of the group's first by less than 1.96 standard errors of the
        difference. Candidates without an embedding in the task's space come last, by prior.

        Args:
            task: An embedding, or labelled images (anything that `t2v_hub.data.load` takes), which are
                then embedded in the catalog's most common space. May be None where the selector is
                bound to a task.
            top_k: How many to return; all by default. Standard errors are worked out for these only.
            where: Which candidates to consider: a function of `Candidate`, or a mapping such as
                ``{"library": "timm", "parameters": (None, 30_000_000), "licence": ["mit", "apache-2.0"]}``.

        Raises:
            SettingsError: No task, or an unusable ``top_k`` or ``where``.
            EmptyCatalogError: The catalog has no candidate, or none with an embedding.
            EmbeddingMismatchError: No candidate has an embedding in the task's space.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise SettingsError(f"top_k must be a whole number >= 1, or None for all; got {top_k!r}.")
        fits = condition(where)
        target = self._embedding(task)
        space = self._require_space(target)

        kept = [candidate for candidate in self.catalog if fits(candidate)]
        found = nearest(kept, self.catalog.matrix(space), target, name=self.distance, alpha=self.alpha)
        comparison = Comparison(target, name=self.distance, alpha=self.alpha)
        order = put_in_order(found, comparison, top_k=top_k)
        return Ranking(
            items=order.items,
            task=target.task,
            space=space,
            distance=self.distance,
            alpha=self.alpha,
            n_considered=len(self.catalog),
            n_filtered=len(self.catalog) - len(kept),
            n_without_embedding=len(found.without),
            n_tied_beyond=order.n_tied_beyond,
            skipped=order.skipped,
            n_measured=target.measurement.n_samples,
            origin=self.origin,
        )

    def _embedding(self, task: object) -> TaskEmbedding:
        if task is None:
            task = self.task
        if isinstance(task, TaskEmbedding):
            return task
        if task is None:
            raise SettingsError(
                "rank needs a task: an embedding or labelled images. To rank many times for one task, "
                "bind it with AutoSelector.from_task(data)."
            )
        space = most_common_space(self.catalog)
        from t2v_hub.task2vec import Task2Vec

        return Task2Vec.for_space(space).embed(task)

    def _require_space(self, target: TaskEmbedding) -> Space:
        spaces = list(self.catalog.spaces())
        if target.space in spaces:
            return target.space
        most_common = most_common_space(self.catalog)
        closest = min(spaces, key=lambda space: (len(target.space.differences(space)), space != most_common))
        raise EmbeddingMismatchError(
            f"No candidate in {str(self.catalog.path)!r} has an embedding in space {target.space.id}, that "
            f"of task {target.task.id!r}. The closest of the {len(spaces)} there, {closest.id}, differs: "
            f"{'; '.join(target.space.differences(closest))}. Embed the task in a space of the catalog: "
            f"ModelSelector(catalog).rank(data) does, or Task2Vec.for_space(space).embed(data)."
        )


def most_common_space(catalog: Catalog) -> Space:
    """The space in which the most candidates have an embedding.

    Raises:
        EmptyCatalogError: The catalog has no candidate, or none with an embedding.
    """
    spaces = list(catalog.spaces())
    if spaces:
        return spaces[0]
    lack = f"None of the {len(catalog)} candidates in {str(catalog.path)!r} has an embedding"
    if len(catalog) == 0:
        lack = f"There is no candidate in {str(catalog.path)!r}"
    raise EmptyCatalogError(
        f"{lack}, so there is nothing to rank by. Embed the data that a checkpoint was trained on and add "
        f"both: `t2v embed`, then `t2v catalog add`; or Catalog(path).add(Candidate(id), embedding=...)."
    )
