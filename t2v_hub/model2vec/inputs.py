"""What `Model2Vec` learns from: checked, and as arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.model2vec.learning import Array, Bias, Learning, soft_targets
from t2v_hub.model2vec.precisions import precisions


def check_settings(
    bias: Bias,
    alpha: float,
    temperature: float | None,
    strength: float | None,
    target_temperature: float,
) -> None:
    """Return when one can learn with these.

    Raises:
        SettingsError: One of them cannot work.
    """
    if bias not in get_args(Bias):
        raise SettingsError(f"There is no bias {bias!r}; choose one of: {', '.join(get_args(Bias))}.")
    if not math.isfinite(alpha) or alpha < 0:
        raise SettingsError(f"alpha must be a finite number >= 0, not {alpha!r}.")
    for name, value in (("temperature", temperature), ("target_temperature", target_temperature)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SettingsError(f"{name} must be a finite number > 0, not {value!r}.")
    if strength is not None and not strength > 0:
        raise SettingsError(f"strength must be > 0, and may be infinite; not {strength!r}.")


def checked_errors(
    tasks: Sequence[TaskEmbedding],
    errors: ArrayLike,
    candidates: Sequence[str],
    sources: Mapping[str, TaskEmbedding | None],
    groups: Sequence[str] | None,
) -> Array:
    """The table of errors, ``(n_tasks, n_candidates)``.

    Raises:
        EmbeddingMismatchError: Not all embeddings are of one space.
        SettingsError: Something does not fit, or there is nothing to learn from.
    """
    table = np.array(errors, dtype=np.float64)
    wanted = (len(tasks), len(candidates))
    if table.shape != wanted:
        raise SettingsError(
            f"errors has shape {table.shape}; wanted {wanted}, a row per task and a column per candidate."
        )
    if len(set(candidates)) < len(candidates):
        twice = sorted({name for name in candidates if list(candidates).count(name) > 1})
        raise SettingsError(f"Each candidate must have one column; given twice: {', '.join(twice)}.")
    strange = sorted(set(sources) - set(candidates))
    if strange:
        raise SettingsError(
            f"sources names what is no column of errors: {', '.join(strange)}. The candidates are: "
            f"{', '.join(candidates)}."
        )
    if groups is not None and len(groups) != len(tasks):
        raise SettingsError(f"groups has {len(groups)} names for {len(tasks)} tasks; wanted one per task.")
    bad = ~(np.isnan(table) | ((table >= 0) & (table <= 1)))
    if bad.any():
        raise SettingsError(
            f"Errors must lie between 0 and 1, or be NaN where not measured; got {table[bad][0]!r}. Divide "
            f"per cents by 100."
        )
    if not ((~np.isnan(table)).sum(axis=1) >= 2).any():
        raise SettingsError(
            "No task has errors of two candidates, so there is nothing to learn from. Measure at least two "
            "candidates on the same tasks."
        )
    for embedding in [*tasks[1:], *(source for source in sources.values() if source is not None)]:
        tasks[0].space.require_equal(embedding.space)
    return table


def learning_from(
    tasks: Sequence[TaskEmbedding],
    errors: Array,
    sources: Sequence[TaskEmbedding | None],
    *,
    bias: Bias,
    alpha: float,
    target_temperature: float,
) -> Learning:
    """The problem as arrays, of embeddings brought to one mean; ``sources`` in the order of the columns."""
    trivial = tasks[0].prior_precision
    sizes = [layer.n_filters for layer in tasks[0].space.layers]
    edges = {
        "filter": np.arange(sum(sizes)),
        "layer": np.cumsum([0, *sizes[:-1]]),
        "offset": np.zeros(0, np.int64),
    }[bias]
    unknown = np.array([source is None for source in sources])
    learning = Learning(
        base=np.concatenate(
            [trivial[None] if source is None else precisions([source]) for source in sources]
        ),
        level=np.zeros(len(sources)),
        targets=precisions(tasks),
        trivial=trivial,
        wanted=soft_targets(errors, target_temperature).T,
        edges=edges.astype(np.int64),
        alpha=float(alpha),
    )
    if unknown.all() or not unknown.any():
        return learning
    # What nothing is known of is as far as the others on average, not as far as the trivial embedding.
    plain = learning.distances(learning.no_bias)
    level = np.where(unknown, plain[~unknown].mean() - plain[unknown].mean(), 0.0)
    return replace(learning, level=level)
