"""Coordinates of embeddings, for methods that know Euclidean distances only: k-means, PCA, t-SNE."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.formulas import level_of, of_mean, robust_rows
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

CoordinatesOf = Literal["relative", "asymmetric", "symmetric"]
"""Whose coordinates: of which distance they show the part that is the same in both directions."""

_FLOOR = 1e-6  # of a row's mean: what is below counts as that, since 0 has no logarithm


def coordinates(
    embeddings: Sequence[TaskEmbedding], *, name: CoordinatesOf = "relative"
) -> NDArray[np.float64]:
    r"""Vectors whose squared Euclidean distances are a distance, for tasks that are near each other.

    The symmetric distance sees two tasks only through the ratios of their values, filter by filter. With
    :math:`\delta = \ln F_a - \ln F_b`, its expansion about equal tasks is

    .. math:: 1 - \cos(u, v) = \tfrac12 \operatorname{Var}_f(\delta_f) + O(\delta^4)

    so the logarithms, less their mean over filters and divided by :math:`\sqrt{2 \cdot n_{filters}}`, have
    it as squared Euclidean distance. Far apart they differ: the distance ends at 1, logarithms do not.

    Args:
        embeddings: Of one space.
        name: ``relative``: of the robust precisions of embeddings that were brought to one mean, which is
            what rankings compare; ``asymmetric``: of the robust precisions as they are; in both without the
            term for complexity, which belongs to a direction and not to a pair. ``symmetric``: of the Fisher
            values themselves; values below a millionth of their mean, and 0, count as that.

    Returns:
        ``(n, n_filters)``; each row has the mean 0.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: No embedding, or an unknown name.
    """
    if name not in get_args(CoordinatesOf):
        known = ", ".join(get_args(CoordinatesOf))
        raise SettingsError(f"There are no coordinates of {name!r}. Choose one of: {known}.")
    if not embeddings:
        raise SettingsError("Coordinates need at least one embedding; none was given.")
    first = embeddings[0]
    for embedding in embeddings[1:]:
        first.space.require_equal(embedding.space)
    rows = np.stack([embedding.fisher for embedding in embeddings]).astype(np.float64)
    if name == "symmetric":
        means = rows.mean(axis=1, keepdims=True)
        rows = np.maximum(rows, _FLOOR * np.where(means > 0, means, 1.0))
    else:
        rows = robust_rows(first)(of_mean(rows, level_of(first)) if name == "relative" else rows)
    logarithms = np.log(rows)
    logarithms -= logarithms.mean(axis=1, keepdims=True)
    result: NDArray[np.float64] = logarithms / np.sqrt(2 * rows.shape[1])
    return result
