"""`CheckpointClassifier`: a classifier of images that chooses its own checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from t2v_hub import Catalog, ProbeNetwork
from t2v_hub.data import load
from t2v_hub.errors import DataError, LabelError, SettingsError
from t2v_hub.features import Checkpoint, PlainImages, network_features
from t2v_hub.selector import Where, checkpoint_of
from t2v_hub_integrations.choosing import Selection, candidates_for, first_that_loads, ready_for
from t2v_hub_integrations.dependency import missing

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted
except ModuleNotFoundError as error:
    raise missing(error, "sklearn") from error

_MAX_SKIPPED = 0.05  # share of the images to fit on that may be damaged, as everywhere in t2v_hub


class CheckpointClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Classifies images: chooses a checkpoint for them, and fits a head on its features, which stay frozen.

    Images are a list of PIL images, arrays or paths, an array ``(n, h, w)`` or ``(n, h, w, c)`` of bytes or
    of floats in [0, 1], or a column of a data set. They may be of different sizes.

    Inside cross-validation the choice is made anew on each training part, so that no label of the test part
    has a say in it; but a ranking or a bound selector as ``selection`` was made before, and its choice is
    then part of what the score takes for granted.

    Args:
        selection: What chooses: a catalog or its folder (which is quick to clone and to send to other
            processes), a function that makes a selector or a ranking from labelled images, a `Ranking` or a
            bound `ModelSelector`; None for the candidates on the Hub, `AutoSelector.from_task`.
        checkpoint: Id of the one to take instead, of the catalog where ``selection`` is one that has it, or
            anything that `ProbeNetwork.load` takes by name; nothing is then embedded or ranked.
        where: Which candidates to consider, as of `ModelSelector.rank`.
        refine: How many to load for the second stage, as of `ModelSelector.rank`.
        probe: What to embed the images with, where that is done here; as of `AutoSelector.from_task`.
        max_samples: How many images are embedded at most.
        C: Inverse strength of the penalty of the default head: standardised features and a logistic
            regression. Of no meaning for a ``head``.
        head: Another classifier of scikit-learn to fit on the features; it is cloned.
        cache: Folder for features and embeddings; None for ``T2V_HOME``, False for none.
        device: Where networks run; None for what accelerate chooses.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show bars (on a terminal).
        random_state: What the choice of images to embed and the default head hang on. A fixed number by
            default, so that what was measured once is found again in the cache.

    Attributes:
        classes_: ``(n_classes,)``, the labels, sorted.
        checkpoint_: Id of the checkpoint.
        ranking_: The `Ranking` that it is from; None for a given ``checkpoint``.
        failures_: Why candidates that stand before it do not load, by their ids.
        network_: The frozen network, a `ProbeNetwork`; pickles hold its weights.
        head_: The fitted head.
        n_features_in_: Numbers per image, where ``X`` was an array; images of other sizes are still taken.
    """

    def __init__(
        self,
        selection: Selection = None,
        *,
        checkpoint: str | Path | None = None,
        where: Where | None = None,
        refine: int = 0,
        probe: Any = None,
        max_samples: int = 1000,
        C: float = 1.0,
        head: Any = None,
        cache: Path | str | Literal[False] | None = None,
        device: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.selection = selection
        self.checkpoint = checkpoint
        self.where = where
        self.refine = refine
        self.probe = probe
        self.max_samples = max_samples
        self.C = C
        self.head = head
        self.cache = cache
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Choose a checkpoint, load it, and fit the head.

        Args:
            X: Images.
            y: ``(n,)``, one label per image: numbers or text.

        Raises:
            LabelError: Labels are missing, not one per image, not classes, or all the same.
            DataError: ``X`` holds no images, or too many that cannot be decoded.
            CheckpointError: No candidate loads, or the given checkpoint does not.
            EmptyCatalogError: There is no candidate.
            SettingsError: An option cannot work.

        Warns:
            SkippedCheckpointsWarning: Candidates did not load and were passed over.
            SkippedImagesWarning: Images that cannot be decoded were left out.
        """
        if self.checkpoint is not None and self.refine:
            raise SettingsError(
                f"checkpoint={str(self.checkpoint)!r} is taken as it is, and refine={self.refine} would "
                f"compare candidates. Leave one of the two out."
            )
        items = self._items(X, reset=True)
        labels = _labels(y, len(items))
        images = PlainImages.of(items, max_skipped=_MAX_SKIPPED)
        labels = labels[images.kept]
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise LabelError(
                f"All {len(labels)} images are of one class, {str(self.classes_[0])!r}; wanted at least two "
                f"classes. Give images of others, too."
            )
        seed = self.random_state
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(1 << 31)
        if self.checkpoint is not None:
            self.network_ = self._given().network()
            features = self._features(self.network_, images)
            self.checkpoint_, self.ranking_, self.failures_ = str(self.checkpoint), None, {}
        else:
            task = _task(images, codes, self.classes_, int(seed))
            ready = ready_for(task, self.selection, settings=self._settings(int(seed)))
            candidates = candidates_for(task, ready, where=self.where, refine=self.refine)
            done = first_that_loads(
                candidates.ranking, lambda item: self._read(checkpoint_of(item.candidate), images)
            )
            self.network_, features = done.loaded
            self.checkpoint_, self.ranking_ = done.item.candidate.id, candidates.ranking
            self.failures_ = dict(done.failures)
        head = clone(self.head) if self.head is not None else _default_head(self.C, int(seed))
        self.head_ = head.fit(features, labels)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely label of each image, ``(n,)``.

        Raises:
            ImageError: An image cannot be decoded; the message names its place.
            DataError: ``X`` holds no images.
        """
        features = self._of_new(X)
        result: NDArray[Any] = self.head_.predict(features)
        return result

    @available_if(lambda self: self.head is None or hasattr(self.head, "predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes, in the order of ``classes_``, ``(n, n_classes)``; as `predict`."""
        features = self._of_new(X)
        result: NDArray[np.float64] = self.head_.predict_proba(features)
        return result

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: images, no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def _items(self, X: Any, *, reset: bool) -> Sequence[object]:
        """The images; ``reset`` where `fit` asks."""
        if hasattr(X, "iloc"):  # a pandas Series, whose [i] goes by its index
            X = X.to_numpy()
        shape = getattr(X, "shape", None)
        if isinstance(X, str | bytes | Mapping) or not hasattr(X, "__getitem__") or not hasattr(X, "__len__"):
            raise DataError(
                f"X must be a list of images (PIL images, arrays or paths) or an array of shape (n, height, "
                f"width) or (n, height, width, channels); got {type(X).__name__}."
            )
        if shape is not None and len(shape) != 1 and len(shape) not in (3, 4):
            raise DataError(
                f"X has shape {tuple(shape)}, which is no array of images. Reshape it to (n, height, width) "
                f"or (n, height, width, channels)."
            )
        if reset:
            if shape is not None and len(shape) > 1:
                self.n_features_in_ = int(np.prod(shape[1:]))
            elif hasattr(self, "n_features_in_"):
                del self.n_features_in_
        return X  # type: ignore[no-any-return]

    def _given(self) -> Checkpoint:
        selection = self.selection
        if isinstance(selection, str | Path):
            selection = Catalog.load(selection)
        if isinstance(selection, Catalog) and self.checkpoint in selection:
            return checkpoint_of(selection[str(self.checkpoint)])
        return Checkpoint(str(self.checkpoint))

    def _read(self, checkpoint: Checkpoint, images: PlainImages) -> tuple[ProbeNetwork, NDArray[np.float64]]:
        network = checkpoint.network()
        return network, self._features(network, images)

    def _features(self, network: ProbeNetwork, images: PlainImages) -> NDArray[np.float64]:
        cache = self.cache if self.cache is None or self.cache is False else Path(self.cache) / "features"
        settings = {name: getattr(self, name) for name in ("device", "batch_size", "progress")}
        return network_features(network, images, cache=cache, **settings).astype(np.float64)

    def _of_new(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        return self._features(self.network_, PlainImages.of(self._items(X, reset=False)))

    def _settings(self, seed: int) -> dict[str, Any]:
        names = ("probe", "max_samples", "cache", "device", "batch_size", "progress")
        # The order is what counts here, and standard errors, which cost most of the time, do not change it.
        return {name: getattr(self, name) for name in names} | {"seed": seed, "standard_error": False}


class _Pairs:
    """Images and codes as a torch data set has them, so that `t2v_hub.data.load` reads the labels at once."""

    target_transform = None

    def __init__(self, images: PlainImages, codes: NDArray[np.int64], classes: NDArray[Any]) -> None:
        self.images = images
        self.targets = codes.tolist()
        self.classes = [str(label) for label in classes]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[object, int]:
        return self.images.items[self.images.kept[i]], self.targets[i]


def _task(images: PlainImages, codes: NDArray[np.int64], classes: NDArray[Any], seed: int) -> object:
    """The images as a task with a revision: their content, so that the embedding is kept."""
    task = load(_Pairs(images, codes, classes), name="X", small_classes="keep", seed=seed, progress=False)
    return replace(task, info=replace(task.info, revision=f"content:{images.digest}"))


def _labels(y: Any, n: int) -> NDArray[Any]:
    if y is None:
        raise LabelError("fit requires y to be passed, but the target y is None. Give one label per image.")
    try:
        labels: NDArray[Any] = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        check_consistent_length(range(n), labels)
    except (ValueError, TypeError) as error:
        raise LabelError(f"y must hold one label per image: {error}") from error
    return labels


def _default_head(C: float, seed: int) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000, random_state=seed))
