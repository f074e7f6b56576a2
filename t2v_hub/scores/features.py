r"""Feature matrices: checked, centred, decomposed; and the layer means that may serve as features.

What several scores share is the eigenvalues of :math:`X X^T` and the targets' coordinates along its
eigenvectors. Both come from the smaller of the two Gram matrices. That squares the condition number: what is
below 1e-7 of the largest singular value is lost, as it is in float32 features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import ProbeOutputError, SettingsError
from t2v_hub.scores.labels import Classes

Array = NDArray[np.float64]

FeatureKind = Literal["last", "layers"]
"""Features of a checkpoint: the input of its classification head, or means of all its stages and that."""

_LARGEST = 1e100  # squares and their sums must stay finite
_ROUNDING = 1e-12  # deviations from the mean, relative to the values, that are rounding


def layer_means(maps: Mapping[str, ArrayLike], *, standardise: bool = False) -> Array:
    r"""Spatial means of every layer's feature maps, side by side.

    Early layers tell textures, late ones objects; the mean of many layers knows both. Scales are left as
    they are, so a layer of large values weighs more wherever distances or penalties do; unless they are to
    be standardised: then each of the L layers is centred and divided by one number, so that its variances
    sum to 1/L over its columns. Rows side by side have the mean of the layers' Gram matrices,

    .. math:: X X^T = \frac{1}{L} \sum_l K_l, \qquad K_l = n \, C_l C_l^T / \operatorname{tr} C_l C_l^T

    with the centred layers :math:`C_l`, as wide as each may be. A mean of the vectors themselves, as is made
    of texts' layers, needs layers of one width, which those of networks for images seldom have.

    Args:
        maps: Layer name to ``(n, c)`` or ``(n, c, h, w)``, the same n images in each, in the order in which
            the columns shall stand.
        standardise: Whether every layer is to weigh the same, whatever its scale and width. One that is the
            same for all images is 0 and stays so.

    Returns:
        ``(n, sum of c)``.

    Raises:
        SettingsError: No layer, another shape, or layers of different numbers of images.
    """
    if not maps:
        raise SettingsError("Layer means need at least one layer; none was given.")
    columns: list[Array] = []
    for name, values in maps.items():
        array = np.asarray(values)
        if array.ndim not in (2, 4) or array.size == 0 or array.dtype.kind not in "fiub":
            raise SettingsError(
                f"The layer {name!r} must be numbers of shape (n, c) or (n, c, h, w), "
                f"not {array.dtype} of shape {array.shape}."
            )
        if columns and len(array) != len(columns[0]):
            raise SettingsError(
                f"The layer {name!r} shows {len(array)} images, the layers before it {len(columns[0])}."
            )
        means = array.astype(np.float64) if array.ndim == 2 else array.mean(axis=(2, 3), dtype=np.float64)
        columns.append(means)
    if standardise:
        columns = [_of_variance(means, 1 / len(columns)) for means in columns]
    return np.concatenate(columns, axis=1)


def _of_variance(rows: Array, total: float) -> Array:
    """The rows centred, and their columns' variances of a given sum; 0 where they have none."""
    deviations = centred(rows)
    largest = float(np.abs(deviations).max())
    if largest == 0.0:
        return deviations
    deviations /= largest  # no square overflows or vanishes
    deviations *= np.sqrt(total * len(rows) / np.square(deviations).sum())
    return deviations


def checked_pair(values: ArrayLike, labels: ArrayLike, *, what: str) -> tuple[Array, Classes]:
    """One row of finite numbers per image, ``(n, d)`` in float64, and the classes of the images.

    Raises:
        LabelError: As `Classes.of`.
        SettingsError: The values are no matrix of numbers, or not as many rows as labels.
        ProbeOutputError: Some are not finite, or beyond 1e100.
    """
    classes = Classes.of(labels)
    return checked_matrix(values, len(classes), what=what), classes


def checked_matrix(values: ArrayLike, n: int, *, what: str) -> Array:
    """The values as float64; see `checked_pair`."""
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.shape[1] == 0:
        raise SettingsError(
            f"The {what} must be numbers of shape (n, d), not {array.dtype} of shape {array.shape}."
        )
    if len(array) != n:
        raise SettingsError(f"There are {len(array)} rows of {what} and {n} labels; one each is wanted.")
    result = array.astype(np.float64)
    sound = np.abs(result) <= _LARGEST
    if not sound.all():
        rows = int((~sound.all(axis=1)).sum())
        raise ProbeOutputError(
            f"{int((~sound).sum())} of {sound.size} {what} are not finite or beyond {_LARGEST:g}, "
            f"in {rows} of {n} rows. Leave the checkpoint out, or compute it in float32."
        )
    return result


def centred(x: Array, share: Array | None = None) -> Array:
    """Deviations from the (weighted) mean; exactly 0 in columns that are constant but for rounding.

    Args:
        x: ``(n, d)``.
        share: ``(n,)`` of sum 1, what each row counts; alike where absent.
    """
    mean = x.mean(axis=0) if share is None else share @ x
    result: Array = x - mean
    result[:, np.abs(result).max(axis=0) <= _ROUNDING * np.abs(x).max(axis=0)] = 0.0
    return result


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""The eigenvalues of :math:`X X^T` that are not 0, and its eigenvectors.

    Attributes:
        values: ``(rank,)``, > 0, ascending.
        x: ``(n, d)``, the rows; divided by their largest absolute value's power of two.
        vectors: Eigenvectors of the smaller Gram matrix, ``(min(n, d), rank)``.
        scale: The power of two by which ``x`` was divided.
    """

    values: Array
    x: Array
    vectors: Array
    scale: float

    @classmethod
    def of(cls, x: Array) -> Self:
        """The spectrum of ``(n, d)`` rows."""
        largest = np.abs(x).max()
        scale = float(2.0 ** np.frexp(largest)[1]) if largest > 0 else 1.0
        x = x / scale  # exact, and no square overflows or vanishes
        tall = x.shape[0] >= x.shape[1]
        values, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
        alive = values > np.finfo(np.float64).eps * max(x.shape) * max(values[-1], 0.0)
        return cls(values[alive], x, vectors[:, alive], scale)

    @property
    def left(self) -> Array:
        """Orthonormal eigenvectors of ``X X^T``, ``(n, rank)``."""
        if self.x.shape[0] < self.x.shape[1]:
            return self.vectors
        result: Array = self.x @ self.vectors / np.sqrt(self.values)
        return result

    def coordinates(self, targets: Array) -> Array:
        """Along the eigenvectors, ``(rank, n_targets)``, of ``(n, n_targets)`` targets."""
        if self.x.shape[0] < self.x.shape[1]:
            inner: Array = self.vectors.T @ targets
        else:
            inner = self.vectors.T @ (self.x.T @ targets) / np.sqrt(self.values)[:, None]
        return inner
