r"""Distances between task embeddings, and how sure they are.

Every function takes ``(source, target)`` in that order: the task a checkpoint was trained on, then
the task at hand. With F the Fisher vectors, u and v are ``F_source / (F_source + F_target)`` and
``F_target / (F_source + F_target)``, elementwise.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.embedding import TaskEmbedding, jackknife_standard_error
from t2v_hub.errors import SettingsError

DistanceName = Literal[
    "symmetric",
    "asymmetric",
    "kl",
    "asymmetric_kl",
    "jsd",
    "entropy",
    "correlation",
    "normalized_cosine",
]
Rows = NDArray[np.float64]

ALPHA = 0.15
"""Weight of the complexity term in the asymmetric distance; the paper's value (section 4)."""

_CHUNK_VALUES = 1 << 15  # float64 values of a matrix that are worked on at once: 256 KiB stay in cache


def symmetric_distance(source: TaskEmbedding, target: TaskEmbedding) -> float:
    r"""Cosine distance between two tasks, each Fisher entry first divided by the pair's sum.

    .. math:: 1 - \cos\Bigl(\tfrac{F_s}{F_s + F_t}, \tfrac{F_t}{F_s + F_t}\Bigr)

    The division lets a filter with small Fisher information count as much as one with large. A
    filter that is zero in both tasks counts as equal. Zero also for proportional vectors.

    Args:
        source: One embedding.
        target: An embedding of the same space.

    Returns:
        A number in ``[0, 1]``; smaller is closer, 0 for an embedding with itself.

    Raises:
        EmbeddingMismatchError: The spaces differ.

    References:
        Achille et al., "Task2Vec: Task Embedding for Meta-Learning", ICCV 2019, section 4.
    """
    return distance(source, target, name="symmetric")


def asymmetric_distance(source: TaskEmbedding, target: TaskEmbedding, *, alpha: float = ALPHA) -> float:
    r"""Symmetric distance between the robust precisions, less what the source is worth by itself.

    .. math:: d_{sym}(\hat F_s, \hat F_t) - \alpha\, d_{sym}(\hat F_s, t_0)

    with :math:`\hat F = F/(2\beta) + 1/\lambda^2` and the trivial embedding
    :math:`t_0 = 1/\lambda^2`. Vectors of the family ``variational`` are such precisions already; their
    t₀ is of the prior that all embeddings of the space record, never of one that was fitted to a task.
    A checkpoint that was trained on a complex task, one far from the
    trivial embedding, is thereby favoured.

    Args:
        source: Embedding of the task that the checkpoint was trained on.
        target: Embedding of the task at hand, of the same space.
        alpha: Weight of the complexity term, at least 0.

    Returns:
        A number in ``[-alpha, 1]``; smaller is better. Not 0 for an embedding with itself.

    Raises:
        EmbeddingMismatchError: The spaces differ.
        SettingsError: ``alpha`` is negative or not finite.

    References:
        Achille et al., ICCV 2019, section 4. The paper does not say which of the two
        embeddings its robust estimate enters; here both, in both terms.
    """
    return distance(source, target, name="asymmetric", alpha=alpha)


def distance(
    source: TaskEmbedding, target: TaskEmbedding, *, name: DistanceName = "symmetric", alpha: float = ALPHA
) -> float:
    """The named distance from ``source`` to ``target``.

    Besides `symmetric_distance` and `asymmetric_distance`, the distances of the reference
    implementation, with the variances ``var = 1/F``: ``kl`` (sum of the larger of both
    divergences), ``asymmetric_kl`` (source against target), ``jsd``, ``entropy`` (mutual
    information of a filter and the task it came from), ``correlation`` of the variances and
    ``normalized_cosine`` of the variances over the prior ones. A filter that is zero in both tasks
    counts as equal; ``correlation`` and ``normalized_cosine`` leave out filters that are zero in
    either; the divergences are infinite where just one is zero.

    Raises:
        EmbeddingMismatchError: The spaces differ.
        SettingsError: An unknown name, or an ``alpha`` that is negative or not finite.
    """
    source.space.require_equal(target.space)
    rows = _rows_function(name, target, alpha)
    return float(rows(_row(source.fisher), _row(target.fisher))[0])


def pairwise(
    embeddings: Sequence[TaskEmbedding], *, name: DistanceName = "symmetric", alpha: float = ALPHA
) -> NDArray[np.float64]:
    """Matrix of distances, ``(n, n)``; entry ``[i, j]`` is from embedding ``i`` to embedding ``j``.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: An unknown name or an unusable ``alpha``.
    """
    if not embeddings:
        return np.zeros((0, 0))
    for embedding in embeddings[1:]:
        embeddings[0].space.require_equal(embedding.space)
    matrix = np.stack([embedding.fisher for embedding in embeddings])
    columns = [distances(target, matrix, name=name, alpha=alpha) for target in embeddings]
    return np.stack(columns, axis=1)


