"""Synthetic pools of candidates with results whose merit is known, for tests of judging."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from factories import make_catalog, make_embedding, make_space

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.embedding import TaskEmbedding

N_FILTERS = 24


@dataclass
class Pool:
    """Tasks and candidates at points in a plane; the nearer two are, the nearer are their embeddings.

    Attributes:
        n_tasks: Tasks, ``org<i % n_owners>/task<i>``.
        n_candidates: Candidates, ``org/net<i>``.
        n_splits: Results of each pair.
        by_distance: How much a candidate's error grows with its distance from the task.
        by_merit: How much with its number.
        noise: Standard deviation of a split's error.
        seed: Of all that is random.
    """

    n_tasks: int = 12
    n_candidates: int = 6
    n_splits: int = 4
    n_owners: int = 3
    by_distance: float = 0.05
    by_merit: float = 0.0
    noise: float = 0.005
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.space = make_space(N_FILTERS)
        self._base = rng.normal(-9.0, 1.0, N_FILTERS)
        self._axes = rng.normal(0.0, 1.0, (2, N_FILTERS))
        at_tasks, at_nets = (rng.uniform(-1, 1, (n, 2)) for n in (self.n_tasks, self.n_candidates))
        self.tasks = [self.at(p, f"org{i % self.n_owners}/task{i}") for i, p in enumerate(at_tasks)]
        self.sources = [self.at(p, f"source{i}") for i, p in enumerate(at_nets)]
        self.names = [f"org/net{i}" for i in range(self.n_candidates)]
        apart = np.linalg.norm(at_tasks[:, None] - at_nets[None], axis=2)
        merit = self.by_merit * np.arange(self.n_candidates)
        mean = 0.2 + rng.uniform(0, 0.1, (self.n_tasks, 1)) + self.by_distance * apart + merit
        noise = self.noise * rng.normal(size=(*mean.shape, self.n_splits))
        self.errors = np.clip(mean[..., None] + noise, 0, 1)

    def at(self, point: Any, name: str) -> TaskEmbedding:
        """An embedding of a task at a point of the plane."""
        fisher = np.exp(self._base + 0.8 * np.asarray(point) @ self._axes)
        return make_embedding(fisher, space=self.space, task=name)

    def results(self, **changes: Any) -> list[Result]:
        """A result for each task, candidate and split."""
        return [
            Result(
                task.task.id,
                name,
                float(self.errors[t, c, s]),
                **{"n": 100, "seed": s, "n_test": 200, "embedding": task.digest, **changes},
            )
            for t, task in enumerate(self.tasks)
            for c, name in enumerate(self.names)
            for s in range(self.n_splits)
        ]

    def candidates(self) -> list[Candidate]:
        """The candidates; of `facts`, each has its own where a list is given."""
        return [
            Candidate(
                name,
                embeddings=[self.sources[i]],
                **{key: value[i] if isinstance(value, list) else value for key, value in self.facts.items()},
            )
            for i, name in enumerate(self.names)
        ]

    def catalog(self, path: Path, *, recorded: bool = True) -> Catalog:
        """A catalog of the candidates, and of the results where they are to be recorded."""
        catalog = make_catalog(path, self.candidates())
        if recorded:
            catalog.record_many(self.results(), embeddings=self.tasks)
        return catalog
