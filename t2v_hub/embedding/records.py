"""`TaskInfo`: which data set was measured, and `Measurement`: how."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

_LIBRARIES = ("t2v_hub", "torch", "timm", "transformers", "datasets", "accelerate", "scikit-learn", "numpy")


@dataclass(frozen=True)
class TaskInfo:
    """Which data set an embedding describes.

    Attributes:
        id: Repository, path or given name of the data set.
        n_samples: Labelled images in the data set, or how many were scanned of a stream.
        n_classes: Classes that occur.
        config: Configuration of the data set, where it has several.
        split: Split that was measured.
        revision: Commit or fingerprint of the data.
        label_column: Column that holds the labels.
        class_names: Names of the classes that occur, in the order of their codes.
        multi_label: Whether an image may have several labels.
    """

    id: str
    n_samples: int
    n_classes: int
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    label_column: str | None = None
    class_names: tuple[str, ...] = ()
    multi_label: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The value that `to_dict` and JSON wrote."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        values["class_names"] = tuple(str(name) for name in values.get("class_names", ()))
        if not isinstance(values["id"], str):
            raise TypeError("the task's id is no text")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class Measurement:
    """How an embedding was measured.

    Attributes:
        estimator: ``monte_carlo``, ``exact``, ``empirical`` or ``variational``.
        n_samples: Images whose gradients were squared, or that noisy ones were drawn from (``variational``).
        seed: What all randomness hung on.
        n_labels: Labels drawn per image (``monte_carlo``).
        n_head_samples: Images that the head was fitted on; more than ``n_samples`` where ``tolerance``
            ended the measurement early; 0 where it was not recorded.
        tolerance: Relative standard error that was small enough; NaN where all images were wanted.
        n_skipped: Images left out because they could not be decoded.
        pass_size: Images per forward and backward pass, after any shrinking for lack of memory.
        dtype: Type of the forward and backward pass; sums are float64.
        device: Kind of device, such as ``cpu`` or ``cuda``.
        mean_confidence: Mean over images of the head's largest class probability.
        standard_error: ``sqrt(sum se_f^2 / sum F_f^2)``, relative; NaN where it was not measured.
        median_standard_error: Median over filters of ``se_f / F_f``.
        distance_standard_error: Typical contribution of this embedding to the standard error of
            a symmetric distance; what remains when `TaskEmbedding.deviations` is not at hand.
        versions: Versions of the libraries.
    """

    estimator: str
    n_samples: int
    seed: int
    n_labels: int = 1
    n_head_samples: int = 0
    tolerance: float = float("nan")
    n_skipped: int = 0
    pass_size: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    mean_confidence: float = float("nan")
    standard_error: float = float("nan")
    median_standard_error: float = float("nan")
    distance_standard_error: float = float("nan")
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The value that `to_dict` and JSON wrote."""
        known = {item.name for item in fields(cls)}
        cleaned = {key: value for key, value in values.items() if key in known}
        for item in fields(cls):
            if item.type is float and cleaned.get(item.name, 0.0) is None:
                cleaned[item.name] = float("nan")  # JSON has no NaN
            if item.type is float and not isinstance(cleaned.get(item.name, 0.0), int | float):
                raise TypeError(f"{item.name} is no number")
        return cls(**cleaned)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "versions": dict(self.versions)}


def library_versions() -> dict[str, str]:
    """Versions of the libraries that measure, as far as they are installed."""
    return dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
