"""What several processes run together in `test_processes`: ``torchrun`` starts this file."""

import sys
from pathlib import Path

from t2v_hub.errors import DataError
from t2v_hub.processes import Processes
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import tiny_probe, tiny_task


def main(out: Path, cache: Path, tolerance: str) -> None:
    """Embed one task together; each process keeps what it got."""
    processes = Processes()
    assert processes.count > 1
    embedder = Task2Vec(
        tiny_probe(), cache=cache, progress=False, tolerance=float(tolerance) if tolerance else None
    )
    embedder.embed(tiny_task(150)).save(out / f"{processes.index}-of-{processes.count}.safetensors")

    small = {str(n): tiny_task(n, seed=n) for n in (3, 4, 5)}
    done = Task2Vec(tiny_probe(), cache=cache, progress=False).embed_many(small)
    for name, embedding in done.embeddings.items():
        embedding.save(out / f"small-{name}-{processes.index}-of-{processes.count}.safetensors")

    def fail() -> None:
        if processes.index == 1:
            raise DataError("only here")

    try:
        processes.share(fail)
    except DataError as error:
        (out / f"{processes.index}.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
