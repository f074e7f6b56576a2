"""`ModelSelector`: a catalog's candidates, ranked for a task."""

import math
from time import monotonic
from typing import TYPE_CHECKING, get_args

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.distance import ALPHA, DistanceName
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.scores import FeatureKind
from t2v_hub.selector.comparison import Comparison
from t2v_hub.selector.experience import Experience
from t2v_hub.selector.loading import Loading, readings
from t2v_hub.selector.order import Measurements, Nearest, nearest, put_in_order
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.ranking import RankedBy, Ranking
from t2v_hub.selector.refined import first_stage_order, prior_order, refined
from t2v_hub.selector.second_stage import Limits, Refinement, second_stage
from t2v_hub.selector.spaces import most_common_space, require_space
from t2v_hub.selector.where import Where, condition

if TYPE_CHECKING:
    from t2v_hub.data.task import ImageTask
    from t2v_hub.model2vec import Model2Vec


class ModelSelector:
    """Ranks the candidates of a catalog by the distance of what they were trained on to a task.

    Args:
        catalog: The candidates.
        distance: Which distance. ``relative`` is the paper's ``asymmetric`` one, which favours checkpoints
            that were trained on complex tasks, of embeddings brought to one mean first: as they are, those of
            tasks with many classes are small and far from all others, whose experts were often the best
            (``docs/selection.md``). Or what `Model2Vec` learned: then candidates that it knows have a
            distance without any embedding, and the others their plain relative one, which is on the same
            scale.
        alpha: Weight of the complexity term of ``relative`` and ``asymmetric``, by default 0.15; a
            `Model2Vec` has its own.
        task: Embedding of the task at hand, where `rank` is to be called without one.
        images: Labelled images of that task, for the second stage: anything that `t2v_hub.data.load` takes.
        origin: Where the candidates come from, for rankings to say.
        loading: How candidates are loaded for the second stage.

    Raises:
        SettingsError: There is no such distance, or an unusable ``alpha``.
        EmptyCatalogError: ``task`` is given and no candidate has a distance.
        EmbeddingMismatchError: ``task`` is given and of another space than the candidates' embeddings, or
            than the learned distance.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        distance: "DistanceName | Model2Vec" = "relative",
        alpha: float | None = None,
        task: TaskEmbedding | None = None,
        images: object = None,
        origin: Origin | None = None,
        loading: Loading | None = None,
    ) -> None:
        if not isinstance(catalog, Catalog):
            raise SettingsError(
                f"ModelSelector needs a Catalog, not {type(catalog).__name__}. Open one with "
                f"Catalog.load(path)."
            )
        self.catalog = catalog
        self.learned = None if isinstance(distance, str) else _learned(distance)
        self.distance: RankedBy = distance if isinstance(distance, str) else "model2vec"
        if self.learned is None and distance not in get_args(DistanceName):
            known = ", ".join(sorted(get_args(DistanceName)))
            raise SettingsError(f"There is no distance {distance!r}. Choose one of: {known}.")
        self.alpha = _checked_alpha(alpha, self.learned)
        self.task = task
        self.images = images
        self.origin = origin
        self.loading = loading or Loading()
        if task is not None:
            require_space(self.catalog, task, self.learned)

    def __repr__(self) -> str:
        task = f", task={self.task.task.id!r}" if self.task else ""
        return f"ModelSelector({self.catalog!r}, distance={self.distance!r}{task})"

    def rank(
        self,
        task: object = None,
        *,
        top_k: int | None = None,
        where: Where | None = None,
        refine: int = 0,
        budget_s: float | None = None,
        score: str = "combined",
        max_images: int = 600,
        features: FeatureKind = "last",
    ) -> Ranking:
        """The candidates, best first.

        A candidate's distance is that of its nearest source task; equal distances are ordered by
        prior: errors on other tasks that are recorded in the catalog (`Experience`), then parameters, then
        upstream accuracy, then downloads. A candidate belongs to a tie group while its
        distance differs from that of the group's first by less than 1.96 standard errors of the
        difference. Candidates without a distance come last, by prior.

        With ``refine`` or ``budget_s`` a second stage follows: some candidates are loaded, the nearest
        and those of the highest prior by turns, and what their features say of the task's images
        decides. They come first, by ``score``; the others follow as they stood. A linear classifier on the
        features, leave-one-out, predicts an error; tied are those whose errors differ by less than
        1.96 standard errors of their differences image by image. Features are kept on disk.

        Args:
            task: An embedding, or labelled images (anything that `t2v_hub.data.load` takes), which are
                then embedded in the catalog's most common space (that of a learned distance). May be None
                where the selector is bound to a task.
            top_k: How many to return; all by default. Standard errors are worked out for these only.
            where: Which candidates to consider: a function of `Candidate`, or a mapping such as
                ``{"library": "timm", "parameters": (None, 30_000_000), "licence": ["mit", "apache-2.0"]}``.
            refine: How many candidates to load. One that fails is skipped and named, and the next takes its
                place.
            budget_s: Seconds after which no further candidate is loaded; one is in any case. Without
                ``refine`` there is no other limit.
            score: By what loaded candidates are ordered: ``combined``, the mean of three scores and, where
                errors on other tasks are recorded, a quarter of what they say, each in standard deviations
                over the loaded ones; or one score, a key of `t2v_hub.scores.SCORES`.
            max_images: On how many images of the task they are scored; two per class where that is more.
            features: By which features they are scored: the ``last`` ones, which their heads see, or those
                of all ``layers``, means of each stage and the last ones, of one weight each.

        Raises:
            SettingsError: No task, no images where candidates are to be loaded, or an unusable option.
            EmptyCatalogError: The catalog has no candidate, or none with a distance.
            EmbeddingMismatchError: The task's space is none of the candidates', or not that of the
                learned distance.
            LabelError: Images with several labels each, where candidates are to be loaded.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise SettingsError(f"top_k must be a whole number >= 1, or None for all; got {top_k!r}.")
        limits = Limits.checked(refine, budget_s, score, max_images, features)
        fits = condition(where)
        images = None if limits is None else self._image_task(task)
        target = self._embedding(task if images is None or self._is_bound(task) else images)
        space = require_space(self.catalog, target, self.learned)

        kept = [candidate for candidate in self.catalog if fits(candidate)]
        experience = Experience.of(self.catalog, target)
        found, measurements = self._first_stage(kept, target, experience)
        done: Refinement | None = None
        if limits is None or images is None:
            order = put_in_order(found, measurements, top_k=top_k)
        else:
            by_distance = first_stage_order(found, measurements, k=limits.k)
            began = monotonic()
            read, labels = readings(
                kept,
                images,
                max_images=limits.max_images,
                loading=self.loading,
                features=limits.features,
            )
            loaded, done = second_stage(
                by_distance,
                prior_order(kept, experience),
                read=read,
                labels=labels,
                limits=limits,
                effects=experience.effects,
                began=began,
                progress=self.loading.progress,
            )
            order = refined(found, measurements, loaded, top_k=top_k)
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
            skipped=(*order.skipped, *experience.skipped),
            n_measured=target.measurement.n_samples,
            origin=self.origin,
            n_learned_from=None if self.learned is None else len(self.learned.candidates),
            n_learned_tasks=None if self.learned is None else self.learned.n_tasks,
            n_experience=experience.n_tasks_of(kept),
            refinement=done,
        )

    def _first_stage(
        self, kept: list[Candidate], target: TaskEmbedding, experience: Experience
    ) -> tuple[Nearest, Measurements]:
        matrix = self.catalog.matrix(target.space)
        if self.learned is None:
            assert self.distance != "model2vec"
            found = nearest(kept, matrix, target, name=self.distance, alpha=self.alpha, experience=experience)
            comparison = Comparison(target, name=self.distance, alpha=self.alpha)
            return found, Measurements(comparison, experience=experience)
        from t2v_hub.selector.learned import LearnedDistances, nearest_learned

        found = nearest_learned(kept, matrix, target, self.learned, experience=experience)
        comparison = Comparison(target, name="relative", alpha=self.alpha)
        learned = LearnedDistances(self.learned, target).measure
        return found, Measurements(comparison, learned=learned, experience=experience)

    def _is_bound(self, task: object) -> bool:
        """Whether a task is the one that the selector is bound to."""
        return task is None or (isinstance(task, TaskEmbedding) and task == self.task)

    def _image_task(self, task: object) -> "ImageTask":
        """The images to score candidates on.

        Raises:
            SettingsError: There is only an embedding.
        """
        images = self.images if self._is_bound(task) else task
        if images is None or isinstance(images, TaskEmbedding):
            raise SettingsError(
                "Candidates are loaded (refine=, budget_s=) to be scored on the task's images, and here is "
                "only an embedding. Pass the images themselves, or bind them with "
                "AutoSelector.from_task(data); or leave both out."
            )
        from t2v_hub.data import load

        loaded = load(images, progress=self.loading.progress)
        if images is self.images:
            self.images = loaded  # a stream is read once
        return loaded

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
        space = most_common_space(self.catalog) if self.learned is None else self.learned.space
        from t2v_hub.task2vec import Task2Vec

        return Task2Vec.for_space(space).embed(task)


def _learned(distance: object) -> "Model2Vec":
    from t2v_hub.model2vec import Model2Vec

    if not isinstance(distance, Model2Vec):
        known = ", ".join(sorted(get_args(DistanceName)))
        raise SettingsError(
            f"distance must be a name ({known}) or a Model2Vec, not {type(distance).__name__}."
        )
    return distance


def _checked_alpha(alpha: float | None, fit: "Model2Vec | None") -> float:
    if alpha is None:
        return ALPHA if fit is None else fit.alpha
    if not math.isfinite(alpha) or alpha < 0:
        raise SettingsError(f"alpha must be a finite number >= 0, not {alpha!r}.")
    if fit is not None and alpha != fit.alpha:
        raise SettingsError(
            f"The distance was learned with alpha={fit.alpha:g}, and alpha={alpha:g} was given. Leave alpha "
            f"out, or learn anew with Model2Vec.fit(..., alpha={alpha:g})."
        )
    return float(alpha)
