"""The Fisher of one task in fixed blocks, and how far it moves when a group of images is left out."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from t2v_hub.blocks import BlockLayout, BlockStore
from t2v_hub.data import DecodedSample
from t2v_hub.errors import InsufficientMemoryError, ProbeOutputError, SmallerBatchWarning
from t2v_hub.fisher import SquaredGradients
from t2v_hub.fisher.estimators import Estimator, directions, draw_labels
from t2v_hub.fisher.squares import casting
from t2v_hub.head import Head, HeadRecipe
from t2v_hub.probe import ProbeNetwork
from t2v_hub.processes import Processes
from t2v_hub.replication import (
    TO_JACKKNIFE,
    changes_of_heads,
    relative_error,
    replicate_factors,
)

Array = NDArray[np.float64]

ROUND = 8
"""Blocks after which it is decided whether the error is small enough."""

_CPU_PASS = 8  # larger passes are not faster on a CPU, and one size for all keeps the bits
_BACKWARD = 0.6  # what a further backward pass costs, in first passes
_SHOWN = 3  # passes that show what another head changes; two at least, to tell changes from noise


@dataclass(frozen=True)
class Estimate:
    """What was measured.

    Attributes:
        fisher: ``(n_filters,)`` float64.
        n_samples: Images whose gradients were squared.
        deviations: ``(n_replicates, n_filters)``, relative; see `TaskEmbedding`. No rows where no
            standard error was wanted.
        mean_confidence: Mean of the head's largest probability.
        pass_size: Images per forward and backward pass at the end.
    """

    fisher: Array
    n_samples: int
    deviations: Array
    mean_confidence: float
    pass_size: int


class TaskFisher:
    """Measures one sample with one probe.

    The standard error comes from the replicates of `t2v_hub.replication`. The head is fitted again in
    each; what that changes is read off a few passes, whose drawn labels are kept and reweighted by the
    quotient of both heads' probabilities.

    Args:
        probe: The probe, placed where it is to run, inside `frozen`.
        sample: The images and labels.
        recipe: How the head is fitted.
        estimator: Which expectation over labels.
        n_labels: Labels drawn per image.
        seed: What all randomness hangs on.
        batch_size: Images per pass on an accelerator.
        tolerance: Relative standard error of the embedding that is small enough; None for all images.
        standard_error: Whether to measure replicates.
        autocast: Type of the passes; None for the probe's own.
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
        tolerance: float | None,
        standard_error: bool,
        autocast: torch.dtype | None = None,
        progress: bool,
        name: str,
    ) -> None:
        self.probe = probe
        self.sample = sample
        self.recipe = recipe
        self.estimator = estimator
        self.n_labels = n_labels
        self.seed = seed
        self.tolerance = tolerance
        self.autocast = autocast
        self.processes = Processes()
        self.multi_label = sample.labels.ndim == 2
        self.n_classes = int(sample.labels.shape[1] if self.multi_label else sample.labels.max() + 1)
        self.layout = BlockLayout(len(sample.labels))
        self._pass_size = _CPU_PASS if probe.device.type == "cpu" else min(batch_size, self.layout.block_size)
        self._progress = progress
        self._name = name
        self._heads: list[Head] = []
        self._n_filters = sum(layer.n_filters for layer in probe.layers)
        classes = (
            np.zeros(len(sample.labels), np.int64) if self.multi_label else sample.labels.astype(np.int64)
        )
        self._factors = replicate_factors(classes)[: None if standard_error else 0]
        self._n_replicates = len(self._factors)
        self._shown = self._shown_passes()

    def run(self, store: BlockStore) -> Estimate:
        """Measure what the store does not hold yet, and add everything up in the order of the blocks.

        Raises:
            ProbeOutputError: Features or gradients are not finite.
            InsufficientMemoryError: Not even one image fits into memory.
            StorageError: A finished block cannot be kept.
        """
        self._fit_heads()
        squares = SquaredGradients(
            self.probe.module, self.probe.features, self.probe.layers, autocast=self.autocast
        )
        n_blocks = self.layout.n_blocks
        step = n_blocks if self.tolerance is None else ROUND
        total, shown = np.zeros((1 + self._n_replicates, self._n_filters)), []
        with self._bar("Fisher", self.layout.n_samples) as bar:
            for start in range(0, n_blocks, step):
                indices = range(start, min(start + step, n_blocks))
                for sums in self._measured(indices, store, squares, bar):
                    total += sums[: 1 + self._n_replicates]
                    shown.append(sums[1 + self._n_replicates :])
                n_samples = self.layout.block(indices[-1]).stop
                fisher, deviations = self._relative(total, np.concatenate(shown), n_samples)
                if self.tolerance is not None:
                    error = relative_error(fisher, deviations)
                    bar.set_postfix_str(f"error {error:.1%} of {self.tolerance:.1%}")
                    if error <= self.tolerance:
                        break
        confidence = float(self._probabilities.max(axis=1).mean())
        pass_size = min(self.processes.share(lambda: self._pass_size))
        return Estimate(fisher, n_samples, deviations, confidence, pass_size)

    def _measured(
        self, indices: range, store: BlockStore, squares: SquaredGradients, bar: "tqdm[Any]"
    ) -> list[Array]:
        """Sums over some blocks in their order, whichever process measures or finds them."""

        def sums_of(index: int) -> Array:
            sums = store.get(index, self._shape(index))
            if sums is None:
                sums = self._block(self.layout.block(index), squares)
                store.put(index, sums)
            bar.update(len(self.layout.block(index)) * self.processes.count)
            return sums

        def cost(index: int) -> float:
            block = self.layout.block(index)
            n_shown = sum(map(len, self._shown_in(block)))
            return len(block) + _BACKWARD * n_shown * self._n_replicates

        return self.processes.share_out(indices, sums_of, cost=cost)

    def _relative(self, total: Array, shown: Array, n_samples: int) -> tuple[Array, Array]:
        """The Fisher of the first images, and its relative deviations in the replicates."""
        weights, factors = self.sample.weights[:n_samples], self._factors[:, :n_samples]
        fisher = total[0] / weights.sum()
        if not self._n_replicates:
            return fisher, np.zeros((0, self._n_filters))
        changes = shown.reshape(-1, 1 + self._n_replicates, self._n_filters)
        own_head = changes_of_heads(changes, fisher, [layer.n_filters for layer in self.probe.layers])
        moved = total[1:] / (factors @ weights)[:, None] * (1 + own_head)
        deviations = np.divide(moved, fisher, out=np.ones_like(moved), where=fisher > 0) - 1
        return fisher, deviations * TO_JACKKNIFE

    def _fit_heads(self) -> None:
        self._features = self._read_features()
        weights = np.concatenate([np.ones((1, self.layout.n_samples)), self._factors])
        with self._bar("heads", len(weights)) as bar:

            def head_of(row: int) -> Head:
                head = self.recipe.fit(
                    self._features,
                    self.sample.labels,
                    n_classes=self.n_classes,
                    weights=weights[row],
                    seed=self.seed,
                )
                bar.update(self.processes.count)
                return head

            self._head, *self._heads = self.processes.share_out(range(len(weights)), head_of)
        self._probabilities = self._head.probabilities(self._features)
        if self.estimator == "empirical":
            self._labels = self.sample.labels.astype(np.int64)[:, None]
        else:
            self._labels = draw_labels(
                self._probabilities, self.n_labels, seed=self.seed, multi_label=self.multi_label
            )

    def _read_features(self) -> Array:
        with self._bar("features", self.layout.n_samples) as bar:

            def features_of(index: int) -> Array:
                features = self._features_of(self.layout.block(index))
                bar.update(len(features) * self.processes.count)
                return features

            result = np.concatenate(self.processes.share_out(range(self.layout.n_blocks), features_of))
        bad = int((~np.isfinite(result).all(axis=1)).sum())
        if bad:
            raise ProbeOutputError(
                f"{self.probe.name!r} gives NaN or infinite features for {bad} of {len(result)} images. "
                f"Check its weights and its preprocessing (mean, std), or measure with dtype='float64'."
            )
        return result

    def _features_of(self, samples: range) -> Array:
        rows: list[Array] = []
        start = samples.start
        while start < samples.stop:
            stop = min(start + self._pass_size, samples.stop)
            try:
                with torch.no_grad(), casting(self.probe.device, self.autocast):
                    features = self.probe.features(self._inputs(start, stop))[: stop - start]
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)
                continue
            rows.append(features.double().cpu().numpy())
            start = stop
        return np.concatenate(rows)

    def _shown_passes(self) -> list[range]:
        """Evenly spread passes of full size in the first round; all of a task that has only few."""
        if not self._n_replicates:
            return []
        passes = [
            range(start, min(start + self._pass_size, block.stop))
            for block in map(self.layout.block, range(min(ROUND, self.layout.n_blocks)))
            for start in range(block.start, block.stop, self._pass_size)
        ]
        full = [places for places in passes if len(places) == self._pass_size]
        passes = full if len(full) >= _SHOWN else passes
        count = min(_SHOWN, len(passes))
        return [passes[i * len(passes) // count] for i in range(count)]

    def _shown_in(self, samples: range) -> list[range]:
        return [places for places in self._shown if places.start in samples]

    def _shape(self, index: int) -> tuple[int, int]:
        n_shown = len(self._shown_in(self.layout.block(index)))
        return (1 + n_shown) * (1 + self._n_replicates), self._n_filters

    def _block(self, samples: range, squares: SquaredGradients) -> Array:
        """Sums over one block; passes never reach over its end.

        By rows: all images, and the same in each replicate; then, for each shown pass, its images, and
        the same under each replicate's head.
        """
        shown = self._shown_in(samples)
        sums = np.zeros((1 + len(shown), 1 + self._n_replicates, self._n_filters))
        start = samples.start
        while start < samples.stop:
            places = range(start, min(start + self._pass_size, samples.stop))
            try:
                rows, moved = self._pass(places, squares)
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)
                continue
            # One after the other, so that the order of additions does not hang on the size of a pass.
            for i, place in enumerate(places):
                row = self.sample.weights[place] * rows[i]
                sums[0, 0] += row
                sums[0, 1:] += self._factors[:, place, None] * row
                for own, others in zip(sums[1:], shown, strict=True):
                    if place in others:
                        own[0] += row
                        own[1:] += self.sample.weights[place] * moved[:, i]
            start += len(places)
        return sums.reshape(-1, self._n_filters)

    def _pass(self, places: range, squares: SquaredGradients) -> tuple[Array, Array]:
        """Each image's Fisher, ``(len(places), n_filters)``, and under each replicate's head, if shown."""
        shown = any(place in others for others in self._shown for place in (places[0], places[-1]))
        squares.forward(self._inputs(places[0], places[-1] + 1))
        rows = self._backward(squares, places, self._head, keep=shown)
        if not shown:
            return rows, np.zeros((0, *rows.shape))
        last = len(self._heads) - 1
        return rows, np.stack(
            [
                self._backward(squares, places, head, keep=replicate < last)
                for replicate, head in enumerate(self._heads)
            ]
        )

    def _backward(self, squares: SquaredGradients, places: range, head: Head, *, keep: bool) -> Array:
        part = slice(places.start, places.stop)
        terms = directions(
            self.estimator,
            head.weight,
            head.probabilities(self._features[part]),
            self._labels[part],
            drawn_from=None if head is self._head else self._probabilities[part],
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
            term = rows[: len(direction)].cpu().numpy() * weight[:, None]
            total = term if total is None else total + term
        assert total is not None
        if not np.isfinite(total).all():
            raise ProbeOutputError(
                f"{self.probe.name!r} gives NaN or infinite gradients. Check its weights and its "
                f"preprocessing (mean, std), or measure with dtype='float64'."
            )
        return total

    def _inputs(self, start: int, stop: int) -> Tensor:
        """Images of one pass, filled up with the last one so that every pass has one shape."""
        return self._chosen(np.minimum(np.arange(start, start + self._pass_size), stop - 1))

    def _chosen(self, places: NDArray[np.int64]) -> Tensor:
        pixels = torch.from_numpy(self.sample.images[places]).to(self.probe.device)
        return self.probe.preprocessing.normalise(pixels).to(next(self.probe.module.parameters()).dtype)

    def _shrink(self, error: BaseException) -> None:
        """Halve the pass after running out of memory; anything else is raised again."""
        if not out_of_memory(error):
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
        disable = None if self._progress and self.processes.is_main else True
        return tqdm(total=total, desc=f"{self._name}: {what}", disable=disable, leave=False)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of its accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
