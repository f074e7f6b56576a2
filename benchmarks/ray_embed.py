"""What do Ray's workers make of many tasks: are all there when one is killed, and how much faster are two?

Sixty tasks of handwritten digits, with a small untrained probe. First with two workers, of which one is killed
(SIGKILL) in the middle of a task, and another one after it has kept an embedding and before anybody hears of it;
what was measured is counted by lines that each worker writes to a file, and each vector is compared, bit for bit,
with that of this process. Then, nothing cached, one worker and two in turn, warm; and this process alone, as
``embed_many`` works without an executor, where small tasks share their passes.

    python benchmarks/ray_embed.py
"""

import argparse
import itertools
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported: it reports to nobody
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of this process too, so that bits can be compared

import ray
import torch
from datasets import Dataset

from t2v_hub import Task2Vec, TaskEmbedding, blocks
from t2v_hub.cache import EmbeddingCache
from t2v_hub.demo.digits import RENDERINGS, Digits, DigitTask
from t2v_hub.demo.networks import PREPROCESSING, new_network
from t2v_hub_integrations.ray import RayExecutor


class Counted(Task2Vec):
    """Writes down what is measured; its process is killed once at ``within``, and once at ``after``."""

    log: Path
    within: str
    after: str

    def embed(self, data: object, **options: object) -> TaskEmbedding:
        name, put, save = str(options["name"]), blocks.BlockStore.put, EmbeddingCache.save

        def counted_put(store: blocks.BlockStore, index: int, sums: blocks.Array) -> None:
            put(store, index, sums)
            self.note("block", name, str(index))
            if (name, index) == (self.within, 1):
                self.kill()

        def counted_save(cache: EmbeddingCache, key: str, embedding: TaskEmbedding) -> None:
            save(cache, key, embedding)
            self.note("embedding", name)
            if name == self.after:
                self.kill()

        self.note("try", name)
        blocks.BlockStore.put, EmbeddingCache.save = counted_put, counted_save  # type: ignore[method-assign]
        try:
            return super().embed(data, **options)
        finally:
            blocks.BlockStore.put, EmbeddingCache.save = put, save  # type: ignore[method-assign]

    def note(self, *words: str) -> None:
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{chr(9).join(words)}\n".encode())  # at once: no kill can leave a half
        os.close(handle)

    def kill(self) -> None:
        self.note("kill", str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)


