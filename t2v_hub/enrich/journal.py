"""`Journal`: what a run of enrichment has finished, so that the next one need not do it again."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.storage import storage_error

_FILE = "cards.jsonl"


class Journal:
    """A folder with an embedding per data set, and a line per finished card.

    A line is whole or ignored: a process that is killed while it writes one leaves a card to be looked at
    again, which finds its entry there.

    Args:
        folder: Where; made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cards = {line["id"]: line for line in self._lines()}

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

    def card(self, id: str, digest: str) -> dict[str, Any] | None:
        """How the card of a checkpoint was finished with an embedding of that digest; None where not."""
        line = self._cards.get(id)
        return line if line is not None and line.get("digest") == digest else None

    def keep_card(self, id: str, digest: str, *, state: str, url: str | None) -> None:
        """Note that a card is finished.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        line = {"id": id, "digest": digest, "state": state, "url": url}
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
        self._cards[id] = line

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
            if isinstance(line, dict) and isinstance(line.get("id"), str):
                yield line

    def _path(self, data_set: str) -> Path:
        folded = data_set.casefold()
        name = re.sub(r"[^\w.-]+", "--", folded)[:80]
        key = hashlib.sha256(folded.encode()).hexdigest()[:12]  # two ids must not share a file
        return self.folder / f"{name}-{key}.safetensors"
