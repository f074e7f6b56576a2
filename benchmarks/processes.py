"""How much faster are several processes, and do they give the same bits?

Starts itself with ``torchrun`` for each number of processes, one thread each, and prints seconds of the
measurement (not of starting up) and a digest of the vector.

    python benchmarks/processes.py --data ../shared/kit/data/sign_digits/digits_0_4.parquet \
        --probe ../shared/kit/weights/resnet18.pqf_in1k.json
"""

import argparse
import os
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
    options = parser.parse_args()
    if "LOCAL_RANK" in os.environ:
        measure(options)
        return
    for count in options.counts:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        result = subprocess.run([*command, *sys.argv], env=environment, text=True, stdout=subprocess.PIPE)
        print(f"{count} processes: {result.stdout.strip()}", flush=True)


def measure(options: argparse.Namespace) -> None:
    """Embed together, and print from the first process."""
    task = data.load(options.data, progress=False)
    embedder = Task2Vec(
        options.probe,
        image_size=options.image_size,
        max_samples=options.images,
        cache=False,
        progress=False,
        device="cpu",
    )
    processes = Processes()
    processes.share(lambda: None)  # wait for all
    start = time.perf_counter()
    embedding = embedder.embed(task)
    if processes.is_main:
        seconds = time.perf_counter() - start
        print(f"{seconds:.1f} s for {options.images} images, digest {embedding.digest[:16]}")


if __name__ == "__main__":
    main()
