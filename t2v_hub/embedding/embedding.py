"""`TaskEmbedding`: a data set's measurement."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from t2v_hub.embedding.files import read_tensors
from t2v_hub.embedding.records import Measurement, TaskInfo
from t2v_hub.embedding.space import Space, canonical_json
from t2v_hub.errors import EmbeddingError, EmbeddingFileError
from t2v_hub.storage import write_atomically

_FORMAT = "t2v-embedding/1"
_MAX_FILE_BYTES = 1 << 28  # far above any probe; a file that claims more is not read into memory


@dataclass(frozen=True, eq=False)
class TaskEmbedding:
    r"""Task2Vec embedding of a labelled data set: one Fisher value per filter of a probe.

    Attributes:
        fisher: ``(n_filters,)`` float32, not negative; mean over the filter's weights and over
            images of the squared derivative of :math:`\log p(y|x)`, in nats² per squared weight unit.
            In the family ``variational``, the precision ``1/σ²`` of the filter's weights instead.
        prior: ``(n_layers,)`` float32, positive; mean of the layer's squared weights,
            :math:`\lambda^2`, so that the precision without any data is :math:`1/\lambda^2`. This one also
            where a variational estimate fitted its own: the trivial embedding is one for all tasks.
        space: What it was measured under.
        task: Which data set it describes.
        measurement: How it was measured.
        deviations: ``(n_replicates, n_filters)`` float16 or None; by how much, relative to
            ``fisher``, the embedding moves when groups of images count more or less, the head fitted
            again. Scaled so that `jackknife_standard_error` of any function of the moved embeddings
            is that function's standard error.

    Raises:
        EmbeddingError: Lengths do not agree with the space, or a value is negative or not finite.

    References:
        Achille et al., "Task2Vec: Task Embedding for Meta-Learning", ICCV 2019, section 3.
    """

    fisher: NDArray[np.float32]
    prior: NDArray[np.float32]
    space: Space
    task: TaskInfo
    measurement: Measurement
    deviations: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("fisher", np.float32), ("prior", np.float32), ("deviations", np.float16)):
            value = getattr(self, name)
            if value is not None:
                with np.errstate(over="ignore"):
                    value = np.array(value, dtype=dtype)  # a copy that nobody else can change
                value.setflags(write=False)
                object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        n_filters, n_layers = self.space.n_filters, len(self.space.layers)
        if self.fisher.shape != (n_filters,):
            raise EmbeddingError(
                f"The Fisher vector has shape {self.fisher.shape}, but space {self.space.id} "
                f"has {n_filters} filters. Measure the task again."
            )
        if self.prior.shape != (n_layers,):
            raise EmbeddingError(
                f"The prior has shape {self.prior.shape}, but space {self.space.id} has {n_layers} layers."
            )
        if not np.isfinite(self.fisher).all() or (self.fisher < 0).any():
            bad = int((~np.isfinite(self.fisher) | (self.fisher < 0)).sum())
            raise EmbeddingError(
                f"{bad} of {n_filters} Fisher values are negative or not finite; each must be a finite "
                f"number >= 0. Check the probe's weights and the images, then measure again."
            )
        if not np.isfinite(self.prior).all() or (self.prior <= 0).any():
            raise EmbeddingError("Each layer's prior must be a finite number > 0; measure the task again.")
        if self.deviations is not None and (
            self.deviations.ndim != 2
            or self.deviations.shape[1] != n_filters
            or not np.isfinite(self.deviations).all()
        ):
            raise EmbeddingError(
                f"The deviations must be finite, of shape (n_groups, {n_filters}); got "
                f"shape {self.deviations.shape}."
            )

    @property
    def norm(self) -> float:
        """L1 norm: the sum of the Fisher values; larger for harder tasks of like size."""
        return float(self.fisher.sum(dtype=np.float64))

    @property
    def standard_error(self) -> float:
        """Relative standard error of the whole vector, ``sqrt(sum se_f^2 / sum F_f^2)``."""
        return self.measurement.standard_error

    @property
    def filter_standard_error(self) -> NDArray[np.float64]:
        """Standard error of each Fisher value, ``(n_filters,)``; NaN where it was not measured."""
        if self.deviations is None:
            return np.full(len(self.fisher), np.nan)
        return self.fisher * jackknife_standard_error(self.deviations.astype(np.float64))

    @property
    def prior_precision(self) -> NDArray[np.float64]:
        """The trivial embedding t₀, ``1/lambda^2`` of each filter's layer, ``(n_filters,)``."""
        counts = [layer.n_filters for layer in self.space.layers]
        return np.repeat(1.0 / self.prior.astype(np.float64), counts)

    @property
    def robust(self) -> NDArray[np.float64]:
        """Precision ``F/(2 beta) + 1/lambda^2`` of each filter, ``(n_filters,)``.

        The optimum of the paper's variational loss in closed form; never below `prior_precision`. In the
        family ``variational`` the vector itself, which is that optimum as it was found.
        """
        if self.space.family == "variational":
            return self.fisher.astype(np.float64)
        return self.fisher.astype(np.float64) / (2 * self.space.beta) + self.prior_precision

    def by_layer(self) -> dict[str, NDArray[np.float32]]:
        """The Fisher values of each layer by its name, in the order of the vector; views."""
        edges = np.cumsum([0, *(layer.n_filters for layer in self.space.layers)])
        return {
            layer.name: self.fisher[start:stop]
            for layer, start, stop in zip(self.space.layers, edges[:-1], edges[1:], strict=True)
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskEmbedding):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        error = self.standard_error
        return (
            f"TaskEmbedding({self.task.id!r}, n_filters={len(self.fisher)}, norm={self.norm:.3g}, "
            f"standard_error={error:.1%}, probe={self.space.probe!r}, space={self.space.id})"
        )

    def _record(self) -> bytes:
        return canonical_json(
            {
                "space": self.space.to_dict(),
                "task": self.task.to_dict(),
                "measurement": self.measurement.to_dict(),
            }
        )

    def _tensors(self) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {"fisher": self.fisher, "prior": self.prior}
        if self.deviations is not None:
            tensors["deviations"] = self.deviations
        return tensors

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and the hash of everything the embedding holds; equal for equal embeddings."""
        digest = hashlib.sha256(self._record())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<")).tobytes())
        return f"sha256:{digest.hexdigest()}"

    def save(self, path: Path | str) -> Path:
        """Write the embedding to a safetensors file, whole or not at all; equal ones to equal bytes.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        metadata = {"format": _FORMAT, "embedding": self._record().decode(), "digest": self.digest}
        return write_atomically(path, _in_order(to_safetensors(self._tensors(), metadata=metadata)))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The embedding that `save` wrote.

        Raises:
            EmbeddingFileError: No embedding, truncated, or changed since it was written.
            StorageError: The file cannot be opened.
        """
        path = Path(path)
        metadata, tensors = read_tensors(
            path,
            most_bytes=_MAX_FILE_BYTES,
            absent=f"There is no embedding file {str(path)!r}. Check the path.",
            broken=_broken,
        )
        if metadata.get("format") != _FORMAT:
            raise _broken(
                path, f"it holds other tensors (format {metadata.get('format')!r}, not {_FORMAT!r})"
            )
        try:
            record = json.loads(metadata["embedding"])
            embedding = cls(
                fisher=tensors["fisher"],
                prior=tensors["prior"],
                deviations=tensors.get("deviations"),
                space=Space.from_dict(record["space"]),
                task=TaskInfo.from_dict(record["task"]),
                measurement=Measurement.from_dict(record["measurement"]),
            )
            digest = embedding.digest
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise _broken(path, f"its record is malformed ({error})") from error
        if metadata.get("digest") != digest:
            raise _broken(path, "its content does not match its digest")
        return embedding


def jackknife_standard_error(replicates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of a statistic from its leave-one-group-out values along the first axis.

    ``sqrt((G-1)/G * sum_g (t_g - mean)^2)`` for G groups of like size; NaN for fewer than two.
    """
    n_groups = len(replicates)
    if n_groups < 2:
        return np.full(replicates.shape[1:], np.nan)
    spread = replicates - replicates.mean(axis=0)
    result: NDArray[np.float64] = np.sqrt((n_groups - 1) / n_groups * np.square(spread).sum(axis=0))
    return result


def _in_order(content: bytes) -> bytes:
    """A safetensors file with the keys of its header sorted; safetensors leaves the metadata's to chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _broken(path: Path, reason: str) -> EmbeddingFileError:
    return EmbeddingFileError(
        f"{str(path)!r} is not a usable embedding file: {reason}. "
        f"Measure the task again with Task2Vec(...).embed(data), and save it under another name."
    )
