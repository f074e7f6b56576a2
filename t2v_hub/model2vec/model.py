"""`Model2Vec`: learned distances from candidates to tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.distance import ALPHA, distance
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.model2vec.choosing import Choice, choose
from t2v_hub.model2vec.files import read, write
from t2v_hub.model2vec.geometry import distances_to
from t2v_hub.model2vec.inputs import check_settings, checked_errors, learning_from
from t2v_hub.model2vec.learning import Bias
from t2v_hub.model2vec.precisions import LEARNED_ON, precisions

Array = NDArray[np.float64]

TARGET_TEMPERATURE = 0.03
"""Difference of errors that makes a candidate e times less wanted: about what 200 test images tell apart."""


@dataclass(frozen=True, eq=False)
class Model2Vec:
    r"""Distances from candidates to tasks, learned from how the candidates did on other tasks.

    Embeddings are first brought to one mean, as the distance ``relative`` does, because how large one is says
    more of its head than of its task. A candidate's model vector is the robust precision of the task that it
    was trained on times a learned bias per filter; its distance to a task is the asymmetric distance from
    that vector to the task's precision, plus a learned offset. Where the training task is not known, the
    vector starts at the trivial embedding and the offset at what makes it as near as the others on average,
    so all are on one scale. Without evidence nothing is learned, and the distances are the relative ones.

    Attributes:
        candidates: Their ids.
        vectors: Model vectors, ``(n_candidates, n_filters)``, positive; precisions of embeddings of one mean.
        offsets: Added to the distances, ``(n_candidates,)``.
        space: In which tasks must be embedded.
        trivial: The trivial embedding of that space, ``(n_filters,)``.
        alpha: Weight of the complexity term.
        temperature: Difference of distances that makes a candidate e times less likely to be the best.
        strength: Weight of the penalty; infinite where nothing was learned.
        bias: What was learned beside the offsets.
        tried: The temperatures and strengths that cross-validation tried, the best first.
        n_tasks: Tasks that it was learned from; 0 where a file of an older version does not say.

    References:
        Achille et al., "Task2Vec: Task Embedding for Meta-Learning", ICCV 2019, section 5 (MODEL2VEC). The
        paper adds the bias where this multiplies, takes embeddings as large as they are, has no offsets, and
        prints neither temperature nor regulariser.
    """

    candidates: tuple[str, ...]
    vectors: Array
    offsets: Array
    space: Space
    trivial: Array
    alpha: float
    temperature: float
    strength: float
    bias: Bias
    tried: tuple[Choice, ...] = field(default=(), repr=False)
    n_tasks: int = 0

    @classmethod
    def fit(
        cls,
        tasks: Sequence[TaskEmbedding],
        errors: ArrayLike,
        *,
        candidates: Sequence[str],
        sources: Mapping[str, TaskEmbedding | None],
        bias: Bias = "filter",
        alpha: float = ALPHA,
        temperature: float | None = None,
        strength: float | None = None,
        target_temperature: float = TARGET_TEMPERATURE,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Learn from measured errors; nothing in it is random.

        Args:
            tasks: Embeddings of the tasks, all of one space.
            errors: Test errors from 0 to 1, ``(n_tasks, n_candidates)``, NaN where not measured. That of a
                candidate on the data that it was trained on must be NaN: it says nothing about other data.
            candidates: Ids of the columns.
            sources: What candidates were trained on; None or absent where it is not known.
            bias: ``filter`` as in the paper; ``layer`` and ``offset`` learn less.
            alpha: Weight of the complexity term.
            temperature: Chosen by leave-one-task-out cross-validation where None.
            strength: Weight of the penalty, infinite to learn nothing; likewise.
            target_temperature: Difference of errors that makes a candidate e times less wanted.
            groups: Tasks of one group (of one source, say) are left out together by the cross-validation,
                ``(n_tasks,)``; each by itself where None.

        Raises:
            EmbeddingMismatchError: Not all embeddings are of one space.
            SettingsError: An argument that cannot work, or too few measured errors.
        """
        check_settings(bias, alpha, temperature, strength, target_temperature)
        table = checked_errors(tasks, errors, candidates, sources, groups)
        # A task with one candidate says nothing about others.
        used = [int(t) for t in np.flatnonzero((~np.isnan(table)).sum(axis=1) >= 2)]
        names = [str(t) if groups is None else str(groups[t]) for t in used]
        if (temperature is None or strength is None) and len(set(names)) < 3:
            raise SettingsError(
                f"Cross-validation needs tasks of at least 3 groups, each with errors of two candidates; got "
                f"{len(set(names))}. Measure more tasks, or pass temperature= and strength=."
            )
        learning = learning_from(
            [tasks[t] for t in used],
            table[used],
            [sources.get(name) for name in candidates],
            bias=bias,
            alpha=alpha,
            target_temperature=target_temperature,
        )
        if temperature is not None and strength is not None:
            tried = [Choice(float(temperature), float(strength), float("nan"))]
        else:
            tried = choose(learning, names, temperature=temperature, strength=strength)
        best = tried[0]
        gamma, biases = learning.solve(best.temperature, best.strength)
        offsets = best.temperature * gamma
        # The softmax does not see by how much all distances move. That must be nothing on average, or
        # candidates that the fit does not know would be on another scale.
        measured = ~np.isnan(learning.wanted).all(axis=1)
        moved = learning.distances(biases) + offsets[:, None] - learning.distances(learning.no_bias)
        offsets[measured] -= moved[measured].mean()
        return cls(
            candidates=tuple(candidates),
            vectors=learning.vectors(biases),
            offsets=offsets + learning.level,
            space=tasks[0].space,
            trivial=learning.trivial,
            alpha=learning.alpha,
            temperature=best.temperature,
            strength=best.strength,
            bias=bias,
            tried=tuple(tried),
            n_tasks=len(used),
        )

    @classmethod
    def leave_one_out(
        cls,
        tasks: Sequence[TaskEmbedding],
        errors: ArrayLike,
        *,
        candidates: Sequence[str],
        sources: Mapping[str, TaskEmbedding | None],
        bias: Bias = "filter",
        alpha: float = ALPHA,
        temperature: float | None = None,
        strength: float | None = None,
        target_temperature: float = TARGET_TEMPERATURE,
        groups: Sequence[str] | None = None,
    ) -> Array:
        """Distances to each task by a fit, choices and all, to the tasks of the other groups.

        ``(n_tasks, n_candidates)``; what the fit would have said had the task been new. Arguments and errors
        as of `fit`, which is done once per group.
        """
        table = checked_errors(tasks, errors, candidates, sources, groups)
        names = [str(t) for t in range(len(tasks))] if groups is None else [str(name) for name in groups]
        result = np.full(table.shape, np.nan)
        for group in dict.fromkeys(names):
            inside = [t for t, name in enumerate(names) if name == group]
            outside = [t for t, name in enumerate(names) if name != group]
            model = cls.fit(
                [tasks[t] for t in outside],
                table[outside],
                candidates=candidates,
                sources=sources,
                bias=bias,
                alpha=alpha,
                temperature=temperature,
                strength=strength,
                target_temperature=target_temperature,
                groups=[names[t] for t in outside],
            )
            for t in inside:
                result[t] = model.distances(tasks[t])
        return result

    def distances(
        self, task: TaskEmbedding, candidates: Mapping[str, TaskEmbedding | None] | None = None
    ) -> Array:
        """Distances from candidates to a task, ``(n,)``; smaller is better, and may be below 0.

        Args:
            task: The task at hand.
            candidates: Ids, and embeddings of what they were trained on; those of the fit where None. A
                candidate that the fit did not know is as far as its plain distance ``relative``, which is
                on the same scale; NaN where its embedding is None.

        Raises:
            EmbeddingMismatchError: An embedding of another space.
        """
        self.space.require_equal(task.space)
        place = {name: i for i, name in enumerate(self.candidates)}
        chosen = dict.fromkeys(self.candidates) if candidates is None else candidates
        target = precisions([task])
        result = np.full(len(chosen), np.nan)
        for k, (name, source) in enumerate(chosen.items()):
            if name in place:
                i = place[name]
                learned = distances_to(self.vectors[i], target, self.trivial, self.alpha)[0]
                result[k] = learned + self.offsets[i]
            elif source is not None:
                result[k] = distance(source, task, name="relative", alpha=self.alpha)
        return result

    def save(self, path: Path | str) -> Path:
        """Write it to a safetensors file, whole or not at all; equal ones to equal bytes.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        tensors = {"vectors": self.vectors, "offsets": self.offsets, "trivial": self.trivial}
        record = {
            "candidates": list(self.candidates),
            "space": self.space.to_dict(),
            "space_id": self.space.id,
            "alpha": self.alpha,
            "temperature": self.temperature,
            "strength": str(self.strength),  # JSON has no infinity
            "bias": self.bias,
            "tried": [
                [choice.temperature, str(choice.strength), str(choice.excess)] for choice in self.tried
            ],
            "n_tasks": self.n_tasks,
            "learned_on": LEARNED_ON,
        }
        return write(path, tensors, record)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What `save` wrote.

        Raises:
            EmbeddingFileError: No such file, truncated, changed since it was written, or learned on
                embeddings that were not brought to the mean of today; fit again.
            StorageError: The file cannot be opened.
        """
        return read(path, cls._built)

    @classmethod
    def _built(cls, tensors: Mapping[str, Array], record: Mapping[str, Any]) -> Self:
        """From what stands in a file; raises KeyError, TypeError or ValueError where it does not fit."""
        space, candidates = Space.from_dict(record["space"]), tuple(str(c) for c in record["candidates"])
        if space.id != record["space_id"]:
            raise ValueError(f"its space is {space.id}, not {record['space_id']} as it says")
        n, width = len(candidates), space.n_filters
        shapes = {"vectors": (n, width), "offsets": (n,), "trivial": (width,)}
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise ValueError(f"its tensors are not of the shapes {shapes}")
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("its tensors are not finite")
        n_tasks = record.get("n_tasks", 0)
        if isinstance(n_tasks, bool) or not isinstance(n_tasks, int) or n_tasks < 0:
            raise ValueError(f"its n_tasks must be a whole number >= 0, not {n_tasks!r}")
        return cls(
            candidates=candidates,
            vectors=tensors["vectors"],
            offsets=tensors["offsets"],
            space=space,
            trivial=tensors["trivial"],
            alpha=float(record["alpha"]),
            temperature=float(record["temperature"]),
            strength=float(record["strength"]),
            bias=record["bias"],
            tried=tuple(Choice(float(t), float(s), float(e)) for t, s, e in record["tried"]),
            n_tasks=n_tasks,
        )