def distances(
    query: TaskEmbedding,
    matrix: ArrayLike,
    *,
    query_is: Literal["source", "target"] = "target",
    name: DistanceName = "symmetric",
    alpha: float = ALPHA,
    scale: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Distances between one embedding and each row of a matrix, ``(n,)``.

    Args:
        query: The embedding.
        matrix: Fisher vectors of the same space, ``(n, n_filters)``, of any float type; a
            memory-mapped float16 array is read a few rows at a time.
        query_is: Whether the query is the target (rows are sources) or the source.
        name: Which distance.
        alpha: Weight of the complexity term of ``asymmetric``.
        scale: ``(n,)``, what each row is to be multiplied by; 1 where absent. float16 spans too
            few powers of ten to hold Fisher values as they are.

    Raises:
        SettingsError: The matrix has not ``n_filters`` columns, or an unusable name or ``alpha``.
    """
    matrix = matrix if isinstance(matrix, np.ndarray) else np.asarray(matrix)
    n_filters = len(query.fisher)
    if matrix.ndim != 2 or matrix.shape[1] != n_filters:
        raise SettingsError(
            f"The matrix has shape {matrix.shape}; wanted (n, {n_filters}), one row per embedding of "
            f"space {query.space.id}."
        )
    if query_is not in ("source", "target"):
        raise SettingsError(f"query_is must be 'source' or 'target', not {query_is!r}.")
    scales = np.ones(len(matrix)) if scale is None else np.asarray(scale, dtype=np.float64)
    if scales.shape != (len(matrix),):
        raise SettingsError(f"scale has shape {scales.shape}; wanted ({len(matrix)},), one per row.")
    rows = _rows_function(name, query, alpha)
    ours = _row(query.fisher)
    result = np.empty(len(matrix))
    step = max(1, _CHUNK_VALUES // max(1, n_filters))
    for start in range(0, len(matrix), step):
        part = slice(start, start + step)
        theirs = matrix[part].astype(np.float64) * scales[part, None]
        result[part] = rows(theirs, ours) if query_is == "target" else rows(ours, theirs)
    return result


def distance_standard_error(
    source: TaskEmbedding, target: TaskEmbedding, *, name: DistanceName = "symmetric", alpha: float = ALPHA
) -> float:
    """Standard error of the distance: its spread over new samples of both data sets.

    A new sample means other images drawn from where these came from, another head and other
    drawn labels. Each embedding's share is a delete-a-group jackknife, and the two are
    independent. Where an embedding came without its deviations (from a card), its
    `recorded_standard_error` is used; NaN where that is not known either. One and the same
    measurement is 0 from itself, whatever the images.

    Raises:
        EmbeddingMismatchError: The spaces differ.
        SettingsError: An unknown name or an unusable ``alpha``.
    """
    source.space.require_equal(target.space)
    if source == target:
        return 0.0
    rows = _rows_function(name, target, alpha)
    shares = []
    for embedding in (source, target):
        if embedding.deviations is None:
            shares.append(recorded_standard_error(embedding, name=name))
            continue
        if embedding is source:
            values = rows(replicates(source), _row(target.fisher))
        else:
            values = rows(_row(source.fisher), replicates(target))
        shares.append(float(jackknife_standard_error(values)))
    return math.hypot(*shares)


def recorded_standard_error(embedding: TaskEmbedding, *, name: DistanceName = "symmetric") -> float:
    """Typical share of an embedding in a distance's standard error, as recorded when it was measured.

    It was recorded for the symmetric distance and is lent to the asymmetric one, which is on the same
    scale; NaN for all others.
    """
    if name in ("symmetric", "asymmetric"):
        return embedding.measurement.distance_standard_error
    return float("nan")


def replicates(embedding: TaskEmbedding) -> NDArray[np.float64]:
    """The embedding with each group of images left out in turn, ``(n_groups, n_filters)``.

    Raises:
        SettingsError: The embedding came without its deviations.
    """
    if embedding.deviations is None:
        raise SettingsError(
            f"The embedding of {embedding.task.id!r} has no jackknife deviations (a card does not carry "
            f"them); load it from its file or measure it again."
        )
    moved: Rows = embedding.fisher.astype(np.float64) * (1.0 + embedding.deviations.astype(np.float64))
    return np.maximum(moved, 0.0)


def _row(vector: NDArray[np.float32]) -> Rows:
    return vector.astype(np.float64)[None, :]


def _rows_function(
    name: DistanceName, embedding: TaskEmbedding, alpha: float
) -> Callable[[Rows, Rows], Rows]:
    """The named distance as a function of broadcastable rows of Fisher values of one space.

    Equal spaces have equal probes and so equal priors: any embedding of the space can lend its own.
    """
    if not np.isfinite(alpha) or alpha < 0:
        raise SettingsError(f"alpha must be a finite number >= 0, not {alpha!r}.")
    if name == "asymmetric":
        trivial = embedding.prior_precision[None, :]
        beta = embedding.space.beta
        precise = embedding.space.family == "variational"

        def asymmetric(source: Rows, target: Rows) -> Rows:
            if not precise:
                source = source / (2 * beta) + trivial
                target = target / (2 * beta) + trivial
            return _symmetric(source, target) - alpha * _symmetric(source, trivial)

        return asymmetric
    if name == "normalized_cosine":
        trivial = embedding.prior_precision[None, :]
        return lambda source, target: _normalized_cosine(source, target, trivial)
    if name not in _BY_NAME:
        known = ", ".join(["asymmetric", "normalized_cosine", *_BY_NAME])
        raise SettingsError(f"There is no distance {name!r}. Choose one of: {known}.")
    return _BY_NAME[name]


def _shares(source: Rows, target: Rows) -> tuple[Rows, Rows]:
    """The shares u and v, each straight from its own quotient: 1 - u would cancel when the scales differ."""
    total = source + target
    equal = total == 0
    if not equal.any():
        return source / total, target / total
    total = np.where(equal, 1.0, total)
    return np.where(equal, 0.5, source / total), np.where(equal, 0.5, target / total)


def _symmetric(source: Rows, target: Rows) -> Rows:
    u, v = _shares(source, target)
    uu = np.einsum("ij,ij->i", u, u)
    vv = np.einsum("ij,ij->i", v, v)
    uv = np.einsum("ij,ij->i", u, v)
    # Where one task is zero throughout, no direction is left: as far apart as can be.
    norm = np.sqrt(uu * vv)
    result: Rows = 1.0 - np.divide(uv, norm, out=np.zeros_like(uv), where=norm > 0)
    return np.clip(result, 0.0, 1.0)


def _divergence(precision: Rows, other: Rows) -> Rows:
    """KL divergence of two centred Gaussians of these precisions, per filter, in nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = other / precision
        excess = (other - precision) / precision  # ratio - 1 without its rounding, where it is small
        logarithm = np.where(np.abs(excess) < 0.5, np.log1p(excess), np.log(ratio))
        result: Rows = 0.5 * (excess - logarithm)
    result = np.where((precision == 0) & (other == 0), 0.0, np.where(np.isnan(result), np.inf, result))
    return result


def _kl(source: Rows, target: Rows) -> Rows:
    result: Rows = np.maximum(_divergence(source, target), _divergence(target, source)).sum(axis=1)
    return result


def _asymmetric_kl(source: Rows, target: Rows) -> Rows:
    result: Rows = _divergence(source, target).sum(axis=1)
    return result


def _jsd(source: Rows, target: Rows) -> Rows:
    # The mean variance (1/a + 1/b)/2 has the precision 2ab/(a + b), which is 0 where either is.
    total = source + target
    middle = np.divide(2 * source * target, total, out=np.zeros_like(total), where=total > 0)
    result: Rows = 0.5 * (_divergence(source, middle) + _divergence(target, middle)).mean(axis=1)
    return result


def _entropy(source: Rows, target: Rows) -> Rows:
    u, v = _shares(source, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = -np.where(u > 0, u * np.log(u), 0.0) - np.where(v > 0, v * np.log(v), 0.0)
    result: Rows = np.maximum(np.log(2.0) - nats.mean(axis=1), 0.0)
    return result


def _variances(source: Rows, target: Rows) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    source, target = np.broadcast_arrays(source, target)
    usable = (source > 0) & (target > 0)
    return 1.0 / np.where(usable, source, 1.0), 1.0 / np.where(usable, target, 1.0), usable


def _cosine_distance(a: Rows, b: Rows) -> Rows:
    # Each is divided by its largest entry first, so that no square overflows or vanishes.
    a = a / np.maximum(np.abs(a).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    b = b / np.maximum(np.abs(b).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    dot = (a * b).sum(axis=1)
    result: Rows = 1.0 - np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
    return np.maximum(result, 0.0)  # rounding may leave -1e-16 for equal vectors


def _correlation(source: Rows, target: Rows) -> Rows:
    a, b, usable = _variances(source, target)
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1)
    a = np.where(usable, a - (a * usable).sum(axis=1, keepdims=True) / count, 0.0)
    b = np.where(usable, b - (b * usable).sum(axis=1, keepdims=True) / count, 0.0)
    return _cosine_distance(a, b)


def _normalized_cosine(source: Rows, target: Rows, trivial: Rows) -> Rows:
    a, b, usable = _variances(source, target)
    return _cosine_distance(a * trivial * usable, b * trivial * usable)


_BY_NAME: dict[str, Callable[[Rows, Rows], Rows]] = {
    "symmetric": _symmetric,
    "kl": _kl,
    "asymmetric_kl": _asymmetric_kl,
    "jsd": _jsd,
    "entropy": _entropy,
    "correlation": _correlation,
}
