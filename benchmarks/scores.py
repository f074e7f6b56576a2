"""How long does each transferability score take?

Features of ``--images`` images, ``--features`` wide (any number of widths), float32 and positive as pooled
activations are, for tasks of 10 and of 100 classes; predictions over 1,000 source classes. Seconds of the
fastest of ``--repeats``, and the peak memory of the process.

    OMP_NUM_THREADS=1 python benchmarks/scores.py
    python benchmarks/scores.py --images 5000 --features 4096 --repeats 1
"""

import argparse
import resource
import time

import numpy as np

from t2v_hub.scores import BUILT_IN_SCORES, SCORES, score


def seconds(name: str, n: int, d: int, n_classes: int, source_classes: int, repeats: int) -> float:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    features = np.maximum(rng.normal(size=(n_classes, d))[labels] + rng.normal(size=(n, d)), 0)
    features = (features * rng.lognormal(size=d)).astype(np.float32)  # columns of unlike size
    logits = rng.normal(size=(n, source_classes)) + 5 * (labels[:, None] == np.arange(source_classes))
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        score(name, labels, features=features, predictions=predictions.astype(np.float32))
        best = min(best, time.perf_counter() - start)
    return float(best)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--features", type=int, nargs="+", default=[1280, 2048])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--source-classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--scores", nargs="+", metavar="NAME", choices=SCORES, default=list(BUILT_IN_SCORES)
    )  # those of plug-ins where they are asked for
    parser.add_argument("--quick", action="store_true", help="60 images of 128 features, once")
    args = parser.parse_args()
    if args.quick:
        args.images, args.features, args.classes, args.source_classes, args.repeats = 60, [128], [3], 20, 1
    columns = [(d, k) for d in args.features for k in args.classes]
    print(f"seconds, n = {args.images}".ljust(20) + "".join(f"{f'd={d} K={k}':>16}" for d, k in columns))
    for name in args.scores:
        times = [seconds(name, args.images, d, k, args.source_classes, args.repeats) for d, k in columns]
        print(name.ljust(20) + "".join(f"{t:16.3f}" for t in times), flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
