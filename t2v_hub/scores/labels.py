"""`Classes`: the labels of a task as codes, checked."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import LabelError

_KINDS = (str, bytes, int, np.integer, np.bool_)


@dataclass(frozen=True, eq=False)
class Classes:
    """Which class each image belongs to; only classes that occur.

    Attributes:
        codes: ``(n,)``, from 0.
        counts: ``(n_classes,)``, images per class, each at least 1.
    """

    codes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: ArrayLike) -> Self:
        """The classes of ``(n,)`` labels, which are whole numbers, truth values or strings.

        Raises:
            LabelError: They are of another kind or shape, or all the same.
        """
        codes, counts = coded(labels, what="labels")
        if len(counts) < 2:
            raise LabelError(
                f"Scores need labels of two classes or more; {len(codes)} labels show {len(counts)}. "
                "Take more images, or leave the task out."
            )
        return cls(codes, counts)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_classes(self) -> int:
        """How many classes occur."""
        return len(self.counts)

    @property
    def one_hot(self) -> NDArray[np.float64]:
        """``(n, n_classes)``, 1 at each image's class."""
        result = np.zeros((len(self.codes), self.n_classes))
        result[np.arange(len(self.codes)), self.codes] = 1.0
        return result


def coded(labels: ArrayLike, *, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes ``(n,)`` from 0 in the order of the sorted labels, and how often each occurs.

    Raises:
        LabelError: They are not one whole number, truth value or string per image.
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise LabelError(
            f"The {what} must be one per image, of shape (n,), not of shape {values.shape}. "
            "Scores do not know tasks with several labels per image."
        )
    if values.dtype.kind not in "biuUSTO":
        raise LabelError(f"The {what} must be whole numbers or strings, not {values.dtype}.")
    if values.dtype.kind == "O" and not all(isinstance(v, _KINDS) for v in values):
        odd = next(v for v in values if not isinstance(v, _KINDS))
        raise LabelError(f"The {what} must be whole numbers or strings; one is {odd!r}.")
    try:
        _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise LabelError(f"The {what} mix numbers and strings; name each class in one way.") from error
    return codes.astype(np.int64), counts.astype(np.int64)
