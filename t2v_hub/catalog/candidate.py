"""`Candidate`: a checkpoint, what it was trained on, and what is known about it for free."""

import math
import numbers
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args, overload

import numpy as np

from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

Library = Literal["transformers", "timm"]

_TEXTS = ("revision", "source", "licence")
_COUNTS = ("parameters", "downloads", "likes")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that could be fine-tuned, with the embeddings of what it was trained on.

    A fact that is None is not known; no filter matches it.

    Attributes:
        id: Repository on the Hub, or a local folder.
        revision: Commit of the repository.
        library: Which library loads it.
        source: Id of the data set it was trained on.
        embeddings: Of the data sets it was trained on, in any spaces; empty where none is known.
            A catalog's candidates read theirs from disk when they are asked for.
        parameters: How many numbers the network has.
        licence: Licence of the weights, as the Hub spells it, such as ``apache-2.0``.
        downloads: Downloads on the Hub.
        likes: Likes on the Hub.
        gated: Whether access must be requested.
        upstream_accuracy: Accuracy on the data it was trained on, such as ImageNet top-1, in [0, 1].

    Raises:
        SettingsError: A fact cannot be one: an empty id, a negative count, an accuracy in percent.
    """

    id: str
    revision: str | None = None
    library: Library | None = None
    source: str | None = None
    embeddings: Sequence[TaskEmbedding] = field(default=(), hash=False, repr=False)
    parameters: int | None = None
    licence: str | None = None
    downloads: int | None = None
    likes: int | None = None
    gated: bool | None = None
    upstream_accuracy: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            raise SettingsError(
                f"A candidate's id must be a repository or a folder's path as text, not {self.id!r}."
            )
        if self.library is not None and self.library not in get_args(Library):
            known = " or ".join(repr(name) for name in get_args(Library))
            raise self._unusable("library", f"{known} (or None)")
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise self._unusable(name, "text (or None)")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is None:
                continue
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or not 0 <= value < 1 << 63:
                raise self._unusable(name, "a whole number >= 0 (or None)")
            object.__setattr__(self, name, int(value))
        if self.gated is not None and not isinstance(self.gated, bool):
            raise self._unusable("gated", "True, False or None")
        self._check_accuracy()
        self._check_embeddings()

    def _check_accuracy(self) -> None:
        value = self.upstream_accuracy
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
            raise self._unusable("upstream_accuracy", "a share in [0, 1], 0.761 rather than 76.1 (or None)")
        object.__setattr__(self, "upstream_accuracy", float(value))

    def _check_embeddings(self) -> None:
        if isinstance(self.embeddings, StoredEmbeddings):
            return
        wrong = isinstance(self.embeddings, TaskEmbedding) or not all(
            isinstance(embedding, TaskEmbedding) for embedding in self.embeddings
        )
        if wrong:
            raise self._unusable("embeddings", "a sequence of TaskEmbedding, also for a single one")
        object.__setattr__(self, "embeddings", tuple(self.embeddings))

    def _unusable(self, name: str, wanted: str) -> SettingsError:
        value = getattr(self, name)
        return SettingsError(f"Candidate {self.id!r}: {name} must be {wanted}, not {value!r}.")

    @property
    def prior(self) -> tuple[int, float, int]:
        """What is known without looking at any data, larger is better: parameters, accuracy, downloads.

        The size comes first, for accuracies were reached on different data: a small expert's 0.97 on its own
        says less than 0.88 on ImageNet. So they order only checkpoints of one size. Whoever wants small ones
        bounds the size, ``where={"parameters": (None, n)}``. What is not known counts as less than any.
        """
        accuracy = -math.inf if self.upstream_accuracy is None else self.upstream_accuracy
        parameters, downloads = (-1 if n is None else n for n in (self.parameters, self.downloads))
        return parameters, accuracy, downloads

    @property
    def has_prior(self) -> bool:
        """Whether any of the facts that its `prior` goes by is known."""
        facts = (self.parameters, self.upstream_accuracy, self.downloads)
        return any(fact is not None for fact in facts)

    def was_trained_on(self, *names: str | None) -> bool:
        """Whether any of these names a task that it was trained on: then an error there says nothing.

        Args:
            names: What one task is known by: its ids, whatever their case, and digests of its embeddings
                (`TaskEmbedding.digest`). None is not known, and matches nothing.
        """
        wanted = {name.casefold() for name in names if name is not None}
        if self.source is not None and self.source.casefold() in wanted:
            return True
        records = records_of(self.embeddings)
        return any(record.digest in wanted or record.task.casefold() in wanted for record in records)


class EmbeddingRecord(NamedTuple):
    """What a catalog's index knows of an embedding without opening its file.

    Attributes:
        digest: `TaskEmbedding.digest`.
        space: Id of its space.
        task: Id of its task.
        distance_standard_error: As its measurement records it; None where it was not measured.
        pack: Key of the pack that holds it, where it was read from a card.
        endpoint: Address of the Hub that the card is on.
        config: Configuration of the data set.
        split: Split that was measured.
    """

    digest: str
    space: str
    task: str
    distance_standard_error: float | None = None
    pack: str | None = None
    endpoint: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def of(
        cls, embedding: TaskEmbedding, *, pack: str | None = None, endpoint: str | None = None
    ) -> "EmbeddingRecord":
        """The record of an embedding at hand."""
        error = embedding.measurement.distance_standard_error
        known = error if math.isfinite(error) else None
        task, digest = embedding.task, embedding.digest
        return cls(digest, embedding.space.id, task.id, known, pack, endpoint, task.config, task.split)

    @property
    def subject(self) -> tuple[str, str, str | None, str | None]:
        """What it measured: of two embeddings of one candidate with the same, the newer one stays."""
        return self.space, self.task, self.config, self.split

    @property
    def file_name(self) -> str:
        """`file_name` of its digest."""
        return file_name(self.digest)


class StoredEmbeddings(Sequence[TaskEmbedding]):
    """Embeddings in a catalog's folder, each read when it is asked for; equal to a tuple of them."""

    def __init__(self, folder: Path, records: Sequence[EmbeddingRecord]) -> None:
        self.folder = folder
        self.records = tuple(records)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> TaskEmbedding: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredEmbeddings": ...
    def __getitem__(self, index: int | slice) -> "TaskEmbedding | StoredEmbeddings":
        """The embedding, read and checked.

        Raises:
            EmbeddingFileError: Its file is missing or damaged.
        """
        if isinstance(index, slice):
            return StoredEmbeddings(self.folder, self.records[index])
        record = self.records[index]
        if record.pack is not None:
            from t2v_hub.catalog.pack import open_pack

            return open_pack(self.folder.parent / "cards", record.pack).entry(record.digest)[0]
        return TaskEmbedding.load(self.folder / record.file_name)

    def __iter__(self) -> Iterator[TaskEmbedding]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredEmbeddings):
            return self.records == other.records
        if isinstance(other, tuple) and all(isinstance(item, TaskEmbedding) for item in other):
            return self.records == records_of(other)
        return NotImplemented

    def __repr__(self) -> str:
        tasks = ", ".join(repr(record.task) for record in self.records)
        return f"<{len(self)} stored embeddings: {tasks}>"


def is_digest(value: object) -> bool:
    """Whether this is spelled as `TaskEmbedding.digest` is."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def file_name(digest: str) -> str:
    """Name of an embedding's file in the catalog's folder of embeddings.

    Raises:
        ValueError: The digest is none; as part of a path it could lead anywhere.
    """
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is no SHA-256 digest")
    return f"{digest.removeprefix('sha256:')}.safetensors"


def records_of(embeddings: Sequence[TaskEmbedding]) -> tuple[EmbeddingRecord, ...]:
    """The records of a candidate's embeddings; opens no file."""
    if isinstance(embeddings, StoredEmbeddings):
        return embeddings.records
    return tuple(EmbeddingRecord.of(embedding) for embedding in embeddings)
