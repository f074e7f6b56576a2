"""The Fisher of one task in fixed blocks, and how far it moves when a group of images is left out."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import hadamard
from torch import Tensor
from tqdm import tqdm

from t2v_hub.blocks import N_GROUPS, BlockLayout, BlockStore
from t2v_hub.data import DecodedSample
from t2v_hub.errors import InsufficientMemoryError, ProbeOutputError, SmallerBatchWarning
from t2v_hub.fisher import SquaredGradients
from t2v_hub.fisher.estimators import Estimator, directions, draw_labels
from t2v_hub.head import Head, HeadRecipe
from t2v_hub.probe import ProbeNetwork

Array = NDArray[np.float64]

N_REPLICATES = N_GROUPS - 1
"""Replicates of the standard error: the rows of Hadamard's matrix but for the constant one."""

N_SUMS = 2 + 2 * N_REPLICATES
"""Rows of a block's sums: all images; the same in each replicate; the shown ones; those in each replicate."""

_CPU_PASS = 8  # larger passes are not faster on a CPU, and one size for all keeps the bits
_STEP = 0.3  # groups count 0.7 or 1.3 in a replicate: no class is ever left out, changes stay linear
# Over the rows of Hadamard's matrix but for the constant one, the squares of the centred replicates sum
# to step² * G * (R-1)/R times the variance (G groups, R = G - 1 replicates). So scaled, the formula of
# the delete-a-group jackknife, (R-1)/R times their sum, gives the variance itself.
_TO_JACKKNIFE = N_REPLICATES / (N_REPLICATES - 1) / math.sqrt(N_GROUPS) / _STEP
_SHOWN = 24  # images that show what another head changes: it changes all alike, so a few will do


@dataclass(frozen=True)
class Estimate:
    """What was measured.

    Attributes:
        fisher: ``(n_filters,)`` float64.
        deviations: ``(n_replicates, n_filters)``, relative; see `TaskEmbedding`.
        mean_confidence: Mean of the head's largest probability.
        pass_size: Images per forward and backward pass at the end.
    """

    fisher: Array
    deviations: Array
    mean_confidence: float
    pass_size: int