def make_tasks(n_tasks: int, n_images: int) -> dict[str, Dataset]:
    """Each another three digits, drawn in one of five ways."""
    digits = Digits(0)
    tasks = {}
    triples = itertools.islice(itertools.combinations(range(10), 3), n_tasks)
    for triple, rendering in zip(triples, itertools.cycle(RENDERINGS), strict=False):
        task = DigitTask(f"{''.join(map(str, triple))}-{rendering}", triple, rendering)
        tasks[task.name] = digits.dataset(task, "experts", stop=n_images // 3)
    return tasks


def settings(folder: Path | None) -> dict[str, object]:
    return {"preprocessing": PREPROCESSING, "cache": folder or False, "progress": False, "device": "cpu"}


def start(n_workers: int) -> None:
    ray.init(
        num_cpus=n_workers,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        object_store_memory=200 << 20,
    )


def survive(tasks: dict[str, Dataset], network: torch.nn.Module) -> bool:
    """Whether all tasks are there after two workers were killed, each measured once, with the same bits."""
    names = list(tasks)
    with tempfile.TemporaryDirectory() as folder:
        embedder = Counted(network, **settings(Path(folder) / "cache"))
        embedder.log = Path(folder) / "log"
        embedder.within, embedder.after = names[len(names) // 2], names[2 * len(names) // 3]
        start(2)
        done = embedder.embed_many(tasks, executor="ray")
        ray.shutdown()
        rows = [line.split("\t") for line in embedder.log.read_text().splitlines()]
    counts = {
        event: Counter(tuple(row[1:]) for row in rows if row[0] == event)
        for event in ("try", "block", "embedding", "kill")
    }
    local = Task2Vec(network, **settings(None))
    alike = sum(
        done.embeddings[name].fisher.tobytes() == (own := local.embed(task, name=name)).fisher.tobytes()
        and done.embeddings[name].deviations.tobytes() == own.deviations.tobytes()
        for name, task in tasks.items()
        if name in done.embeddings
    )
    n_blocks = sum(-(-len(task) // blocks.BLOCK_SIZE) for task in tasks.values())
    table = [
        ("workers killed (SIGKILL)", len(counts["kill"]), 2),
        ("tasks embedded", len(done.embeddings), len(tasks)),
        ("tasks failed", len(done.failures), 0),
        ("tasks tried again", sum(n > 1 for n in counts["try"].values()), 2),
        ("embeddings measured", counts["embedding"].total(), len(tasks)),
        ("of these, twice", sum(n > 1 for n in counts["embedding"].values()), 0),
        ("blocks measured", counts["block"].total(), n_blocks),
        ("of these, twice", sum(n > 1 for n in counts["block"].values()), 0),
        ("vectors and errors with the bits of this process", alike, len(tasks)),
    ]
    print("| with a worker killed midway | found | wanted |\n|---|--:|--:|")
    for row in table:
        print("| {} | {} | {} |".format(*row))
    return all(found == wanted for _, found, wanted in table)


def compare(tasks: dict[str, Dataset], network: torch.nn.Module, repeats: int) -> None:
    """One worker and two, in turn, and this process; the machine's load tells whether others were at work."""
    seconds: dict[str, list[float]] = {"1 worker": [], "2 workers": [], "this process, shared passes": []}
    loads: dict[str, list[float]] = {name: [] for name in seconds}
    embedder = Task2Vec(network, **settings(None))
    warm_up = make_tasks(8, 12)

    def run(name: str, executor: str | None) -> None:
        seconds[name].append(timed(embedder, tasks, executor))
        loads[name].append(os.getloadavg()[0])

    for _ in range(repeats):
        for name, n_workers in (("1 worker", 1), ("2 workers", 2)):
            start(n_workers)
            embedder.embed_many(warm_up, executor=RayExecutor())  # imports
            run(name, "ray")
            ray.shutdown()
        run("this process, shared passes", None)
    first = statistics.median(seconds["1 worker"])
    print(
        f"\n| {len(tasks)} tasks, nothing cached | seconds, median | throughput | each run, and the load after it |"
    )
    print("|---|--:|--:|---|")
    for name, some in seconds.items():
        median = statistics.median(some)
        runs = ", ".join(f"{s:.1f} ({load:.1f})" for s, load in zip(some, loads[name], strict=True))
        print(f"| {name} | {median:.1f} | {first / median:.2f} | {runs} |")
    pairs = [one / two for one, two in zip(seconds["1 worker"], seconds["2 workers"], strict=True)]
    print(f"two workers against one, pair by pair: {', '.join(f'{pair:.2f}' for pair in pairs)}")


def timed(embedder: Task2Vec, tasks: dict[str, Dataset], executor: str | None) -> float:
    begin = time.perf_counter()
    assert len(embedder.embed_many(tasks, executor=executor).embeddings) == len(tasks)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--images", type=int, default=120, help="of each task; 216 at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="nine small tasks, and nothing is timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tasks = make_tasks(9, 66) if options.quick else make_tasks(options.tasks, options.images)
    network = new_network("timm", 10, widths=(16, 24, 32, 48), seed=0)
    well = survive(tasks, network)
    if not options.quick:
        compare(tasks, network, options.repeats)
    sys.exit(0 if well else "SOMETHING IS LOST, MEASURED TWICE, OR OF OTHER BITS")


if __name__ == "__main__":
    main()
