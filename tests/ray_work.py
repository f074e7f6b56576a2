"""What the tests of Ray have its workers do; they import it."""

import os
import signal
from pathlib import Path

from factories import make_embedding, make_space

from t2v_hub import Space, Task2Vec, TaskEmbedding, blocks
from t2v_hub.cache import EmbeddingCache
from t2v_hub.embedding import TaskInfo


class Watched(Task2Vec):
    """Writes down, one whole line at a time, what is measured where; its process is killed as told.

    Attributes:
        log: The file.
        deadly: By name of a task, when the process that measures it is killed: after so many kept blocks; for
            -1 when the embedding is kept.
        again: Whether tasks with 0 there kill each process at once.
    """

    log: Path
    deadly: dict[str, int]
    again = False

    def embed(self, data: object, **options: object) -> TaskEmbedding:
        name = str(options.get("name"))
        put, save = blocks.BlockStore.put, EmbeddingCache.save
        n_kept = 0

        def noted_put(store: blocks.BlockStore, index: int, sums: blocks.Array) -> None:
            nonlocal n_kept
            put(store, index, sums)
            note(self.log, f"block {name} {index}")
            n_kept += 1
            if self.deadly.get(name) == n_kept and not self._was_killed(name):
                os.kill(os.getpid(), signal.SIGKILL)

        def noted_save(cache: EmbeddingCache, key: str, embedding: TaskEmbedding) -> None:
            save(cache, key, embedding)
            note(self.log, f"embedding {name} whole")
            if self.deadly.get(name) == -1 and not self._was_killed(name):  # before anybody is told
                os.kill(os.getpid(), signal.SIGKILL)

        note(self.log, f"try {name} {os.getpid()}")
        if self.again and self.deadly.get(name) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        blocks.BlockStore.put, EmbeddingCache.save = noted_put, noted_save  # type: ignore[method-assign]
        try:
            return super().embed(data, **options)
        finally:
            blocks.BlockStore.put, EmbeddingCache.save = put, save  # type: ignore[method-assign]

    def _was_killed(self, name: str) -> bool:
        return len([line for line in lines(self.log) if line[:2] == ("try", name)]) > 1


def note(log: Path, line: str) -> None:
    """Add a line at once: no kill can leave a half."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def lines(log: Path) -> list[tuple[str, str, str]]:
    """What was written down: the event, the task, and what of it."""
    texts = log.read_text().splitlines() if log.exists() else []
    return [(event, name, rest) for event, name, rest in (text.split(" ", 2) for text in texts)]


class Streamer:
    """In place of a `Task2Vec` that streams data sets from the Hub: it makes up what it embeds."""

    max_samples = 1000

    def __init__(self, log: Path) -> None:
        self.log = log

    def space(self, *, multi_label: bool = False) -> Space:
        return make_space(20)

    def embed(self, data: str, **options: object) -> TaskEmbedding:
        note(self.log, f"try {data} {os.getpid()}")
        if len([line for line in lines(self.log) if line[1] == data]) == 1 and data.endswith("s"):
            os.kill(os.getpid(), signal.SIGKILL)
        made = make_embedding(seed=len(data), space=make_space(20), n_filters=20, task=data)
        task = TaskInfo(data, 100, 4, revision=options["revision"])  # type: ignore[arg-type]
        return TaskEmbedding(made.fisher, made.prior, made.space, task, made.measurement)


class Unreadable:
    """Can be pickled, and not be read again."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return fail_to_read, ("gone.parquet",)


def fail_to_read(path: str) -> object:
    raise FileNotFoundError(f"no such file: {path}")


def threads_of(item: object) -> tuple[int, int, object]:
    import torch

    return torch.get_num_threads(), os.getpid(), item


def mistake(item: object) -> object:
    raise ZeroDivisionError("a mistake in the code")
