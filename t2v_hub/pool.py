"""Many small tasks at once: their images in one pool, whose passes are full and see each image once."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from t2v_hub.errors import ProbeOutputError
from t2v_hub.estimate import Estimate, TaskFisher, check_features, check_gradients
from t2v_hub.fisher import SquaredGradients
from t2v_hub.passes import Passes
from t2v_hub.probe import ProbeNetwork
from t2v_hub.processes import Processes

Array = NDArray[np.float64]

SMALL = 128
"""Images up to which a task is small: alone, it would leave much of its passes empty."""

# Tasks that are measured side by side: what an interruption costs, and sums in memory.
_GROUP_IMAGES, _GROUP_BYTES = 1024, 256 << 20


class TaskPool:
    """Measures small tasks with one probe.

    An image that several tasks hold runs through the probe once for features and, within a group of
    tasks, once for the Fisher, with a backward pass for each task. Several processes share the groups.

    Args:
        squares: Of the probe's features, placed where it is to run, inside `frozen`.
        probe: The probe.
        tasks: What is to be measured, under the same recipe, seed and estimator.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show bars.
    """

    def __init__(
        self,
        squares: SquaredGradients,
        probe: ProbeNetwork,
        tasks: Sequence[TaskFisher],
        *,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.squares = squares
        self.probe = probe
        self.tasks = tasks
        self.processes = Processes()
        self.progress = progress and self.processes.is_main
        images, self._where = _pooled([task.sample.images for task in tasks])
        self.passes = Passes(probe, images, batch_size=batch_size, autocast=squares.autocast)

    def run(self) -> Iterator[list[tuple[int, Estimate | ProbeOutputError]]]:
        """Measures group by group; each process gets all results.

        Yields:
            Places of tasks and what was measured, or why it cannot be.

        Raises:
            InsufficientMemoryError: Not even one image fits into memory.
        """
        with self._bar("features of small tasks", len(self.passes.images)) as bar:
            features = self.passes.all_features(self.processes, bar)
        groups = list(self._groups())
        with self._bar("Fisher of small tasks", len(self.tasks)) as bar:
            # As many groups at a time as there are processes, so that finished ones can be kept.
            for start in range(0, len(groups), self.processes.count):
                some = range(start, min(start + self.processes.count, len(groups)))
                for part in self.processes.share_out(
                    some, lambda place: self._group(groups[place], features)
                ):
                    bar.update(len(part))
                    yield part

    def _groups(self) -> Iterator[list[int]]:
        """Consecutive tasks, as many as fit."""
        group: list[int] = []
        n_images = n_bytes = 0
        for place, task in enumerate(self.tasks):
            room = task.room()
            # Its sums, and what a pass whose images it all holds would add to them.
            own = len(task.sample), room.nbytes + self.passes.size * room[0].nbytes
            if group and (n_images + own[0] > _GROUP_IMAGES or n_bytes + own[1] > _GROUP_BYTES):
                yield group
                group, n_images, n_bytes = [], 0, 0
            group.append(place)
            n_images, n_bytes = n_images + own[0], n_bytes + own[1]
        yield group

    def _group(self, members: list[int], features: Array) -> list[tuple[int, Estimate | ProbeOutputError]]:
        failures: dict[int, ProbeOutputError] = {}
        sums: dict[int, Array] = {}
        for place in members:
            try:
                check_features(features[self._where[place]], self.probe.name)
            except ProbeOutputError as error:
                failures[place] = error
            else:
                sums[place] = self.tasks[place].room()
        problems = {place: self.tasks[place].problems(features[self._where[place]]) for place in sums}
        first = self.tasks[0]
        heads = iter(
            first.recipe.fit_many([one for some in problems.values() for one in some], seed=first.seed)
        )
        for place, some in problems.items():
            self.tasks[place].settle(features[self._where[place]], [next(heads) for _ in some])

        holders: dict[int, list[tuple[int, int]]] = {}  # of each image: tasks, and where it is in them
        for place in sums:
            for own, image in enumerate(self._where[place]):
                holders.setdefault(int(image), []).append((place, own))
        # By how many backward passes they need, so that few of a pass's images wait for others.
        rounds = {
            image: sum(self._n_heads(place, own) for place, own in some) for image, some in holders.items()
        }
        images = np.array(sorted(holders, key=lambda image: (-rounds[image], image)), np.int64)
        for part, rows in self.passes.over(images, lambda part: self._pass(part, holders)):
            for image in part:
                for place, own in holders[int(image)]:
                    try:
                        check_gradients(rows[place, own], self.probe.name)
                    except ProbeOutputError as error:
                        failures.setdefault(place, error)
                    self.tasks[place].add(sums[place], own, rows[place, own])

        results: list[tuple[int, Estimate | ProbeOutputError]] = []
        for place in members:
            task = self.tasks[place]
            if place in failures:
                results.append((place, failures[place]))
            else:
                total, shown = sums[place][0], sums[place][1:].reshape(-1, task.n_filters)
                results.append((place, task.finished(total, shown, len(task.sample), self.passes.size)))
            if place in sums:
                task.forget()
        return results

    def _pass(
        self, images: NDArray[np.int64], holders: dict[int, list[tuple[int, int]]]
    ) -> dict[tuple[int, int], Array]:
        """Each holder's Fisher of each image, as `TaskFisher.add` takes it.

        An image needs a backward pass for each task, head and label; in each pass every image takes the
        next of its own, and nothing where it has no more.
        """
        wanted: list[list[tuple[int, int, int, Array, float]]] = [[] for _ in images]
        rows: dict[tuple[int, int], Array] = {}
        for mine, image in zip(wanted, images, strict=True):
            for place, own in holders[int(image)]:
                task = self.tasks[place]
                n_heads = self._n_heads(place, own)
                rows[place, own] = np.zeros((n_heads, task.n_filters))
                for head in range(n_heads):
                    for direction, weight in task.terms(head, range(own, own + 1)):
                        mine.append((place, own, head, direction[0], float(weight[0])))
        self.squares.forward(self.passes.inputs(images))
        n_rounds = max(map(len, wanted))
        for i in range(n_rounds):
            vectors = np.zeros((self.passes.size, len(wanted[0][0][3])))
            for vector, mine in zip(vectors, wanted, strict=False):
                if i < len(mine):
                    vector[:] = mine[i][3]
            squares = self.squares.backward(
                torch.from_numpy(vectors).to(self.probe.device), keep=i + 1 < n_rounds
            )
            for row, mine in zip(squares.cpu().numpy(), wanted, strict=False):
                if i < len(mine):
                    place, own, head, _, factor = mine[i]
                    rows[place, own][head] += factor * row
        return rows

    def _n_heads(self, place: int, own: int) -> int:
        """With how many heads a task's image is measured: its own, and replicates for the standard error."""
        task = self.tasks[place]
        return 1 + (task.n_replicates if task.is_shown(own) else 0)

    def _bar(self, what: str, total: int) -> "tqdm[Any]":
        return tqdm(total=total, desc=what, disable=None if self.progress else True, leave=False)


def _pooled(
    samples: Sequence[NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], list[NDArray[np.int64]]]:
    """Every image once, in the order in which they come, and where each sample's images are among them."""
    places: dict[bytes, int] = {}
    unique: list[NDArray[np.uint8]] = []
    where = []
    for images in samples:
        own = np.zeros(len(images), np.int64)
        for i, image in enumerate(images):
            own[i] = places.setdefault(hashlib.sha256(image.tobytes()).digest(), len(unique))
            if own[i] == len(unique):
                unique.append(image)
        where.append(own)
    return np.stack(unique), where
