r"""Standard errors by replication: what a measurement would have been with images weighted otherwise.

Balanced repeated replication with Fay's weights (Judkins, "Fay's method for variance estimation",
1990): the images fall into 16 groups, and in each of 15 replicates every group counts about 0.7 or 1.3,
by a row of Hadamard's matrix, for the head and for the Fisher. Classes count in each what they count
in the sample, as they do in every sample drawn by class.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

from t2v_hub.distance import symmetric_distance
from t2v_hub.embedding import TaskEmbedding, jackknife_standard_error

Array = NDArray[np.float64]

N_GROUPS = 16
"""Groups of images that are reweighted; a power of two, for Hadamard's matrix."""

N_REPLICATES = N_GROUPS - 1
"""The rows of Hadamard's matrix but for the constant one."""

_STEP = 0.3  # groups count 0.7 or 1.3 in a replicate: no class is ever left out, changes stay linear
# Over the rows of Hadamard's matrix but for the constant one, the squares of the centred replicates sum
# to step² * G * (R-1)/R times the variance (G groups, R = G - 1 replicates). So scaled, the formula of
# the delete-a-group jackknife, (R-1)/R times their sum, gives the variance itself.
TO_JACKKNIFE = N_REPLICATES / (N_REPLICATES - 1) / math.sqrt(N_GROUPS) / _STEP
"""Scales deviations so that `jackknife_standard_error` gives their standard error."""


def replicate_factors(classes: NDArray[np.int64]) -> Array:
    """What each image counts in each replicate, ``(N_REPLICATES, n_samples)``, all positive.

    Within a class the factors have mean 1, and their deviations are stretched so that the variance of
    a class's mean is estimated without bias, however few images and groups the class has. A class of one
    image says nothing about its variance: such classes are taken together, or with the smallest other.

    Each class deals its images to the groups in turn, 16 at a time in a random order of the groups; so
    the first images of a sample are dealt as evenly as all of them.

    Args:
        classes: Class of each image, ``(n_samples,)``.
    """
    codes, counts = np.unique(classes, return_counts=True)
    alone = codes[counts == 1]
    if len(alone):
        smallest = codes[np.argsort(counts, kind="stable")[:2]]
        together = alone if len(alone) > 1 else smallest
        classes = np.where(np.isin(classes, together), together[0], classes)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0x62BB)))
    groups = np.zeros(len(classes), np.int64)
    for code in np.unique(classes):
        own = np.flatnonzero(classes == code)
        rounds = -(-len(own) // N_GROUPS)
        dealt = np.argsort(generator.random((rounds, N_GROUPS)), axis=1, kind="stable")
        groups[own] = dealt.ravel()[: len(own)]
    signs = hadamard(N_GROUPS)[1:].astype(np.float64)[:, groups]
    for code in np.unique(classes):
        own = np.flatnonzero(classes == code)
        shares = np.bincount(groups[own], minlength=N_GROUPS) / len(own)
        signs[:, own] -= signs[:, own].mean(axis=1, keepdims=True)
        lost = float(np.square(shares).sum())  # 1/16 of the variance where all groups take part alike
        signs[:, own] *= 1 / np.sqrt(1 - lost) if lost < 1 else 0.0
    factors: Array = 1 + _STEP * signs
    return factors


def changes_of_heads(shown: Array, fisher: Array, layers: Sequence[int]) -> Array:
    """What each replicate's head changes, relative, ``(n_replicates, n_filters)``.

    The quotients over few images are too far from 1 by their own noise, known from how the passes
    differ. In each layer they are drawn together until their variance is that without the noise.

    Args:
        shown: Over the images of each shown pass, and under each replicate's head,
            ``(n_shown, 1 + n_replicates, n_filters)``.
        fisher: Over all images, ``(n_filters,)``.
        layers: Filters of each layer.
    """
    base, moved = shown[:, :1], shown[:, 1:]
    total = base.sum(axis=0)
    quotients = np.divide(moved.sum(axis=0), total, out=np.ones(moved.shape[1:]), where=total > 0)
    changes: Array = quotients - quotients.mean(axis=0)
    n_shown = len(shown)
    if n_shown < 2:
        return changes
    residuals = np.divide(moved - quotients * base, total, out=np.zeros_like(moved), where=total > 0)
    noise = np.square(residuals).sum(axis=0) * n_shown / (n_shown - 1)
    start = 0
    for length in layers:
        own = slice(start, start + length)
        squared = np.square(fisher[own])
        spread = float((np.square(changes[:, own]) * squared).sum())
        excess = float((noise[:, own] * squared).sum()) * (N_REPLICATES - 1) / N_REPLICATES  # centred
        changes[:, own] *= math.sqrt(max(0.0, 1 - excess / spread)) if spread > 0 else 0.0
        start += length
    return changes


def relative_error(fisher: Array, deviations: Array) -> float:
    """``sqrt(sum se_f² / sum F_f²)``, the embedding's relative standard error."""
    errors = jackknife_standard_error(deviations) * fisher
    return float(np.sqrt(np.square(errors).sum() / max(np.square(fisher).sum(), 1e-300)))


def with_standard_errors(embedding: TaskEmbedding) -> TaskEmbedding:
    """The embedding with the scalars that sum up its deviations."""
    if embedding.deviations is None or len(embedding.deviations) < 2:
        return embedding
    errors, fisher = embedding.filter_standard_error, embedding.fisher.astype(np.float64)
    alive = fisher > 0
    # What travels without the deviations: the error of the distance to a task that differs from this
    # one in every filter, the one with each layer's mean throughout.
    flat = np.concatenate([np.full(len(part), part.mean()) for part in embedding.by_layer().values()])
    other = dataclasses.replace(embedding, fisher=flat.astype(np.float32), deviations=None)
    moved = [
        symmetric_distance(dataclasses.replace(embedding, fisher=row, deviations=None), other)
        for row in np.maximum(fisher * (1 + embedding.deviations.astype(np.float64)), 0)
    ]
    measurement = dataclasses.replace(
        embedding.measurement,
        standard_error=relative_error(fisher, embedding.deviations.astype(np.float64)),
        median_standard_error=float(np.median(errors[alive] / fisher[alive]))
        if alive.any()
        else float("nan"),
        distance_standard_error=float(jackknife_standard_error(np.array(moved))),
    )
    return dataclasses.replace(embedding, measurement=measurement)
