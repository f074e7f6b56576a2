"""How much of a distance is noise?

* Label permutation: the same task with its classes in another order, ``exact`` and ``monte_carlo``.
* Repeat noise: distances between runs of one task with other seeds, against the distance from each
  task to its nearest neighbour among the tasks given.

    python benchmarks/stability.py --data ../shared/kit/data --probe ../shared/kit/weights/resnet18.pqf_in1k.json
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from t2v_hub import data
from t2v_hub.distance import pairwise, symmetric_distance
from t2v_hub.task2vec import Task2Vec

TASKS = [
    "caltech101/birds",
    "caltech101/plants",
    "fruits360/citrus_a",
    "fruits360/stone_fruit",
    "omniglot/greek",
    "omniglot/latin",
    "sign_digits/digits_0_4",
    "sign_digits/digits_5_9",
    "trashnet/materials",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("build/stability"))
    options = parser.parse_args()

    files = {
        t["task"]: options.data / t["file"]
        for t in json.loads((options.data / "tasks.json").read_text())["tasks"]
    }
    common = {"image_size": options.image_size, "cache": options.cache, "progress": False}
    for name in options.tasks[:2]:
        permutation(name, files[name], options.probe, common)
    embedders = [
        Task2Vec(options.probe, seed=seed, max_samples=options.images, **common)
        for seed in range(options.seeds)
    ]
    runs = {
        name: [embedder.embed(files[name], name=name) for embedder in embedders]
        for name in tqdm(options.tasks, desc="tasks")
    }
    noise, nearest = [], []
    for name, own in runs.items():
        repeats = pairwise(own)[np.triu_indices(len(own), 1)]
        others = [other[0] for key, other in runs.items() if key != name]
        neighbour = min(symmetric_distance(other, own[0]) for other in others)
        noise.append(repeats.mean())
        nearest.append(neighbour)
        print(
            f"{name:28s} between {len(own)} seeds {repeats.mean():.4f}, to the nearest other task "
            f"{neighbour:.4f} (ratio {repeats.mean() / neighbour:.2f}); standard error of the embedding "
            f"{own[0].standard_error:.2f}"
        )
    print(f"mean {np.mean(noise):.4f} against {np.mean(nearest):.4f}")


def permutation(name: str, path: Path, probe: str, common: dict[str, object]) -> None:
    """Print what another order of the classes changes."""
    import datasets

    table = datasets.load_dataset("parquet", data_files=str(path), split="train")
    feature = table.features["label"]
    order = np.random.default_rng(0).permutation(feature.num_classes)
    names = [feature.names[code] for code in np.argsort(order)]
    moved = table.map(lambda row: {"label": int(order[row["label"]])})
    moved = moved.cast_column("label", datasets.ClassLabel(names=names))
    for estimator in ("exact", "monte_carlo"):
        embedder = Task2Vec(probe, estimator=estimator, max_samples=10**6, **common)  # type: ignore[arg-type]
        small = [
            data.load(t.select(range(0, len(t), max(1, len(t) // 60))), small_classes="keep")
            for t in (table, moved)
        ]
        a, b = (embedder.embed(task) for task in small)
        gap = np.sqrt(np.square(a.fisher - b.fisher).sum() / np.square(a.fisher).sum())
        print(
            f"{name}, classes in another order, {estimator}: relative change {gap:.1e} (standard error "
            f"{a.standard_error:.2f}), distance {symmetric_distance(a, b):.1e}"
        )


if __name__ == "__main__":
    main()