class TaskFisher:
    """Measures one sample with one probe.

    The standard error comes from balanced repeated replication with Fay's weights (Judkins,
    "Fay's method for variance estimation", 1990): 15 replicates, in each of which every one of 16
    groups of images counts about 0.7 or 1.3 by a row of Hadamard's matrix, for the head and for the
    Fisher. Classes count in each what they count in the sample, as they do in every sample drawn
    by class. The head is fitted again in each; what that changes is read off a few images, whose
    drawn labels are kept and reweighted by the quotient of both heads' probabilities.

    Args:
        probe: The probe, placed where it is to run, inside `frozen`.
        sample: The images and labels.
        recipe: How the head is fitted.
        estimator: Which expectation over labels.
        n_labels: Labels drawn per image.
        seed: What all randomness hangs on.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show bars.
        name: What the bars call the task.
    """

    def __init__(
        self,
        probe: ProbeNetwork,
        sample: DecodedSample,
        *,
        recipe: HeadRecipe,
        estimator: Estimator,
        n_labels: int,
        seed: int,
        batch_size: int,
        progress: bool,
        name: str,
    ) -> None:
        self.probe = probe
        self.sample = sample
        self.recipe = recipe
        self.estimator = estimator
        self.n_labels = n_labels
        self.seed = seed
        self.multi_label = sample.labels.ndim == 2
        self.n_classes = int(sample.labels.shape[1] if self.multi_label else sample.labels.max() + 1)
        self.layout = BlockLayout(len(sample.labels))
        self._pass_size = _CPU_PASS if probe.device.type == "cpu" else min(batch_size, self.layout.block_size)
        self._progress = progress
        self._name = name
        self._heads: list[Head] = []
        self._n_filters = sum(layer.n_filters for layer in probe.layers)
        classes = np.zeros(len(sample.labels), np.int64) if self.multi_label else sample.labels
        self._factors = replicate_factors(self.layout.groups, classes)
        self._shown = {int(place) for place in self.layout.spread(_SHOWN)}

    def run(self, store: BlockStore) -> Estimate:
        """Measure what the store does not hold yet, and add everything up in the order of the blocks.

        Raises:
            ProbeOutputError: Features or gradients are not finite.
            InsufficientMemoryError: Not even one image fits into memory.
            StorageError: A finished block cannot be kept.
        """
        self._fit_heads()
        squares = SquaredGradients(self.probe.module, self.probe.features, self.probe.layers)
        layout = self.layout
        with self._bar("Fisher", layout.n_samples) as bar:
            for index in range(layout.n_blocks):
                if store.get(index) is None:
                    store.put(index, self._block(layout.block(index), squares))
                bar.update(len(layout.block(index)))
        total = np.zeros((N_SUMS, self._n_filters))
        for index in range(layout.n_blocks):
            sums = store.get(index)
            assert sums is not None
            total += sums
        fisher, deviations = self._relative(total)
        confidence = float(self._probabilities.max(axis=1).mean())
        return Estimate(fisher, deviations, confidence, self._pass_size)

    def _fit_heads(self) -> None:
        self._features = self._read_features()
        self._head = self._fit(np.ones(self.layout.n_samples))
        self._probabilities = self._head.probabilities(self._features)
        if self.estimator == "empirical":
            self._labels = self.sample.labels.astype(np.int64)[:, None]
        else:
            self._labels = draw_labels(
                self._probabilities, self.n_labels, seed=self.seed, multi_label=self.multi_label
            )
        with self._bar("heads", len(self._factors)) as bar:
            for factors in self._factors:
                self._heads.append(self._fit(factors))
                bar.update()

    def _fit(self, weights: Array) -> Head:
        return self.recipe.fit(
            self._features, self.sample.labels, n_classes=self.n_classes, weights=weights, seed=self.seed
        )

    def _read_features(self) -> Array:
        rows: list[Array] = []
        count, start = self.layout.n_samples, 0
        with self._bar("features", count) as bar:
            while start < count:
                stop = min(start + self._pass_size, count)
                try:
                    with torch.no_grad():
                        features = self.probe.features(self._inputs(start, stop))[: stop - start]
                except (RuntimeError, MemoryError) as error:
                    self._shrink(error)
                    continue
                rows.append(features.double().cpu().numpy())
                start = stop
                bar.update(len(features))
        result = np.concatenate(rows)
        bad = int((~np.isfinite(result).all(axis=1)).sum())
        if bad:
            raise ProbeOutputError(
                f"{self.probe.name!r} gives NaN or infinite features for {bad} of {count} images. Check its "
                f"weights and its preprocessing (mean, std), or measure with dtype='float64'."
            )
        return result

    def _block(self, samples: range, squares: SquaredGradients) -> Array:
        """Sums over one block, ``(N_SUMS, n_filters)``; passes never reach over the end of a block."""
        sums = np.zeros((N_SUMS, self._n_filters))
        start = samples.start
        while start < samples.stop:
            places = np.arange(start, min(start + self._pass_size, samples.stop))
            try:
                rows, moved = self._pass(places, squares)
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)
                continue
            # One after the other, so that the order of additions does not hang on the size of a pass.
            for i, place in enumerate(places):
                row = self.sample.weights[place] * rows[i]
                sums[0] += row
                sums[1 : 1 + N_REPLICATES] += self._factors[:, place, None] * row
                if int(place) in self._shown:
                    sums[1 + N_REPLICATES] += row
                    for replicate, other in enumerate(moved):
                        sums[2 + N_REPLICATES + replicate] += self.sample.weights[place] * other[i]
            start += len(places)
        return sums

    def _pass(self, places: NDArray[np.int64], squares: SquaredGradients) -> tuple[Array, list[Array]]:
        """Each image's Fisher, ``(len(places), n_filters)``, and under each replicate's head, if shown."""
        shown = not self._shown.isdisjoint(places.tolist())
        squares.forward(self._inputs(int(places[0]), int(places[-1]) + 1))
        rows = self._backward(squares, places, self._head, keep=shown)
        if not shown:
            return rows, []
        last = len(self._heads) - 1
        return rows, [
            self._backward(squares, places, head, keep=replicate < last)
            for replicate, head in enumerate(self._heads)
        ]

    def _backward(
        self, squares: SquaredGradients, places: NDArray[np.int64], head: Head, *, keep: bool
    ) -> Array:
        terms = directions(
            self.estimator,
            head.weight,
            head.probabilities(self._features[places]),
            self._labels[places],
            drawn_from=None if head is self._head else self._probabilities[places],
            multi_label=self.multi_label,
        )
        total: Array | None = None
        following = next(terms, None)
        while following is not None:
            (direction, weight), following = following, next(terms, None)
            padded = np.zeros((self._pass_size, direction.shape[1]))
            padded[: len(direction)] = direction
            vectors = torch.from_numpy(padded).to(self.probe.device)
            rows = squares.backward(vectors, keep=keep or following is not None)
            part = rows[: len(direction)].cpu().numpy() * weight[:, None]
            total = part if total is None else total + part
        assert total is not None
        if not np.isfinite(total).all():
            raise ProbeOutputError(
                f"{self.probe.name!r} gives NaN or infinite gradients. Check its weights and its "
                f"preprocessing (mean, std), or measure with dtype='float64'."
            )
        return total

    def _inputs(self, start: int, stop: int) -> Tensor:
        """Images of one pass, filled up with the last one so that every pass has one shape."""
        places = np.minimum(np.arange(start, start + self._pass_size), stop - 1)
        pixels = torch.from_numpy(self.sample.images[places]).to(self.probe.device)
        return self.probe.preprocessing.normalise(pixels).to(next(self.probe.module.parameters()).dtype)

    def _relative(self, sums: Array) -> tuple[Array, Array]:
        """The Fisher, and its relative deviations in the replicates."""
        weights = self.sample.weights
        fisher = sums[0] / weights.sum()
        base = sums[1 + N_REPLICATES]
        deviations = np.zeros((N_REPLICATES, self._n_filters))
        for replicate, factors in enumerate(self._factors):
            own_images = sums[1 + replicate] / (factors @ weights)
            moved = sums[2 + N_REPLICATES + replicate]
            own_head = np.divide(moved, base, out=np.ones_like(base), where=base > 0)
            np.divide(own_images * own_head - fisher, fisher, out=deviations[replicate], where=fisher > 0)
        return fisher, deviations * _TO_JACKKNIFE

    def _shrink(self, error: BaseException) -> None:
        """Halve the pass after running out of memory; anything else is raised again."""
        if not _out_of_memory(error):
            raise error
        if self._pass_size == 1:
            raise InsufficientMemoryError(
                f"One image of {self.sample.images.shape[1:]} does not fit into the memory of "
                f"{self.probe.device} with {self.probe.name!r}. Use a smaller image_size, fewer filters, or "
                f"a smaller probe."
            ) from error
        self._pass_size //= 2
        if self.probe.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"Out of memory: going on with {self._pass_size} images per pass. Results differ by rounding.",
            SmallerBatchWarning,
            stacklevel=2,
        )

    def _bar(self, what: str, total: int) -> "tqdm[Any]":
        # disable=None: silent where nobody watches (no terminal).
        disable = None if self._progress else True
        return tqdm(total=total, desc=f"{self._name}: {what}", disable=disable, leave=False)


def replicate_factors(groups: NDArray[np.int64], classes: NDArray[np.int64]) -> Array:
    """What each image counts in each replicate, ``(N_REPLICATES, n_samples)``, all positive.

    Within a class the factors have mean 1, and their deviations are stretched so that the variance of
    a class's mean is estimated without bias, however few images and groups the class has. A class that
    lies in one group says nothing about its own variance; its images count 1.

    Args:
        groups: Group of each image, ``(n_samples,)``.
        classes: Class of each image, ``(n_samples,)``.
    """
    signs = hadamard(N_GROUPS)[1:].astype(np.float64)[:, groups]
    for code in np.unique(classes):
        own = np.flatnonzero(classes == code)
        shares = np.bincount(groups[own], minlength=N_GROUPS) / len(own)
        signs[:, own] -= signs[:, own].mean(axis=1, keepdims=True)
        lost = float(np.square(shares).sum())  # 1/16 of the variance where all groups take part alike
        signs[:, own] *= 1 / np.sqrt(1 - lost) if lost < 1 else 0.0
    return 1 + _STEP * signs


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
