"""The distance between two embeddings, and how sure it is."""

import math

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.formulas import ALPHA, WITH_COMPLEXITY, DistanceName, Rows, formula
from t2v_hub.embedding import TaskEmbedding, jackknife_standard_error
from t2v_hub.errors import SettingsError


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

    ``relative`` is the asymmetric distance of embeddings that were brought to one mean: how the information
    is divided among the filters, whatever there is of it. With many classes and few images of each a head
    says little and the whole embedding is small, so other distances find such tasks far from all others
    (``docs/selection.md``).

    Besides these, `symmetric_distance` and `asymmetric_distance`, the distances of the reference
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
    rows = formula(name, target, alpha)
    return float(rows(_row(source.fisher), _row(target.fisher))[0])


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
    rows = formula(name, target, alpha)
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

    It was recorded for the symmetric distance and is lent to the asymmetric and the relative one, which are
    on the same scale; NaN for all others.
    """
    if name == "symmetric" or name in WITH_COMPLEXITY:
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
