"""How long does it take to rank by distance, and how many bytes does that read?

Synthetic log-normal Fisher vectors (seeded) are encoded as a catalog's matrix is, float16 with a scale
and a power a row, and written to a temporary folder in parts: 100,000 rows of 8,512 filters are 1.7 GB.
Each figure is taken in a process of its own:

* read: the file's bytes once, by ``readinto`` of 1 MiB;
* rank: distances of all rows to one target, through the memory map, as `Matrix.distances` does for
  `ModelSelector.rank`; by distances with a complexity term for the first time, when what does not hang on the
  target is worked out too and written beside the rows;
* again: the same with what was kept, as for every later target;
* before: the same in float64 and one thread, as it was before rows of float16 were done in float32, on the
  first ``--sample`` rows, scaled;
* loop: what one would write in NumPy, row by row in float64, on as many rows, scaled.

cold means that the file's pages were dropped from the page cache (`posix_fadvise`) just before, which
`mincore` confirms; warm, that the file was read just before. The disk below may keep a cache of its own.
Cold and warm, reading and ranking take turns; medians of ``--repeats``, and the range. The second table
is the same for the matrix of distances among ``--tasks`` embeddings; its loop is over pairs, each once
where the distance is symmetric, and columns one by one, in one thread, are how it was made before. Peak memory is what a process had at most of its own (``RssAnon``, every
5 ms in a run that is not timed, less what it had before), without the pages of the file, which the system
takes back when it needs them.

    OMP_NUM_THREADS=2 python benchmarks/ranking.py
    OMP_NUM_THREADS=2 python benchmarks/ranking.py --rows 10000 --tasks 300 --repeats 5
    python benchmarks/ranking.py --quick
"""

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog.matrix import Matrix
from t2v_hub.distance import WITH_COMPLEXITY, DistanceName, distances, pairwise
from t2v_hub.distance.formulas import LEVEL
from t2v_hub.distance.threads import n_threads
from t2v_hub.embedding import HalfVector, Layer, Measurement, Space, TaskEmbedding, TaskInfo

NAMES: tuple[DistanceName, ...] = ("symmetric", "asymmetric", "relative")
RANKINGS = [*(("rank", name) for name in NAMES), *(("again", name) for name in WITH_COMPLEXITY)]
PART = 2000  # rows that are made at once
SPREAD = 2.0  # standard deviation of the logarithm


def space(n_filters: int) -> Space:
    return Space(
        probe_digest="sha256:" + "0" * 64,
        layers=tuple(Layer(f"layer{i}", len(part)) for i, part in enumerate(np.array_split(range(n_filters), 8))),
        preprocessing={"size": 224},
        head={"loss": "softmax"},
        sampling={"how": "natural"},
        family="fisher",
        beta=1e-7,
        probe="benchmark",
    )  # fmt: skip


def embedding(n_filters: int, seed: int) -> TaskEmbedding:
    rng = np.random.default_rng([1, seed])
    return TaskEmbedding(
        fisher=np.exp(rng.normal(-9 + rng.normal(), SPREAD, n_filters)).astype(np.float32),
        prior=np.geomspace(1e-4, 1e-2, 8, dtype=np.float32),
        space=space(n_filters),
        task=TaskInfo(f"task{seed}", n_samples=1000, n_classes=10),
        measurement=Measurement(estimator="monte_carlo", n_samples=1000, seed=seed),
    )


def write(folder: Path, rows: int, n_filters: int) -> None:
    """The matrix's files, on the disk when this returns."""
    values = np.lib.format.open_memmap(
        folder / "values.npy", mode="w+", dtype=np.float16, shape=(rows, n_filters)
    )
    scale, power = np.empty(rows), np.empty(rows, np.int64)
    for start in range(0, rows, PART):
        rng = np.random.default_rng([0, start])
        n = min(PART, rows - start)
        fisher = rng.standard_normal((n, n_filters), np.float32) * SPREAD
        fisher = np.exp(fisher + (-9 + rng.standard_normal((n, 1), np.float32)))
        for i, row in enumerate(fisher, start):
            half = HalfVector.encode(row)
            values[i], scale[i], power[i] = half.values, half.scale, half.power
    values.flush()
    np.save(folder / "scale.npy", scale)
    np.save(folder / "power.npy", power)
    with (folder / "values.npy").open("rb") as file:
        os.fsync(file.fileno())


def matrix(folder: Path) -> Matrix:
    values = np.load(folder / "values.npy", mmap_mode="r")
    return Matrix(
        digests=("",) * len(values),
        values=values,
        scale=np.load(folder / "scale.npy"),
        power=np.load(folder / "power.npy"),
        damaged={},
        beside=folder / "values.npy",
    )


