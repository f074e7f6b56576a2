"""What do many tiny tasks cost in one call, beside embedding them one by one?

Draws few-shot episodes from the alphabets of Omniglot in a folder laid out as ``tasks.json`` says: each of
some classes of one alphabet, with some images of each. Embeds them all in one call, and the first of
them one by one; prints seconds for each and how far the vectors differ.

    python benchmarks/episodes.py --data ../shared/kit/data --probe ../shared/kit/weights/resnet18.pqf_in1k.json
    python benchmarks/episodes.py ... --alphabets 1      # all from one small pool: images come again
"""

import argparse
import json
import time
from pathlib import Path

import datasets
import numpy as np

from t2v_hub.task2vec import Task2Vec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--alphabets", type=int, default=None, help="None for all")
    parser.add_argument("--one-by-one", type=int, default=20, help="how many to embed one by one, too")
    parser.add_argument("--standard-error", action="store_true")
    options = parser.parse_args()
    tasks = episodes(options)
    n_images = sum(map(len, tasks.values()))
    embedder = Task2Vec(
        options.probe,
        image_size=options.image_size,
        standard_error=options.standard_error,
        cache=False,
        progress=False,
    )
    one_shot = {"small_classes": "keep"} if options.shots == 1 else {}  # else it asks what to do with them
    first = dict(list(tasks.items())[: options.one_by_one])
    embedder.embed(next(iter(first.values())), **one_shot)  # imports, and the kernels compared with autograd

    start = time.perf_counter()
    alone = {name: embedder.embed(task, name=name, **one_shot) for name, task in first.items()}
    each = (time.perf_counter() - start) / len(first)
    start = time.perf_counter()
    together = embedder.embed_many(tasks, **one_shot)
    total = time.perf_counter() - start

    assert len(together.embeddings) == len(tasks), together.failures
    apart = max(
        float(np.linalg.norm(together.embeddings[name].fisher - one.fisher)) / one.norm
        for name, one in alone.items()
    )
    share = total / len(tasks)
    print(
        f"{len(tasks)} episodes of {options.ways} ways and {options.shots} shots, {n_images} images: {total:.1f} s "
        f"in one call, {share:.3f} s each; one by one {each:.3f} s each, {each / share:.2f} times as long; "
        f"vectors differ by {apart:.1e} of their norm at most"
    )


def episodes(options: argparse.Namespace) -> dict[str, datasets.Dataset]:
    """Data sets by name, each of one alphabet."""
    listed = json.loads((options.data / "tasks.json").read_text())["tasks"]
    files = [options.data / task["file"] for task in listed if task["task"].startswith("omniglot/")]
    pools = [datasets.load_dataset("parquet", data_files=str(f))["train"] for f in files[: options.alphabets]]
    generator = np.random.default_rng(0)
    result = {}
    for number in range(options.episodes):
        pool = pools[generator.integers(len(pools))]
        labels = np.array(pool["label"])
        ways = generator.choice(np.unique(labels), options.ways, replace=False)
        chosen = [
            generator.choice(np.flatnonzero(labels == way), options.shots, replace=False) for way in ways
        ]
        result[f"episode {number}"] = pool.select(np.concatenate(chosen))
    return result


if __name__ == "__main__":
    main()
