"""`Task2VecTransformer`: data sets as rows of a matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from t2v_hub import Task2Vec, TaskEmbedding
from t2v_hub.data import load
from t2v_hub.distance import CoordinatesOf, coordinates
from t2v_hub.errors import DataError, EmbeddingMismatchError, SettingsError, T2VError
from t2v_hub_integrations.dependency import missing

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise missing(error, "sklearn") from error

Coordinates = CoordinatesOf | Literal["fisher"]


class Task2VecTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Turns a list of data sets into a matrix with one row each, for k-means, PCA, t-SNE and the like.

    A row cannot be left out, so that a data set that cannot be embedded is an error which names its place.

    Args:
        coordinates: What the rows are. ``relative``, ``asymmetric``, ``symmetric``: vectors whose squared
            Euclidean distances are that distance between near tasks (`t2v_hub.distance.coordinates`); the
            first is what rankings go by. ``fisher``: the Fisher values as they are, whose Euclidean
            distances say little, for a few filters outweigh all others.
        probe: What to embed with, as of `Task2Vec`.
        estimator: As of `Task2Vec`.
        max_samples: As of `Task2Vec`.
        seed: As of `Task2Vec`.
        batch_size: As of `Task2Vec`.
        device: As of `Task2Vec`.
        cache: As of `Task2Vec`.
        progress: As of `Task2Vec`.
        data_options: Arguments of `t2v_hub.data.load` for every data set, such as ``{"split": "train"}``.

    Attributes:
        space_: The `Space` that all tasks are measured in.
        task2vec_: What measures them; None where all that was fitted on were embeddings.
    """

    def __init__(
        self,
        coordinates: Coordinates = "relative",
        *,
        probe: Any = None,
        estimator: str = "monte_carlo",
        max_samples: int = 1000,
        seed: int = 0,
        batch_size: int = 32,
        device: str | None = None,
        cache: Path | str | Literal[False] | None = None,
        progress: bool = False,
        data_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.coordinates = coordinates
        self.probe = probe
        self.estimator = estimator
        self.max_samples = max_samples
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.cache = cache
        self.progress = progress
        self.data_options = data_options

    def fit(self, X: Sequence[object], y: object = None) -> Self:
        """Settle the space: that of the embeddings in ``X``, or what `Task2Vec` measures in; embeds nothing.

        Args:
            X: Data sets (anything that `t2v_hub.data.load` takes) and embeddings.
            y: Ignored.

        Raises:
            SettingsError: ``X`` is no list of data sets, or an option cannot work.
            ProbeError: The probe cannot be used.
            EmbeddingMismatchError: The probe's space is not that of the embeddings.
            DataError: The first data set cannot be read.
        """
        known = (*get_args(CoordinatesOf), "fisher")
        if self.coordinates not in known:
            raise SettingsError(f"coordinates must be one of {', '.join(known)}; got {self.coordinates!r}.")
        items = self._items(X, reset=True)
        spaces = [item.space for item in items if isinstance(item, TaskEmbedding)]
        data = [place for place, item in enumerate(items) if not isinstance(item, TaskEmbedding)]
        self.task2vec_ = None
        if spaces:
            self.space_ = spaces[0]
            if data:
                self.task2vec_ = self._for_space()
        else:
            self.task2vec_ = Task2Vec(self.probe, estimator=self.estimator, **self._settings())  # type: ignore[arg-type]
            options = {"seed": self.seed, "progress": self.progress, **(self.data_options or {})}
            try:
                task = load(items[data[0]], **options)
            except DataError as error:
                raise _named({data[0]: error}, len(items)) from error
            self.space_ = self.task2vec_.space(multi_label=task.multi_label)
        return self

    def transform(self, X: Sequence[object]) -> NDArray[np.float64]:
        """One row per data set, ``(n_tasks, n_filters)``.

        Args:
            X: As for `fit`.

        Raises:
            T2VError: A data set cannot be embedded, of the class that its own failure has; the message
                names the places of all of them.
            EmbeddingMismatchError: One is in another space than `fit` saw.
            SettingsError: ``X`` is no list of data sets.
        """
        check_is_fitted(self)
        items = self._items(X, reset=False)
        embeddings = self._embedded(items)
        for place, embedding in enumerate(embeddings):
            try:
                embedding.space.require_equal(self.space_)
            except EmbeddingMismatchError as error:
                raise EmbeddingMismatchError(
                    f"X[{place}] is not in the space of the others. {error}"
                ) from None
        if self.coordinates == "fisher":
            return np.stack([embedding.fisher for embedding in embeddings]).astype(np.float64)
        return coordinates(embeddings, name=self.coordinates)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns: ``layer1.0.conv1[3]`` is filter 3 of that layer.

        Args:
            input_features: Ignored; data sets have no columns.
        """
        check_is_fitted(self)
        layers = self.space_.layers
        names = [f"{layer.name}[{i}]" for layer in layers for i in range(layer.n_filters)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: a list of data sets, no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def _items(self, X: Any, *, reset: bool) -> list[object]:
        """The data sets and embeddings; ``reset`` where `fit` asks."""
        if hasattr(X, "iloc"):  # a pandas Series
            X = X.to_numpy()
        is_list = isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1)
        if not is_list or len(X) == 0:
            what = f"an array of shape {X.shape}" if isinstance(X, np.ndarray) else type(X).__name__
            raise SettingsError(
                f"X must be a list of data sets or of TaskEmbeddings, at least one; got "
                f"{'nothing in it' if is_list else what}. Wrap a single one: [X]."
            )
        return list(X)

    def _embedded(self, items: list[object]) -> list[TaskEmbedding]:
        data = {str(place): item for place, item in enumerate(items) if not isinstance(item, TaskEmbedding)}
        if not data:
            return [item for item in items if isinstance(item, TaskEmbedding)]
        task2vec = self.task2vec_ or self._for_space()
        done = task2vec.embed_many(data, **(self.data_options or {}))
        if done.failures:
            raise _named({int(name): error for name, error in done.failures.items()}, len(items))
        return [
            item if isinstance(item, TaskEmbedding) else done.embeddings[str(place)]
            for place, item in enumerate(items)
        ]

    def _for_space(self) -> Task2Vec:
        return Task2Vec.for_space(self.space_, probe=self.probe, **self._settings())

    def _settings(self) -> dict[str, Any]:
        # Rows are points: their standard errors, which cost most of the time of a small task, show nowhere.
        names = ("max_samples", "seed", "batch_size", "device", "cache", "progress")
        return {name: getattr(self, name) for name in names} | {"standard_error": False}


def _named(failures: Mapping[int, T2VError], n: int) -> T2VError:
    """The failures as one error, of the first one's class."""
    first = next(iter(failures.values()))
    reasons = "; ".join(
        f"X[{place}]: {str(error).rstrip('.')}" for place, error in list(failures.items())[:3]
    )
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    return type(first)(
        f"{len(failures)} of {n} data sets cannot be embedded: {reasons}{more}. A row cannot be missing: "
        f"repair them or leave them out."
    )
