"""From decoded images to kept embeddings, one task or many small ones at a time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from t2v_hub.blocks import BlockStore
from t2v_hub.cache import EmbeddingCache, cache_key
from t2v_hub.data import DecodedSample
from t2v_hub.embedding import Measurement, Space, TaskEmbedding, TaskInfo
from t2v_hub.embedding.records import library_versions
from t2v_hub.errors import T2VError
from t2v_hub.estimate import Estimate, TaskFisher
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.variational import VariationalRecipe
from t2v_hub.head import HeadRecipe
from t2v_hub.pool import TaskPool
from t2v_hub.precision import TaskPrecision
from t2v_hub.probe import ProbeNetwork
from t2v_hub.processes import Processes
from t2v_hub.replication import with_standard_errors
from t2v_hub.settings import Dtype, EstimatorName


class TaskMeasurer:
    """Measures decoded samples under the settings of a `Task2Vec`, whose arguments have the same names.

    Args:
        probe: The probe, wherever it lies.
        space: What is measured under, for tasks of one label per image or (``multi_label``) several.
        cache: What was measured before.
    """

    def __init__(
        self,
        probe: ProbeNetwork,
        space: Callable[..., Space],
        cache: EmbeddingCache,
        *,
        estimator: EstimatorName,
        n_labels: int,
        seed: int,
        batch_size: int,
        tolerance: float | None,
        standard_error: bool,
        head: HeadRecipe,
        variational: VariationalRecipe,
        beta: float,
        dtype: Dtype,
        device: str | None,
        progress: bool,
    ) -> None:
        self.probe = probe
        self.space = space
        self.cache = cache
        self.estimator: EstimatorName = estimator
        self.n_labels = n_labels
        self.seed = seed
        self.batch_size = batch_size
        self.tolerance = tolerance
        self.standard_error = standard_error
        self.head = head
        self.variational = variational
        self.beta = beta
        self.dtype: Dtype = dtype
        self.device = device
        self.progress = progress
        self._placed: tuple[ProbeNetwork, SquaredGradients] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_placed": None}  # another process may have another device

    def embed(self, info: TaskInfo, decoded: DecodedSample) -> TaskEmbedding:
        """The embedding of one sample; see `Task2Vec.embed`."""
        probe, squares = self._placed_probe()
        key = self._key(info, decoded)
        known = self._known(info, key)
        if known is not None:
            return known
        blocks = self.cache.blocks(key)
        try:
            with frozen(probe.module):
                estimate = self._measure(decoded, blocks, info.id)
        finally:
            squares.release()
        embedding = self._keep(info, decoded, estimate, key)
        if self.cache.folder is not None:
            blocks.discard()
        return embedding

    def embed_small(
        self, tasks: Mapping[str, tuple[TaskInfo, DecodedSample]]
    ) -> Iterator[tuple[str, TaskEmbedding | T2VError]]:
        """The embeddings of small samples, measured side by side, or why there is none, by name."""
        keys = {name: self._key(info, decoded, pooled=True) for name, (info, decoded) in tasks.items()}
        left = []
        for name, (info, _) in tasks.items():
            known = self._known(info, keys[name])
            if known is None:
                left.append(name)
            else:
                yield name, known
        if not left:
            return
        done = set()
        probe, squares = self._placed_probe()
        try:
            with frozen(probe.module):
                pool = TaskPool(
                    squares,
                    probe,
                    [self._task_fisher(tasks[name][1], name) for name in left],
                    batch_size=self.batch_size,
                    progress=self.progress,
                )
                for group in pool.run():
                    for place, result in group:
                        name = left[place]
                        if isinstance(result, T2VError):
                            done.add(name)
                            yield name, result
                        else:
                            embedding = self._keep(*tasks[name], result, keys[name])
                            done.add(name)
                            yield name, embedding
        except T2VError as error:  # memory or disk: what is left will fare no better
            yield from ((name, error) for name in left if name not in done)
        finally:
            squares.release()

    def _known(self, info: TaskInfo, key: str) -> TaskEmbedding | None:
        """What was measured before, in all processes alike."""
        processes = Processes()
        known = processes.share(lambda: self.cache.load(key) if processes.is_main else None)[0]
        return None if known is None else dataclasses.replace(known, task=info)

    def _keep(self, info: TaskInfo, decoded: DecodedSample, estimate: Estimate, key: str) -> TaskEmbedding:
        """The embedding of an estimate, kept by one process."""
        embedding = TaskEmbedding(
            fisher=estimate.fisher.astype(np.float32),
            prior=self.probe.prior.numpy().astype(np.float32),
            space=self.space(multi_label=info.multi_label),
            task=info,
            measurement=Measurement(
                estimator=self.estimator,
                n_samples=estimate.n_samples,
                seed=self.seed,
                n_labels=self.n_labels,
                n_head_samples=len(decoded.labels),
                tolerance=float("nan") if self.tolerance is None else self.tolerance,
                n_skipped=decoded.n_skipped,
                pass_size=estimate.pass_size,
                dtype=self.dtype,
                device=self._placed_probe()[0].device.type,
                mean_confidence=estimate.mean_confidence,
                versions=library_versions(),
            ),
            deviations=np.clip(estimate.deviations, -6e4, 6e4).astype(np.float16)
            if self.standard_error
            else None,
        )
        embedding = with_standard_errors(embedding)
        processes = Processes()
        processes.share(lambda: self.cache.save(key, embedding) if processes.is_main else None)
        return embedding

    def _measure(self, decoded: DecodedSample, blocks: BlockStore, name: str) -> Estimate:
        if self.estimator != "variational":
            return self._task_fisher(decoded, name).run(blocks)
        probe, squares = self._placed_probe()
        return TaskPrecision(
            squares,
            probe,
            decoded,
            head=self.head,
            recipe=self.variational,
            beta=self.beta,
            seed=self.seed,
            batch_size=self.batch_size,
            progress=self.progress,
            name=name,
        ).minimise()

    def _task_fisher(self, decoded: DecodedSample, name: str) -> TaskFisher:
        assert self.estimator != "variational"
        probe, squares = self._placed_probe()
        return TaskFisher(
            squares,
            probe,
            decoded,
            recipe=self.head,
            estimator=self.estimator,
            n_labels=self.n_labels,
            seed=self.seed,
            batch_size=self.batch_size,
            tolerance=self.tolerance,
            standard_error=self.standard_error,
            progress=self.progress,
            name=name,
        )

    def _placed_probe(self) -> tuple[ProbeNetwork, SquaredGradients]:
        """The probe on its device in its type, a copy where the caller's lies elsewhere; its squares."""
        if self._placed is None:
            device = self.device
            if device is None:
                from accelerate import PartialState

                device = str(PartialState().device) if self.probe.owned else str(self.probe.device)
            dtype = torch.float64 if self.dtype == "float64" else torch.float32
            probe = self.probe.placed(torch.device(device), dtype)
            autocast = torch.bfloat16 if self.dtype == "bfloat16" else None
            self._placed = (
                probe,
                SquaredGradients(probe.module, probe.features, probe.layers, autocast=autocast),
            )
        return self._placed

    def _key(self, info: TaskInfo, decoded: DecodedSample, *, pooled: bool = False) -> str:
        device = self._placed_probe()[0].device.type
        settings: dict[str, Any] = {
            "space": self.space(multi_label=info.multi_label).id,
            "estimator": self.estimator,
            "n_labels": self.n_labels,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "standard_error": self.standard_error,
            "dtype": self.dtype,
            "device": device,
            "batch_size": None if device == "cpu" else self.batch_size,
        }
        # Rounding: that of the images which happened to share its passes.
        return cache_key(decoded, settings | ({"pooled": True} if pooled else {}))
