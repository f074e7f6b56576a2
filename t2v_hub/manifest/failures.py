"""`FailureTable`: what could not be embedded, and why, as a CSV file beside the embeddings."""

import contextlib
import csv
import datetime
import io
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from t2v_hub.errors import StorageError
from t2v_hub.manifest.manifest import ManifestRow
from t2v_hub.manifest.shard import Shard
from t2v_hub.storage import write_atomically

_MAX_BYTES = 1 << 26
_LONGEST = 2000  # characters of a message


@dataclass(frozen=True)
class Failure:
    """A row that could not be embedded.

    Attributes:
        row: Number of the row in the manifest, from 1.
        name: What the task is called.
        file: Name of the file that its embedding would have.
        data: Its data, as the manifest has it.
        type: Kind of the error.
        message: What went wrong, in one line.
        time: When, in UTC, as ISO 8601.
        host: On which machine.
    """

    row: int
    name: str
    file: str
    data: str
    type: str
    message: str
    time: str
    host: str

    @classmethod
    def of(cls, row: ManifestRow, error: Exception, *, message: str | None = None) -> "Failure":
        """The failure of a row just now."""
        said = " ".join((str(error) if message is None else message).split())
        return cls(
            row=row.number,
            name=row.task,
            file=row.file_name,
            data=row.data,
            type=type(error).__name__,
            message=said[:_LONGEST] or type(error).__name__,
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            host=socket.gethostname(),
        )


class FailureTable:
    """The failures of one shard, as they are known to one process.

    The file is written anew whenever a row fails or heals, whole or not at all, and there is none where
    nothing failed. Failures of rows that the manifest does not have stay in it: they may be those of another
    manifest that shares the folder.

    Args:
        folder: Folder of the embeddings.
        shard: Whose failures.
        files: Names of the files of the shard's rows.
        manifest: Names of the files of all of the manifest's rows; failures of those that are in another
            shard now are forgotten.
    """

    def __init__(
        self, folder: Path, shard: Shard, *, files: Collection[str], manifest: Collection[str] = ()
    ) -> None:
        self.path = folder / f"failures-{shard.index}-of-{shard.count}.csv"
        read = read_failures(self.path)
        self._held = {item.file: item for item in read if item.file in files or item.file not in manifest}

    def __iter__(self) -> Iterator[Failure]:
        return iter(sorted(self._held.values(), key=lambda item: item.row))

    def add(self, failure: Failure) -> None:
        """Note a failure.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        self._held[failure.file] = failure
        write_failures(self.path, self)

    def heal(self, file: str) -> None:
        """Forget the failure of a row, where there was one.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        if self._held.pop(file, None) is not None:
            write_failures(self.path, self)

    def settle(self, done: Collection[str]) -> None:
        """Write what is left, and forget done rows in the tables of other divisions of the same manifest.

        Args:
            done: Names of the files that are there.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        for path in failure_files(self.path.parent):
            held = list(read_failures(path))
            left = [item for item in held if item.file not in done]
            if path != self.path and len(left) < len(held):
                write_failures(path, left)
        if self._held or self.path.exists():
            write_failures(self.path, self)


def failure_files(folder: Path) -> list[Path]:
    """The tables of failures in a folder."""
    return sorted(folder.glob("failures-*-of-*.csv"))


def read_failures(path: Path) -> tuple[Failure, ...]:
    """The failures in a table; none where there is no table, or one that nobody of us wrote."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return ()
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_failures(csv.DictReader(file, strict=True)))
    except (OSError, ValueError, csv.Error):
        return ()


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Write a table, whole or not at all; without failures there is none afterwards.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
    """
    rows = [asdict(item) for item in failures]
    if not rows:
        with contextlib.suppress(FileNotFoundError):
            try:
                path.unlink()
            except IsADirectoryError as error:
                raise StorageError(f"{str(path)!r} is a folder; move it away.") from error
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [item.name for item in fields(Failure)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # A lone surrogate of a file's name has no UTF-8.
    write_atomically(path, text.getvalue().encode("utf-8", errors="replace"))


def _failures(rows: Iterable[Mapping[str, object]]) -> Iterator[Failure]:
    for values in rows:
        texts = {item.name: values.get(item.name) for item in fields(Failure)}
        if not all(isinstance(value, str) for value in texts.values()):
            continue
        yield Failure(**{**texts, "row": int(str(texts["row"]))})  # type: ignore[arg-type]  # texts, just seen
