"""What several processes run together in `test_processes`: ``torchrun`` starts this file."""

import os
import signal
import sys
from pathlib import Path

from t2v_hub import blocks
from t2v_hub.errors import DataError
from t2v_hub.processes import Processes
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing import tiny_probe, tiny_task


def main(out: Path, cache: Path, tolerance: str, moment: str) -> None:
    """Embed one task together; each process keeps what it got.

    Args:
        out: Where to keep it.
        cache: Of blocks and embeddings.
        tolerance: A number, or nothing.
        moment: When the second process is killed, if it is: ``before``, ``within`` or ``after`` the
            writing of its third block.
    """
    processes = Processes()
    assert processes.count > 1
    if moment and processes.index == 1:
        kill_at(moment)
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


def kill_at(moment: str, nth: int = 3) -> None:
    """Have this process killed, with no chance to tidy up, at its nth block."""
    write, count = blocks.write_atomically, 0

    def dying() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def writing(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == nth and moment == "before":
            dying()
        if count == nth and moment == "within":
            path.with_name(f".{path.name}.half.tmp").write_bytes(content[: len(content) // 2])
            dying()
        write(path, content)
        if count == nth:
            dying()

    blocks.write_atomically = writing  # type: ignore[assignment]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    # gloo's threads are now and then torn down with the interpreter, which aborts; all is written by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
