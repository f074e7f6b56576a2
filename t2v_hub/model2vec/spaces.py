"""Which of several embeddings stands for what a candidate was trained on."""

from collections.abc import Sequence

import numpy as np

from t2v_hub.distance import ALPHA
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.model2vec.geometry import distances_to
from t2v_hub.model2vec.precisions import precisions


def nearest_on_average(
    sources: Sequence[TaskEmbedding], tasks: Sequence[TaskEmbedding], *, alpha: float = ALPHA
) -> TaskEmbedding | None:
    """Of several embeddings the one with the smallest mean distance ``relative`` to tasks; None of none."""
    if len(sources) < 2 or not tasks:
        return next(iter(sources), None)
    targets, trivial = precisions(tasks), tasks[0].prior_precision  # (n_tasks, n_filters), (n_filters,)
    means = [distances_to(row, targets, trivial, alpha).mean() for row in precisions(sources)]
    return sources[int(np.argmin(means))]
