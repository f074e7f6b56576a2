"""The Fisher of one task in fixed blocks, and how far it moves when a group of images is left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from t2v_hub.blocks import BlockLayout, BlockStore
from t2v_hub.data import DecodedSample
from t2v_hub.errors import ProbeOutputError
from t2v_hub.fisher import SquaredGradients
from t2v_hub.fisher.estimators import Estimator, directions, draw_labels, proposal
from t2v_hub.head import Head, HeadProblem, HeadRecipe
from t2v_hub.passes import Passes
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
        squares: Of the probe's features, placed where it is to run, inside `frozen`.
        probe: The probe.
        sample: The images and labels.
        recipe: How the head is fitted.
        estimator: Which expectation over labels.
        n_labels: Labels drawn per image.
        seed: What all randomness hangs on.
        batch_size: Images per pass on an accelerator.
        tolerance: Relative standard error of the embedding that is small enough; None for all images.
        standard_error: Whether to measure replicates.
        progress: Whether to show bars.
        name: What the bars call the task.

    Attributes:
        n_replicates: For the standard error; 0 without.
        n_filters: Of the probe.
    """

    def __init__(
        self,
        squares: SquaredGradients,
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
        progress: bool,
        name: str,
    ) -> None:
        self.squares = squares
        self.probe = probe
        self.sample = sample
        self.recipe = recipe
        self.estimator = estimator
        self.n_labels = n_labels
        self.seed = seed
        self.tolerance = tolerance
        self.processes = Processes()
        self.multi_label = sample.labels.ndim == 2
        self.n_classes = int(sample.labels.shape[1] if self.multi_label else sample.labels.max() + 1)
        self.layout = BlockLayout(len(sample.labels))
        self.passes = Passes(probe, sample.images, batch_size=batch_size, autocast=squares.autocast)
        self._progress = progress
        self._name = name
        self._heads: list[Head] = []
        self.n_filters = sum(layer.n_filters for layer in probe.layers)
        classes = (
            np.zeros(len(sample.labels), np.int64) if self.multi_label else sample.labels.astype(np.int64)
        )
        self._factors = replicate_factors(classes)[: None if standard_error else 0]
        self.n_replicates = len(self._factors)
        self._shown = self._shown_passes()

    def run(self, store: BlockStore) -> Estimate:
        """Measure what the store does not hold yet, and add everything up in the order of the blocks.

        Raises:
            ProbeOutputError: Features or gradients are not finite.
            InsufficientMemoryError: Not even one image fits into memory.
            StorageError: A finished block cannot be kept.
        """
        self._fit_heads()
        n_blocks = self.layout.n_blocks
        step = n_blocks if self.tolerance is None else ROUND
        total, shown = np.zeros((1 + self.n_replicates, self.n_filters)), []
        with self._bar("Fisher", self.layout.n_samples) as bar:
            for start in range(0, n_blocks, step):
                indices = range(start, min(start + step, n_blocks))
                for sums in self._measured(indices, store, bar):
                    total += sums[: 1 + self.n_replicates]
                    shown.append(sums[1 + self.n_replicates :])
                n_samples = self.layout.block(indices[-1]).stop
                if self.tolerance is not None:
                    error = relative_error(*self._relative(total, np.concatenate(shown), n_samples))
                    bar.set_postfix_str(f"error {error:.1%} of {self.tolerance:.1%}")
                    if error <= self.tolerance:
                        break
        pass_size = min(self.processes.share(lambda: self.passes.size))
        return self.finished(total, np.concatenate(shown), n_samples, pass_size)

    def finished(self, total: Array, shown: Array, n_samples: int, pass_size: int) -> Estimate:
        """What sums say.

        Args:
            total: Over the first images, and in each replicate, ``(1 + n_replicates, n_filters)``.
            shown: Over each shown pass, and under each replicate's head, as many rows for each.
            n_samples: How many images are in ``total``.
            pass_size: Images per pass at the end.
        """
        fisher, deviations = self._relative(total, shown, n_samples)
        confidence = float(self._probabilities.max(axis=1).mean())
        return Estimate(fisher, n_samples, deviations, confidence, pass_size)

    def _measured(self, indices: range, store: BlockStore, bar: "tqdm[Any]") -> list[Array]:
        """Sums over some blocks in their order, whichever process measures or finds them."""

        def sums_of(index: int) -> Array:
            sums = store.get(index, self._shape(index))
            if sums is None:
                sums = self._block(self.layout.block(index))
                store.put(index, sums)
            bar.update(len(self.layout.block(index)) * self.processes.count)
            return sums

        def cost(index: int) -> float:
            block = self.layout.block(index)
            n_shown = sum(map(len, self._shown_in(block)))
            n_terms = self.n_classes if self.estimator == "exact" else self._labels.shape[1]
            n_further = len(block) * (n_terms - 1) + n_shown * n_terms * self.n_replicates
            return len(block) + _BACKWARD * n_further

        return self.processes.share_out(indices, sums_of, cost=cost)

    def _relative(self, total: Array, shown: Array, n_samples: int) -> tuple[Array, Array]:
        """The Fisher of the first images, and its relative deviations in the replicates."""
        weights, factors = self.sample.weights[:n_samples], self._factors[:, :n_samples]
        fisher = total[0] / weights.sum()
        if not self.n_replicates:
            return fisher, np.zeros((0, self.n_filters))
        changes = shown.reshape(-1, 1 + self.n_replicates, self.n_filters)
        own_head = changes_of_heads(changes, fisher, [layer.n_filters for layer in self.probe.layers])
        moved = total[1:] / (factors @ weights)[:, None] * (1 + own_head)
        deviations = np.divide(moved, fisher, out=np.ones_like(moved), where=fisher > 0) - 1
        return fisher, deviations * TO_JACKKNIFE

    def problems(self, features: Array) -> list[HeadProblem]:
        """What heads are to be fitted to: that of the task, and those of the replicates."""
        weights = np.concatenate([np.ones((1, self.layout.n_samples)), self._factors])
        return [HeadProblem(features, self.sample.labels, self.n_classes, row) for row in weights]

    def settle(self, features: Array, heads: Sequence[Head]) -> None:
        """Go on with these features, and with the heads of `problems`: labels are drawn."""
        self._features = features
        self._head, *self._heads = heads
        self._probabilities = self._head.probabilities(features)
        self._drawn_from = self._probabilities_of_draws()
        if self.estimator == "empirical":
            self._labels = self.sample.labels.astype(np.int64)[:, None]
        else:
            self._labels = draw_labels(
                self._drawn_from, self.n_labels, seed=self.seed, multi_label=self.multi_label
            )

    def forget(self) -> None:
        """Let go of what `settle` made; it outweighs what was measured."""
        del self._features, self._head, self._heads, self._probabilities, self._drawn_from, self._labels

    def _probabilities_of_draws(self) -> Array:
        """Which labels to draw; of several per image, those that the model would."""
        return self._probabilities if self.multi_label else proposal(self._head.weight, self._probabilities)

    def _fit_heads(self) -> None:
        with self._bar("features", self.layout.n_samples) as bar:
            features = self.passes.all_features(self.processes, bar)
        check_features(features, self.probe.name)
        problems = self.problems(features)
        with self._bar("heads", len(problems)) as bar:

            def head_of(row: int) -> Head:
                head = self.recipe.fit_many([problems[row]], seed=self.seed)[0]
                bar.update(self.processes.count)
                return head

            heads = self.processes.share_out(range(len(problems)), head_of)
        self.settle(features, heads)

    def _shown_passes(self) -> list[range]:
        """Evenly spread passes of full size in the first round; all of a task that has only few."""
        if not self.n_replicates:
            return []
        passes = [
            range(start, min(start + self.passes.size, block.stop))
            for block in map(self.layout.block, range(min(ROUND, self.layout.n_blocks)))
            for start in range(block.start, block.stop, self.passes.size)
        ]
        full = [places for places in passes if len(places) == self.passes.size]
        passes = full if len(full) >= _SHOWN else passes
        count = min(_SHOWN, len(passes))
        return [passes[i * len(passes) // count] for i in range(count)]

    def _shown_in(self, samples: range) -> list[range]:
        return [places for places in self._shown if places.start in samples]

    def _shape(self, index: int) -> tuple[int, int]:
        n_shown = len(self._shown_in(self.layout.block(index)))
        return (1 + n_shown) * (1 + self.n_replicates), self.n_filters

    def room(self, samples: range | None = None) -> Array:
        """Zeros for the sums over some images, all where absent.

        ``(1 + shown passes, 1 + n_replicates, n_filters)``: over all images, and the same in each replicate;
        then, for each shown pass, over its images, and the same under each replicate's head.
        """
        n_shown = len(self._shown if samples is None else self._shown_in(samples))
        return np.zeros((1 + n_shown, 1 + self.n_replicates, self.n_filters))

    def add(self, sums: Array, place: int, rows: Array, samples: range | None = None) -> None:
        """Add an image to sums of the same ``samples``.

        Args:
            sums: As `room` makes them.
            place: Of the image.
            rows: Its Fisher, ``(1, n_filters)``, and if it `is_shown`, under each replicate's head.
            samples: As in `room`.
        """
        row = self.sample.weights[place] * rows[0]
        sums[0, 0] += row
        sums[0, 1:] += self._factors[:, place, None] * row
        shown = self._shown if samples is None else self._shown_in(samples)
        for own, others in zip(sums[1:], shown, strict=True):
            if place in others:
                own[0] += row
                own[1:] += self.sample.weights[place] * rows[1:]

    def is_shown(self, place: int) -> bool:
        """Whether an image is to be seen under each replicate's head, too."""
        return any(place in others for others in self._shown)

    def terms(self, row: int, places: range) -> Iterator[tuple[Array, Array]]:
        """Directions and weights as `directions` gives them for some images under one of the heads.

        Args:
            row: 0 for the task's own head, from 1 on for the replicates'.
            places: The images.
        """
        part = slice(places.start, places.stop)
        head = (self._head, *self._heads)[row]
        return directions(
            self.estimator,
            head.weight,
            head.probabilities(self._features[part]),
            self._labels[part],
            drawn_from=self._drawn_from[part],
            multi_label=self.multi_label,
        )

    def _block(self, samples: range) -> Array:
        """Sums over one block, by rows; passes never reach over its end."""
        sums = self.room(samples)
        # One after the other, so that the order of additions does not hang on the size of a pass.
        for places, rows in self.passes.over(samples, self._pass):
            for i, place in enumerate(places):
                self.add(sums, place, rows[:, i], samples)
        return sums.reshape(-1, self.n_filters)

    def _pass(self, places: range) -> Array:
        """Each image's Fisher, and under each replicate's head if shown, ``(1, len(places), n_filters)``."""
        n_heads = 1
        if any(map(self.is_shown, (places[0], places[-1]))):
            n_heads += len(self._heads)
        self.squares.forward(self.passes.inputs(places))
        return np.stack([self._backward(places, row, keep=row < n_heads - 1) for row in range(n_heads)])

    def _backward(self, places: range, row: int, *, keep: bool) -> Array:
        total: Array | None = None
        terms = self.terms(row, places)
        following = next(terms, None)
        while following is not None:
            (direction, weight), following = following, next(terms, None)
            padded = np.zeros((self.passes.size, direction.shape[1]))
            padded[: len(direction)] = direction
            vectors = torch.from_numpy(padded).to(self.probe.device)
            rows = self.squares.backward(vectors, keep=keep or following is not None)
            term = rows[: len(direction)].cpu().numpy() * weight[:, None]
            total = term if total is None else total + term
        assert total is not None
        check_gradients(total, self.probe.name)
        return total

    def _bar(self, what: str, total: int) -> "tqdm[Any]":
        # disable=None: silent where nobody watches (no terminal).
        disable = None if self._progress and self.processes.is_main else True
        return tqdm(total=total, desc=f"{self._name}: {what}", disable=disable, leave=False)


def check_features(features: Array, name: str) -> None:
    """Return when all features are finite.

    Raises:
        ProbeOutputError: Some are not.
    """
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise ProbeOutputError(
            f"{name!r} gives NaN or infinite features for {bad} of {len(features)} images. "
            f"Check its weights and its preprocessing (mean, std), or measure with dtype='float64'."
        )


def check_gradients(rows: Array, name: str) -> None:
    """Return when all squares are finite.

    Raises:
        ProbeOutputError: Some are not.
    """
    if not np.isfinite(rows).all():
        raise ProbeOutputError(
            f"{name!r} gives NaN or infinite gradients. Check its weights and its "
            f"preprocessing (mean, std), or measure with dtype='float64'."
        )
