"""Where `t2v embed` writes, checked before hours are spent on measuring."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from t2v_hub.errors import EmbeddingFileError, StorageError

if TYPE_CHECKING:
    from t2v_hub.embedding import Space, TaskInfo

SUFFIX = ".safetensors"


def check_parent(out: Path | None) -> None:
    """Return when the folder that ``out`` is to lie in exists.

    Raises:
        StorageError: It does not, or is a file; the message names it.
    """
    if out is None or out.parent.is_dir():
        return
    lack = "is no folder" if out.parent.exists() else "does not exist"
    raise StorageError(
        f"Cannot write {str(out)!r}: the folder {str(out.parent)!r} {lack}. Make it first, or pass "
        f"another -o."
    )


def file_for(task: "TaskInfo", out: Path | None, *, split: str | None, taken: Collection[Path]) -> Path:
    """Where the embedding of a task goes: never two of one run into one file.

    Args:
        task: Which data set it is.
        out: The file, or the folder; None for the present one.
        split: Split that was asked for, which then is part of the name.
        taken: Files of this run so far.
    """
    if out is not None and out.suffix == SUFFIX and not out.is_dir():
        return out
    folder = Path() if out is None else out
    name = task.id.replace("/", "--") + (f"-{split}" if split else "")
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "task"
    path, count = folder / f"{name}{SUFFIX}", 1
    while path in taken:
        count += 1
        path = folder / f"{name}-{count}{SUFFIX}"
    return path


def check_replaceable(path: Path, task: "TaskInfo", space: "Space") -> None:
    """Return when nothing is at ``path``, or an embedding of the same task in the same space.

    Raises:
        StorageError: Something else is; the message says what.
    """
    from t2v_hub.embedding import TaskEmbedding

    if not path.exists():
        return
    try:
        old = TaskEmbedding.load(path)
    except (EmbeddingFileError, StorageError) as error:
        raise _kept(path, "is there already and is no embedding that can be read") from error
    if old.task.id != task.id:
        raise _kept(path, f"holds the embedding of another task, {old.task.id!r} instead of {task.id!r}")
    if old.space != space:
        differences = "; ".join(old.space.differences(space))
        raise _kept(path, f"holds the embedding of {task.id!r} in another space ({differences})")


def _kept(path: Path, what: str) -> StorageError:
    return StorageError(f"{str(path)!r} {what}. Pass another -o, or --overwrite to replace it.")
