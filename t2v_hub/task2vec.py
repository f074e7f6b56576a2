"""`Task2Vec`: from a labelled data set to its embedding."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from t2v_hub import data as data_room
from t2v_hub.cache import EmbeddingCache
from t2v_hub.data import DecodedSample
from t2v_hub.embedding import SPACE_SETTINGS, Space, TaskEmbedding, TaskInfo
from t2v_hub.errors import EmbeddingMismatchError, FewImagesWarning, SettingsError, T2VError
from t2v_hub.executors import Executor, make_executor, results
from t2v_hub.fisher.variational import VariationalRecipe
from t2v_hub.head import HeadRecipe
from t2v_hub.measuring import TaskMeasurer
from t2v_hub.pool import SMALL
from t2v_hub.probe import DEFAULT_PROBE, Preprocessing, ProbeNetwork
from t2v_hub.probe.network import Filters
from t2v_hub.settings import Dtype, EstimatorName, Sampling, check_settings
from t2v_hub.storage import home

BETA = 1e-9
"""Weight of the prior in the robust precision; measured in ``benchmarks/heads.py``."""

_WAITING_BYTES, _WAITING_IMAGES = 512 << 20, 16_384  # of small tasks, until these are measured


class Task2Vec:
    """Measures data sets with one probe, under one set of settings.

    Args:
        probe: A `ProbeNetwork`, or anything that `ProbeNetwork.load` takes; None for the default,
            ``timm/resnet18.a1_in1k`` from the Hub.
        estimator: ``monte_carlo`` draws labels, for what they contribute to the expectation over the
            model's, and is unbiased; ``exact`` sums over all classes, which costs a backward pass for each;
            ``empirical`` takes the data's own labels, which is biased and makes a space of its own.
            ``variational`` minimises the paper's robust loss: the vector holds precisions ``1/σ²`` of
            weights, without a standard error, in a space of its own.
        batch_size: Images per forward and backward pass on an accelerator, at most 32. On a CPU passes
            are of 8 images whatever this says: others are not faster there, and would change last bits.
        max_samples: How many images are measured at most; drawn over the whole set.
        seed: What all randomness hangs on.
        n_labels: Labels drawn per image (``monte_carlo``).
        tolerance: Relative standard error of the embedding (`TaskEmbedding.standard_error`) that is small
            enough, such as 0.1: measuring ends after the first 256, 512, … images that reach it. None
            measures all ``max_samples``. The head is fitted on all of them in either case.
        standard_error: Whether to measure the standard error, too (not for ``variational``). It costs 16
            fits of the head instead of one and the backward passes of some 45 · 8 images, which is much
            for a task of few.
        head: How the linear head is fitted.
        sampling: ``natural`` draws from the data's own distribution, ``balanced`` every class alike;
            ``variational`` does the latter in either case, but for tasks of several labels per image.
        filters: Which layers count; see `ProbeNetwork.load`.
        normalisation: Whether scales of normalisation layers count as filters.
        image_size: Side of the probe's square input; None for its own.
        preprocessing: The images' recipe; None for the probe's own.
        beta: Weight of the prior in the robust precision.
        variational: How ``variational`` minimises; part of the space. None for its defaults, which take
            some 40 times the passes of ``monte_carlo`` with 1,000 images.
        dtype: Type of the passes; sums are float64 in all. ``bfloat16`` is autocast: faster on hardware
            made for it, and rough, see ``docs/method.md``.
        device: Where to measure; None for what accelerate chooses.
        cache: Folder of finished embeddings and blocks; None for ``T2V_HOME``, False for none.
        progress: Whether to show bars (on a terminal).

    Raises:
        SettingsError: An argument that cannot work.
        ProbeError: The probe cannot be used; subclasses say why.
    """

    def __init__(
        self,
        probe: "ProbeNetwork | str | Path | nn.Module | None" = None,
        *,
        estimator: EstimatorName = "monte_carlo",
        batch_size: int = 32,
        max_samples: int = 1000,
        seed: int = 0,
        n_labels: int = 1,
        tolerance: float | None = None,
        standard_error: bool = True,
        head: HeadRecipe | None = None,
        sampling: Sampling = "natural",
        filters: Filters = None,
        normalisation: bool = False,
        image_size: int | None = None,
        preprocessing: Preprocessing | None = None,
        beta: float = BETA,
        variational: VariationalRecipe | None = None,
        dtype: Dtype = "float32",
        device: str | None = None,
        cache: Path | str | Literal[False] | None = None,
        progress: bool = True,
    ) -> None:
        check_settings(
            batch_size=batch_size,
            max_samples=max_samples,
            n_labels=n_labels,
            seed=seed,
            estimator=estimator,
            sampling=sampling,
            dtype=dtype,
            beta=beta,
            tolerance=tolerance,
            standard_error=standard_error,
            head=head,
            variational=variational,
            device=device,
        )
        self.probe = ProbeNetwork.load(
            DEFAULT_PROBE if probe is None else probe,
            filters=filters,
            normalisation=normalisation,
            image_size=image_size,
            preprocessing=preprocessing,
        )
        self.estimator: EstimatorName = estimator
        self.batch_size = batch_size
        self.max_samples = max_samples
        self.seed = seed
        self.n_labels = n_labels if estimator == "monte_carlo" else 1
        self.tolerance = None if tolerance is None else float(tolerance)
        self.standard_error = standard_error and estimator != "variational"
        self.head = head or HeadRecipe()
        self.sampling: Sampling = sampling
        self.variational = variational or VariationalRecipe()
        self.beta = beta
        self.dtype: Dtype = dtype
        self.device = device
        self.progress = progress
        self._measurer = TaskMeasurer(
            self.probe,
            self.space,
            EmbeddingCache(
                None if cache is False else Path(cache) if cache is not None else home() / "embeddings"
            ),
            estimator=self.estimator,
            n_labels=self.n_labels,
            seed=seed,
            batch_size=batch_size,
            tolerance=self.tolerance,
            standard_error=self.standard_error,
            head=self.head,
            variational=self.variational,
            beta=beta,
            dtype=dtype,
            device=device,
            progress=progress,
        )

    @classmethod
    def for_space(
        cls, space: Space, *, probe: "ProbeNetwork | str | Path | nn.Module | None" = None, **settings: Any
    ) -> Self:
        """The settings that measure in a given space.

        Args:
            space: The space, from an embedding or a catalog.
            probe: The probe; None loads the one that the space names.
            **settings: What does not belong to a space: ``max_samples``, ``seed``, ``cache``, ….

        Raises:
            EmbeddingMismatchError: The probe is not the one that the space was measured with, or its settings
                are none of this version's.
            ProbeNotFoundError: The named probe is not at hand; pass it as ``probe``.
            SettingsError: A setting that belongs to a space.
        """
        fixed = sorted(settings.keys() & SPACE_SETTINGS)
        if fixed:
            raise SettingsError(
                f"{', '.join(fixed)} would make another space than {space.id}. Leave that out, or pass it to "
                f"Task2Vec(...) itself."
            )
        own: dict[str, Any] = {"estimator": "monte_carlo" if space.family == "fisher" else space.family}
        try:
            recipe = {key: value for key, value in space.preprocessing.items() if key != "transparency"}
            preprocessing, head = Preprocessing.from_dict(recipe), HeadRecipe.from_dict(space.head)
            if space.family == "variational":
                own["variational"] = VariationalRecipe.from_dict(space.sampling)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # it may be a stranger's
            raise EmbeddingMismatchError(
                f"The settings of space {space.id} are none that can be measured with here ({error}). Choose "
                f"another space, or upgrade t2v_hub."
            ) from error
        network = ProbeNetwork.load(
            space.probe if probe is None else probe,
            filters=[layer.name for layer in space.layers],
            normalisation=True,  # narrowed to the named layers
            preprocessing=preprocessing,
        )
        settings = own | settings
        embedder = cls(
            network,
            head=head,
            sampling="balanced" if space.sampling.get("fisher") == "balanced" else "natural",
            beta=space.beta,
            **settings,
        )
        embedder.space(multi_label=space.head.get("loss") == "sigmoid").require_equal(space)
        return embedder

    def space(self, *, multi_label: bool = False) -> Space:
        """What these settings measure under, for tasks with one label per image or several."""
        return Space(
            probe=self.probe.name,
            probe_digest=self.probe.digest,
            layers=self.probe.filters,
            preprocessing={**self.probe.preprocessing.to_dict(), "transparency": "white"},
            head={
                **self.head.to_dict(),
                "loss": "sigmoid" if multi_label else "softmax",
                "classes": "natural" if multi_label else "balanced",
            },
            sampling={
                "fisher": self._sampling(multi_label),
                **(self.variational.to_dict() if self.estimator == "variational" else {}),
            },
            family=self.estimator if self.estimator in ("empirical", "variational") else "fisher",
            beta=self.beta,
        )

    @torch.inference_mode(False)  # the caller's may be on; nothing can be differentiated in it
    def embed(self, data: object, **data_options: Any) -> TaskEmbedding:
        """The embedding of a labelled image data set.

        Finished blocks are kept, so that an interrupted call goes on where it stopped; a finished
        embedding is kept too, under a key of the images, labels, probe and settings.

        Where ``accelerate launch`` or ``torchrun`` started several processes, they share the blocks; all
        of them must call this, and all get the same embedding, to the bit that of one process.

        Args:
            data: Anything that `t2v_hub.data.load` takes: a ``datasets`` data set or stream, a path, a
                Hub repository, a torch data set.
            **data_options: Options of `t2v_hub.data.load`: ``split``, ``image_column``, ….

        Raises:
            DataError: The data cannot be used; subclasses say why.
            ProbeOutputError: Features or gradients are not finite.
            InsufficientMemoryError: Not even one image fits into memory.
            StorageError: The cache cannot be written.
        """
        info, decoded = self._read(data, data_options)
        return self._measurer.embed(info, decoded)

    @torch.inference_mode(False)
    def embed_many(
        self, tasks: Mapping[str, object], *, executor: Executor | str | None = None, **data_options: Any
    ) -> "EmbeddedTasks":
        """Embeddings of several data sets by name; one that fails is named in the result.

        Tasks of up to 128 images, such as few-shot episodes or the clients of federated learning, are
        measured side by side: passes are full, each image runs once however many tasks hold it, and heads
        are fitted together. That changes vectors by rounding only, and not at all what is random in them.

        An executor measures each task alone, in a process of its own: vectors are those of `embed`, to the
        bit where processors and numbers of threads are alike. What is finished lies in the cache, blocks
        too, so that a task whose worker was killed goes on where it stopped. Let the cache be a folder that
        all workers share; with ``cache=False`` such a task begins anew.

        Args:
            tasks: Data sets by the name that their embedding is to carry. For an executor, names and paths
                are read by the worker, anything else is sent there.
            executor: Where to measure: ``ray``, another name that an installed package declares in the
                entry-point group ``t2v_hub.executors``, or an `Executor`; None for this process.
            **data_options: Options of `t2v_hub.data.load`, for all of them.

        Raises:
            SettingsError: There is no such executor.
            MissingDependencyError: What the executor needs is not installed.
        """
        if executor is not None:
            return self._embed_elsewhere(tasks, make_executor(executor), data_options)
        embeddings: dict[str, TaskEmbedding] = {}
        failures: dict[str, T2VError] = {}
        waiting: dict[str, tuple[TaskInfo, DecodedSample]] = {}

        def embed_waiting() -> None:
            for name, result in self._measurer.embed_small(waiting):
                if isinstance(result, T2VError):
                    failures[name] = result
                else:
                    embeddings[name] = result
            waiting.clear()

        for name, data in tasks.items():
            try:
                info, decoded = self._read(data, {"name": name, **data_options})
                if len(decoded) > SMALL or self.estimator == "variational":
                    embeddings[name] = self._measurer.embed(info, decoded)
                else:
                    waiting[name] = info, decoded
            except T2VError as error:
                failures[name] = error
            images = [some.images for _, some in waiting.values()]
            if sum(map(len, images)) > _WAITING_IMAGES or sum(i.nbytes for i in images) > _WAITING_BYTES:
                embed_waiting()
        embed_waiting()
        return EmbeddedTasks.of(tasks, {**embeddings, **failures})

    def _embed_elsewhere(
        self, tasks: Mapping[str, object], executor: Executor, data_options: Mapping[str, Any]
    ) -> "EmbeddedTasks":
        names = list(tasks)
        done: dict[str, TaskEmbedding | T2VError] = {}
        disable = None if self.progress else True
        with tqdm(total=len(names), desc="Tasks", disable=disable, leave=False) as bar:
            for number, result in results(executor, _EmbedNamed(self, data_options), tasks.items()):
                done[names[number]] = result
                bar.update()
        return EmbeddedTasks.of(tasks, done)

    def _read(self, data: object, data_options: Mapping[str, Any]) -> tuple[TaskInfo, DecodedSample]:
        options = {"seed": self.seed, "progress": self.progress, **data_options}
        task = data_room.load(data, **options)
        sample = task.sample(self.max_samples, seed=self.seed, how=self._sampling(task.info.multi_label))
        decoded = sample.decode(self.probe.preprocessing.prepare, progress=self.progress)
        if self.standard_error:
            _warn_of_few(task.info, decoded)
        return task.info, decoded

    def _sampling(self, multi_label: bool) -> Sampling:
        return "balanced" if self.estimator == "variational" and not multi_label else self.sampling


@dataclass(frozen=True)
class EmbeddedTasks:
    """What became of several data sets.

    Attributes:
        embeddings: By name, in the order given.
        failures: Why a data set has no embedding, by name.
    """

    embeddings: Mapping[str, TaskEmbedding]
    failures: Mapping[str, T2VError]

    @classmethod
    def of(cls, names: Iterable[str], done: Mapping[str, TaskEmbedding | T2VError]) -> Self:
        """Results by name, in the order of ``names``."""
        pairs = [(name, done[name]) for name in names]
        return cls(
            {name: result for name, result in pairs if not isinstance(result, T2VError)},
            {name: result for name, result in pairs if isinstance(result, T2VError)},
        )


@dataclass(frozen=True)
class _EmbedNamed:
    """Embeds one of many tasks, wherever it is called."""

    task2vec: Task2Vec
    data_options: Mapping[str, Any]

    def __call__(self, task: tuple[str, object]) -> TaskEmbedding:
        name, data = task
        return self.task2vec.embed(data, **{"name": name, **self.data_options})


def _warn_of_few(info: TaskInfo, decoded: DecodedSample) -> None:
    if info.multi_label:
        return
    alone = int((np.unique(decoded.labels, return_counts=True)[1] == 1).sum())
    if alone:
        warnings.warn(
            f"{alone} of {info.n_classes} classes of {info.id!r} have one image in the sample of "
            f"{len(decoded.labels)}: what other images of them would change is not in the standard error, "
            f"which is too small. Measure {2 * info.n_classes} images (max_samples) or more.",
            FewImagesWarning,
            stacklevel=4,
        )