def forget(folder: Path) -> None:
    """Delete what is kept beside the rows."""
    for path in folder.glob("*-terms"):
        path.unlink()


def read(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def make_cold(path: Path) -> float:
    """Drop the file's pages from the cache; the share of them that are there still."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    pages = np.memmap(path, np.uint8, "r")
    resident = np.zeros(-(-len(pages) // mmap.PAGESIZE), np.uint8)
    failed = ctypes.CDLL(None, use_errno=True).mincore(
        ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(len(pages)), ctypes.c_void_p(resident.ctypes.data)
    )
    return float("nan") if failed else float((resident & 1).mean())


def row(whole: Matrix, i: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = whole.values[i].astype(np.float64)
    if whole.power[i] > 1:
        values **= whole.power[i]
    values *= whole.scale[i]
    return values


def plain_symmetric(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    total: NDArray[np.float64] = a + b
    u: NDArray[np.float64] = a / total
    v: NDArray[np.float64] = b / total
    return float(1 - u @ v / np.sqrt((u @ u) * (v @ v)))


def plain(name: DistanceName, a: NDArray[np.float64], target: TaskEmbedding) -> float:
    """The distance as one would write it down."""
    if name == "symmetric":
        return plain_symmetric(a, target.fisher.astype(np.float64))
    trivial, beta = target.prior_precision, target.space.beta
    b = target.fisher.astype(np.float64)
    if name == "relative":
        a, b = a * (LEVEL / a.mean()), b * (LEVEL / b.mean())
    ours: NDArray[np.float64] = b / (2 * beta) + trivial
    robust: NDArray[np.float64] = a / (2 * beta) + trivial
    return plain_symmetric(robust, ours) - 0.15 * plain_symmetric(robust, trivial)


def figure(what: str, name: DistanceName, args: argparse.Namespace) -> Callable[[], object]:
    """What is to be timed; what comes before it is done."""
    path = args.folder / "values.npy"
    if what == "read":
        return lambda: read(path)
    if what in ("rank", "again", "before", "loop"):
        target = embedding(args.filters, 0)
        whole = matrix(args.folder)
        n = min(args.sample, len(whole))
        if what in ("rank", "again"):
            return lambda: matrix(args.folder).distances(target, name=name)
        if what == "loop":
            return lambda: [plain(name, row(whole, i), target) for i in range(n)]
        step = 30  # rows that were decoded at once

        def before() -> None:
            for start in range(0, n, step):
                part = slice(start, min(start + step, n))
                block = whole.values[part].astype(np.float64)
                for power in np.unique(whole.power[part]):
                    if power > 1:
                        block[whole.power[part] == power] **= power
                distances(target, block * whole.scale[part, None], name=name)

        return before
    tasks = [embedding(args.filters, seed) for seed in range(args.tasks)]
    n = min(args.sample, args.tasks * (args.tasks - 1) // 2)
    pairs = np.random.default_rng(0).integers(0, args.tasks, (n, 2))
    if what == "pairwise":
        return lambda: pairwise(tasks, name=name)
    if what == "pairs":
        return lambda: [plain(name, tasks[i].fisher.astype(np.float64), tasks[j]) for i, j in pairs]
    stacked = np.stack([task.fisher for task in tasks])
    return lambda: [distances(task, stacked, name=name) for task in tasks[:8]]  # columns of the matrix


def scaled(what: str, name: str, args: argparse.Namespace) -> float:
    """How many times as long the whole would take."""
    rows, tasks, sample = int(args.rows), int(args.tasks), int(args.sample)
    if what in ("before", "loop"):
        return rows / min(sample, rows)
    n_pairs = tasks * (tasks - 1) // 2
    if what == "pairs":  # those with a complexity term have a direction
        return n_pairs * (1 if name == "symmetric" else 2) / min(sample, n_pairs)
    return tasks / min(8, tasks) if what == "columns" else 1.0


def child(what: str, name: DistanceName, args: argparse.Namespace) -> None:
    """Time one figure, or watch its memory, and print what came out as JSON."""
    work = figure(what, name, args)
    if args.memory:
        print(json.dumps({"bytes": memory(work)}))
        return
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    check(what, name, args, result)
    print(json.dumps({"seconds": seconds}))


def check(what: str, name: DistanceName, args: argparse.Namespace, result: object) -> None:
    """A fast wrong answer would win every comparison."""
    if what in ("rank", "again"):
        whole, target = matrix(args.folder), embedding(args.filters, 0)
        rows = np.linspace(0, len(whole) - 1, 20).astype(int)
        expected = [plain(name, row(whole, i), target) for i in rows]
        np.testing.assert_allclose(np.asarray(result)[rows], expected, rtol=0, atol=1e-6)
    if what == "pairwise":
        a, b = embedding(args.filters, 0), embedding(args.filters, args.tasks - 1)
        expected = [plain(name, a.fisher.astype(np.float64), b)]
        np.testing.assert_allclose(np.asarray(result)[:1, -1], expected, rtol=1e-9)


def memory(work: Callable[[], object]) -> int:
    """Bytes of the process's own at most, beyond what it had before."""

    def own() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
        return 0

    done = threading.Event()
    before = own()
    highest = [before]

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    highest[0] = max(highest[0], own())
    done.set()
    watcher.join()
    return highest[0] - before


def measure(what: str, name: str, args: argparse.Namespace, *, memory: bool = False) -> float:
    if what == "rank":
        forget(args.folder)
    command = [sys.executable, __file__, "--child", what, "--name", name, "--folder", str(args.folder)]
    for option in ("rows", "filters", "tasks", "sample"):
        command += [f"--{option}", str(getattr(args, option))]
    if memory:
        command.append("--memory")
    # There were no threads before.
    threads = {"OMP_NUM_THREADS": "1"} if what in ("before", "columns") else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        raise SystemExit(done.stderr)
    values = json.loads(done.stdout)
    return float(values["bytes"] if memory else values["seconds"] * scaled(what, name, args))


def median(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def ranking(args: argparse.Namespace) -> None:
    path = args.folder / "values.npy"
    seconds: dict[tuple[str, str, str], list[float]] = {}
    cached: list[float] = []
    for _ in range(args.repeats):
        for state in ("cold", "warm"):
            for what, name in [("read", NAMES[0]), *RANKINGS]:
                if what == "again":
                    measure("rank", name, args)  # which keeps what there is to keep
                if state == "cold":
                    cached.append(make_cold(path))
                else:
                    read(path)
                seconds.setdefault((what, name, state), []).append(measure(what, name, args))
        for name in NAMES:
            for what in ("loop", "before"):
                seconds.setdefault((what, name, "warm"), []).append(measure(what, name, args))
    gigabytes = path.stat().st_size / 1e9
    print(
        f"{args.rows:,} rows of {args.filters:,} float16, {gigabytes:.3g} GB; {n_threads()} threads; seconds"
    )
    print(f"pages cached after dropping them: {max(cached):.1%} at most\n")
    print("| | median (range) | times the read | the loop takes | float64 takes | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for state in ("cold", "warm"):
        reading = seconds["read", NAMES[0], state]
        print(f"| read, {state} | {median(reading)} | 1 | | | |")
        for what, name in RANKINGS:
            own = seconds[what, name, state]
            times = [
                f"{np.median(seconds[other, name, 'warm']) / np.median(own):.1f} times"
                for other in ("loop", "before")
            ]
            if what == "again":
                measure("rank", name, args)
            peak = measure(what, name, args, memory=True) / 1e6
            print(
                f"| {name}{' again' if what == 'again' else ''}, {state} | {median(own)} "
                f"| {np.median(own) / np.median(reading):.2f} | {' | '.join(times)} | {peak:.0f} |",
                flush=True,
            )
    for what in ("loop", "before"):
        for name in NAMES:
            print(f"| {what}, {name} (scaled) | {median(seconds[what, name, 'warm'])} | | | | |")


def matrices(args: argparse.Namespace) -> None:
    print(f"\nmatrix among {args.tasks:,} embeddings; {n_threads()} threads; seconds\n")
    print("| | median (range) | the loop over pairs takes | columns one by one take | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name in NAMES:
        seconds: dict[str, list[float]] = {"pairwise": [], "pairs": [], "columns": []}
        for _ in range(args.repeats):
            for what, values in seconds.items():
                values.append(measure(what, name, args))
        own = np.median(seconds["pairwise"])
        times = [
            f"{median(seconds[what])}, {np.median(seconds[what]) / own:.1f} times"
            for what in ("pairs", "columns")
        ]
        peak = measure("pairwise", name, args, memory=True) / 1e6
        print(f"| {name} | {median(seconds['pairwise'])} | {' | '.join(times)} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--filters", type=int, default=8512)
    parser.add_argument("--tasks", type=int, default=1460)
    parser.add_argument("--sample", type=int, default=500, help="rows, or pairs, of what is scaled")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the matrix is written. Default: a temporary one.")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, 40 tasks, once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.name, args)
        return
    if args.quick:
        args.rows, args.tasks, args.sample, args.repeats = 2000, 40, 100, 1
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.folder = Path(folder)
        write(args.folder, args.rows, args.filters)
        ranking(args)
        matrices(args)


if __name__ == "__main__":
    main()
