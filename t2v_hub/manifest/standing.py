"""Whether a row of a manifest is done: `standing` of the file that its embedding would have."""

import json
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from t2v_hub.embedding import Measurement, TaskEmbedding, canonical_json
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.manifest.manifest import ManifestRow
from t2v_hub.storage import temporary_prefix, write_atomically

if TYPE_CHECKING:
    from t2v_hub.task2vec import Task2Vec

Standing = Literal["absent", "done", "other settings", "other data"]

_NOTES = ".rows"
_FORMAT = "t2v-row/1"
_MAX_NOTE = 1 << 16
_STALE_SECONDS = 3600


def standing(
    folder: Path, row: ManifestRow, *, task2vec: "Task2Vec | None" = None
) -> tuple[Standing, TaskEmbedding | None]:
    """How far a row is, and the embedding that is there.

    It is done where the row's file holds an embedding of its task, measured in the same space, with the same
    settings and number of images, from the data that the row names now. Whether images were added to that
    data since is not looked at.

    Args:
        folder: Folder of the embeddings.
        row: The row.
        task2vec: What it would be measured with; None looks at the task and its data only.

    Raises:
        StorageError: The file is not the row's: another task's, one of another space, or no embedding.
    """
    path = folder / row.file_name
    if not path.exists() and not path.is_symlink():
        return "absent", None
    try:
        found = TaskEmbedding.load(path)
    except (EmbeddingFileError, StorageError) as error:
        if not path.exists() and not path.is_symlink():  # it was removed just now
            return "absent", None
        raise _kept(path, "is there already and is no embedding that can be read") from error
    if found.task.id != row.task:
        raise _kept(path, f"holds the embedding of another task, {found.task.id!r} instead of {row.task!r}")
    if task2vec is not None:
        space = task2vec.space(multi_label=found.task.multi_label)
        if found.space != space:
            differences = "; ".join(found.space.differences(space))
            raise _kept(path, f"holds the embedding of {row.task!r} in another space ({differences})")
    if _note_contradicts(folder, row, found) or not _of_options(found, row):
        return "other data", found
    if task2vec is None:
        return "done", found
    same = _of_settings(found, task2vec, row.max_samples or task2vec.max_samples)
    return ("done" if same else "other settings"), found


def note(folder: Path, row: ManifestRow, embedding: TaskEmbedding) -> None:
    """Note which data a row's embedding was measured from, so that a change of the manifest is noticed.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
    """
    values = {"format": _FORMAT, "row": row.digest, "embedding": embedding.digest}
    write_atomically(_note_path(folder, row), canonical_json(values))


def clear_half_written(folder: Path, names: Collection[str]) -> None:
    """Delete what killed processes left half written of these embeddings, not what others write now.

    Args:
        folder: Folder of the embeddings.
        names: Names of their files; nobody else's temporary file is looked at.
    """
    ours = {temporary_prefix(name) for name in names}
    notes = {temporary_prefix(f"{name}.json") for name in names}
    for some, prefixes in ((folder, ours), (folder / _NOTES, notes)):
        for path in some.glob(".*.tmp"):
            try:
                mine = path.name.removesuffix(".tmp").rpartition(".")[0] + "." in prefixes
                if mine and path.lstat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()
            except OSError:  # gone, or closed to us
                continue


def _note_contradicts(folder: Path, row: ManifestRow, found: TaskEmbedding) -> bool:
    """Whether this embedding was measured from other data than the row names now."""
    path = _note_path(folder, row)
    try:
        if path.stat().st_size > _MAX_NOTE:
            return False
        values = json.loads(path.read_bytes())
        about_this = values["format"] == _FORMAT and values["embedding"] == found.digest
        return bool(about_this and values["row"] != row.digest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # without a note the embedding's own record decides


def _note_path(folder: Path, row: ManifestRow) -> Path:
    return folder / _NOTES / f"{row.file_name}.json"


def _of_options(found: TaskEmbedding, row: ManifestRow) -> bool:
    """Whether what the row says of its data is what the embedding says; for what it does not say, any."""
    has = {"split": found.task.split, "config": found.task.config, "label_column": found.task.label_column}
    return all(row.options.get(name) in (None, value) for name, value in has.items())


def _of_settings(found: TaskEmbedding, task2vec: "Task2Vec", max_samples: int) -> bool:
    how = found.measurement
    wanted = Measurement(
        estimator=task2vec.estimator,
        n_samples=how.n_samples,
        seed=task2vec.seed,
        n_labels=task2vec.n_labels,
        dtype=task2vec.dtype,
    )
    names = ("estimator", "seed", "n_labels", "dtype")
    tolerance = math.nan if task2vec.tolerance is None else task2vec.tolerance
    same_tolerance = how.tolerance == tolerance or (math.isnan(how.tolerance) and math.isnan(tolerance))
    n_drawn = how.n_head_samples + how.n_skipped
    return (
        all(getattr(how, name) == getattr(wanted, name) for name in names)
        and same_tolerance
        and n_drawn == min(max_samples, found.task.n_samples)
        and (found.deviations is not None) == task2vec.standard_error
    )


def _kept(path: Path, what: str) -> StorageError:
    return StorageError(
        f"{str(path)!r} {what}. Give the task another name in the manifest, choose another folder, or "
        f"replace it with overwrite=True."
    )
