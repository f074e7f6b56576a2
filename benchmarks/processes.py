"""How much faster are several processes, and do they give the same bits?

Starts itself with ``torchrun`` for each number of processes, one thread each, in turn, and prints seconds of the
measurement (of a few images first, so that starting up and imports do not count) and a digest of the vector;
then each number's throughput beside that of the first, by the medians.

    python benchmarks/processes.py --data ../shared/kit/data/sign_digits/digits_0_4.parquet \
        --probe ../shared/kit/weights/resnet18.pqf_in1k.json
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from t2v_hub import data
from t2v_hub.processes import Processes
from t2v_hub.task2vec import Task2Vec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if "LOCAL_RANK" in os.environ:
        measure(options)
        return
    seconds: dict[int, list[float]] = {count: [] for count in options.counts}
    digests = set()
    for _ in range(options.repeats):
        for count in options.counts:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += [f"--nproc-per-node={count}", *sys.argv]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            result = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True)
            spent, digest = result.stdout.split()
            seconds[count].append(float(spent))
            digests.add(digest)
            print(f"{count} processes: {spent} s for {options.images} images, {digest}", flush=True)
    medians = {count: statistics.median(times) for count, times in seconds.items()}
    first = medians[options.counts[0]]
    for count, median in medians.items():
        print(f"{count} processes: {first / median:.2f} times the throughput")
    print("the same bits" if len(digests) == 1 else "OTHER BITS")


def measure(options: argparse.Namespace) -> None:
    """Embed together, and print from the first process."""
    task = data.load(options.data, progress=False)
    settings = {"image_size": options.image_size, "cache": False, "progress": False, "device": "cpu"}
    embedder = Task2Vec(options.probe, max_samples=options.images, **settings)
    Task2Vec(embedder.probe, max_samples=16, **settings).embed(task)  # imports
    processes = Processes()
    processes.share(lambda: None)  # wait for all
    start = time.perf_counter()
    embedding = embedder.embed(task)
    if processes.is_main:
        print(f"{time.perf_counter() - start:.1f} {embedding.digest}")


if __name__ == "__main__":
    main()
