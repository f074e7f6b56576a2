"""Do nominal 95 % intervals of distances cover full reruns?

Each of two tasks is measured again and again with another seed: another sample of images, another
head, other drawn labels. A run of each gives a distance and, from these two alone, a standard error.
Printed: the share of pairs of runs whose interval holds the mean of all, the ratio of the stated to the
true spread, and the same for the embedding's own standard error.

    python benchmarks/coverage.py --data ../shared/kit/data --probe ../shared/kit/weights/resnet18.pqf_in1k.json \
        --tasks sign_digits/digits_0_4 trashnet/materials

A sample that is a large part of its data set repeats images between runs: the true spread over
seeds is then smaller than that over new images, by ``sqrt(1 - n/N)``, which is printed beside.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from t2v_hub import data
from t2v_hub.distance import DistanceName, distance, distance_standard_error
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.head import HeadRecipe
from t2v_hub.task2vec import Task2Vec

NAMES: tuple[DistanceName, ...] = ("symmetric", "asymmetric")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--tasks", nargs=2, required=True)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--tolerance", type=float, default=None, help="stop when the stated error is below")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--head", type=json.loads, default={}, help='a head recipe, as {"kind": "l2", …}')
    parser.add_argument("--cache", type=Path, default=Path("build/coverage"))
    options = parser.parse_args()

    files = {
        task["task"]: task["file"] for task in json.loads((options.data / "tasks.json").read_text())["tasks"]
    }
    runs: dict[str, list[TaskEmbedding]] = {}
    for name in options.tasks:
        task = data.load(options.data / files[name], name=name, progress=False)
        runs[name] = []
        for seed in tqdm(range(options.runs), desc=name):
            embedder = Task2Vec(
                options.probe,
                image_size=options.image_size,
                max_samples=options.images,
                tolerance=options.tolerance,
                head=HeadRecipe.from_dict(options.head),
                seed=seed,
                cache=options.cache,
                progress=False,
            )
            runs[name].append(embedder.embed(task))
        report_embedding(name, runs[name], task.n_samples)
    first, second = (runs[name] for name in options.tasks)
    for label in NAMES:
        values = np.array([[distance(a, b, name=label) for b in second] for a in first])
        errors = np.array([[distance_standard_error(a, b, name=label) for b in second] for a in first])
        report_coverage(label, values, errors)


def report_embedding(name: str, runs: Sequence[TaskEmbedding], n: int) -> None:
    """The stated standard error of the embedding against its spread over runs."""
    fisher = np.stack([run.fisher for run in runs]).astype(np.float64)
    spread = np.sqrt(fisher.var(axis=0, ddof=1).sum() / np.square(fisher.mean(axis=0)).sum())
    alive = fisher.mean(axis=0) > 0
    median = np.median(fisher[:, alive].std(axis=0, ddof=1) / fisher[:, alive].mean(axis=0))
    stated = np.mean([run.standard_error for run in runs])
    stated_median = np.mean([run.measurement.median_standard_error for run in runs])
    sizes = [run.measurement.n_samples for run in runs]
    part = np.sqrt(1 - min(1.0, np.mean(sizes) / n))
    print(
        f"{name}, {min(sizes)} to {max(sizes)} images: norm {np.mean([run.norm for run in runs]):.3g}; relative standard error stated "
        f"{stated:.3f}, true {spread:.3f}; per filter (median) stated {stated_median:.3f}, true "
        f"{median:.3f}; sqrt(1 - n/N) = {part:.2f}"
    )


def report_coverage(label: str, values: np.ndarray, errors: np.ndarray) -> None:
    """Coverage of the mean distance by the intervals of all pairs of runs, ``(runs, runs)``.

    The pairs share runs; the spread of one of them is the sum of what each task's runs vary by and of
    what pairs vary by beside (a two-way analysis of variance).
    """
    n = len(values)
    by_first, by_second, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
    rest = np.square(values - by_first[:, None] - by_second + mean).sum() / (n - 1) ** 2
    parts = by_first.var(ddof=1) - rest / n, by_second.var(ddof=1) - rest / n
    spread = np.sqrt(max(0, parts[0]) + max(0, parts[1]) + rest)
    stated = np.sqrt(np.mean(np.square(errors)))
    inside = np.abs(values - mean) <= 1.96 * errors
    print(
        f"{label}: mean {mean:.4f}, true spread {spread:.4f}, stated {stated:.4f} (ratio "
        f"{stated / spread:.2f}); the 95 % intervals of {inside.mean():.1%} of {inside.size} pairs of runs "
        f"hold the mean, and of {np.diag(inside).sum()} of the {n} pairs of runs with the same number"
    )


if __name__ == "__main__":
    main()
