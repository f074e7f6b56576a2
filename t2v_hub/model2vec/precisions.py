"""`precisions`: embeddings as what distances are learned on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.distance.formulas import LEVEL, level_of, of_mean, robust_rows
from t2v_hub.embedding import TaskEmbedding

Array = NDArray[np.float64]

LEARNED_ON: dict[str, object] = {"distance": "relative", "level": LEVEL}
"""What files of learned distances say of the precisions behind them."""


def precisions(embeddings: Sequence[TaskEmbedding]) -> Array:
    """Precisions of embeddings of one mean, ``(n, n_filters)``; see `precisions_of`.

    Args:
        embeddings: Of one space; one at least.
    """
    return precisions_of([embedding.fisher for embedding in embeddings], like=embeddings[0])


def precisions_of(rows: ArrayLike, *, like: TaskEmbedding) -> Array:
    """Robust precisions, as `TaskEmbedding.robust` gives them, of rows that are first brought to one mean.

    The asymmetric distance between two of them is the distance ``relative`` between the rows. How large an
    embedding is depends on how sure its head is, and as it is, it puts tasks of many classes far from all
    others (``docs/selection.md``); that is nothing a bias should have to learn.

    Args:
        rows: Fisher vectors, ``(n, n_filters)``. One of zeros stays as it is.
        like: An embedding of their space, which has the level and the prior.
    """
    result: Array = robust_rows(like)(of_mean(np.asarray(rows, dtype=np.float64), level_of(like)))
    return result
