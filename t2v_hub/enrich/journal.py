"""`Journal`: what a run of enrichment has finished, so that the next one need not do it again."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2v_hub.embedding import Json, TaskEmbedding, canonical_json
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.storage import locked, storage_error

_FILE = "cards.jsonl"


class Journal:
    """A folder with an embedding per data set, and a line per finished card.

    A line is whole or ignored: a process that is killed while it writes one leaves a card to be looked at
    again, which finds its entry there.

    Args:
        folder: Where; made when something is first kept.
        endpoint: The Hub whose cards they are: another one's may have the same names.
    """

    def __init__(self, folder: Path, *, endpoint: str = "") -> None:
        self.folder = folder
        self.endpoint = endpoint
        self._cards = self._read()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other run works in the folder meanwhile, and what earlier ones finished is known.

        Raises:
            StorageError: Another run does, or the disk is full, read-only or closed to us.
        """
        busy = (
            f"Another run works in {str(self.folder)!r}; two would measure and write the same twice. Wait "
            f"for it, or end it, and run the same command again: it goes on where that one stopped."
        )
        with locked(self.folder / ".lock", seconds=0, busy=busy):
            self._cards = self._read()
            yield

    def embedding(self, data_set: str, revision: str | None) -> TaskEmbedding | None:
        """The embedding of a data set at that commit, or at any where it is None."""
        try:
            found = TaskEmbedding.load(self._path(data_set))
        except (EmbeddingFileError, StorageError):
            return None
        same = revision is None or found.task.revision == revision
        return found if found.task.id.casefold() == data_set.casefold() and same else None

    def keep_embedding(self, data_set: str, embedding: TaskEmbedding) -> None:
        """Keep the embedding of a data set.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        embedding.save(self._path(data_set))

    def card(self, id: str, entry: Mapping[str, Json]) -> dict[str, Any] | None:
        """How the card of a checkpoint was finished with just that entry; None where it was not."""
        line = self._cards.get((self.endpoint, id))
        return line if line is not None and line.get("entry") == _digest(entry) else None

    def keep_card(self, id: str, entry: Mapping[str, Json], *, state: str, url: str | None) -> None:
        """Note that a card is finished.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        line = {"hub": self.endpoint, "id": id, "entry": _digest(entry), "state": state, "url": url}
        path = self.folder / _FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                # A line that a killed process left half written must not swallow this one.
                file.write(f"\n{json.dumps(line)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(path, error) from error
        self._cards[self.endpoint, id] = line

    def _read(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(line["hub"], line["id"]): line for line in self._lines()}

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            content = (self.folder / _FILE).read_bytes()
        except OSError:
            return
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and all(isinstance(line.get(name), str) for name in ("hub", "id")):
                yield line

    def _path(self, data_set: str) -> Path:
        folded = data_set.casefold()
        name = re.sub(r"[^\w.-]+", "--", folded)[:80]
        key = hashlib.sha256(folded.encode()).hexdigest()[:12]  # two ids must not share a file
        return self.folder / f"{name}-{key}.safetensors"


def _digest(entry: Mapping[str, Json]) -> str:
    return hashlib.sha256(canonical_json(entry)).hexdigest()
