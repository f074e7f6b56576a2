"""The paper's other claims about embeddings, measured on a folder of tasks.

    python -m benchmarks.selection.claims --data ../shared/kit/data --probe ../shared/kit/weights/mobilenetv2_035.tm_in1k.json

1. The norm grows with the task's test error, at one number of images.
2. Nearest tasks are of the same source, and of the same kind.
3. Renaming the classes changes nothing.
4. The DOMAIN embedding cannot tell tasks apart that share images; Task2Vec can.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.selection.embedding import Pairs, embedder, write
from benchmarks.selection.experts import Checkpoint
from benchmarks.selection.linear import linear_errors
from benchmarks.selection.measuring import Reader
from benchmarks.selection.tasks import Images, Labels, Task, decoded, read_tasks
from t2v_hub import TaskEmbedding, pairwise
from t2v_hub.distance import DistanceName

N = 100
DISTANCES: tuple[DistanceName, ...] = ("symmetric", "asymmetric", "relative")


def drawn(labels: Labels, n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """``n`` images, every class alike as far as they reach."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    place = np.zeros(len(labels), np.int64)
    for code in np.unique(labels):
        rows = order[labels[order] == code]
        place[rows] = np.arange(len(rows))
    result = np.zeros(len(labels), np.bool_)
    result[order[np.argsort(place[order], kind="stable")][:n]] = True
    return result


def norms(embeddings: Sequence[TaskEmbedding], errors: Sequence[float], tasks: Sequence[Task]) -> None:
    """Claim 1: over all tasks, and within each source of five or more."""
    norm = np.array([float(e.fisher.astype(np.float64).sum()) for e in embeddings])
    sources = np.array([task.source for task in tasks])
    print(
        f"\n1. L1 norm against test error, {N} images each: Spearman {spearmanr(norm, errors).statistic:.2f}"
    )
    for source in dict.fromkeys(sources):
        own = sources == source
        if own.sum() >= 5:
            value = spearmanr(norm[own], np.array(errors)[own]).statistic
            print(f"   within {source}, {own.sum()} tasks: {value:.2f}")


def taxonomy(
    embeddings: Sequence[TaskEmbedding], domain: Sequence[np.ndarray], tasks: Sequence[Task]
) -> None:
    """Claim 2: shares of tasks whose nearest other one is of their source, or kind, beside chance."""
    unit = np.stack([d / np.linalg.norm(d) for d in domain])
    found = {name: pairwise(list(embeddings), name=name) for name in DISTANCES} | {
        "DOMAIN": 1 - unit @ unit.T
    }
    print("\n2. Share of tasks whose nearest other one is alike (of those that have one alike)")
    for what in ("source", "group"):
        values = np.array([getattr(task, what) for task in tasks])
        alike = (values[:, None] == values) & ~np.eye(len(values), dtype=bool)
        kept = alike.any(axis=1)
        line = [f"chance {alike[kept].sum(1).mean() / (len(values) - 1):.2f}"]
        for name, matrix in found.items():
            away = matrix + np.where(np.eye(len(matrix), dtype=bool), np.inf, 0)
            line.append(f"{name} {alike[np.arange(len(values)), away.argmin(axis=0)][kept].mean():.2f}")
        print(f"   same {what}, {kept.sum()} tasks: {', '.join(line)}")


def permutation(probe: Checkpoint, images: Images, labels: Labels) -> None:
    """Claim 3, with the estimator that draws nothing."""
    exact = embedder(probe, "exact")
    renamed = np.random.default_rng(0).permutation(labels.max() + 1)[labels]
    one, other = (exact.embed(Pairs(images, given)).fisher.astype(np.float64) for given in (labels, renamed))
    print(f"\n3. Renamed classes: largest relative change {np.max(np.abs(one - other) / one.max()):.1e}")


def partitions(labels: Labels, seed: int) -> dict[str, Labels]:
    """Other tasks on the same images: the classes, a half against the other, twice; and random labels."""
    rng = np.random.default_rng(seed)
    k = int(labels.max()) + 1
    result = {"fine": labels}
    while len(result) < 3:
        half = np.zeros(k, np.int64)
        half[rng.permutation(k)[: k // 2]] = 1
        if not any(set(zip(half[labels], v, strict=True)) <= {(0, 0), (1, 1)} for v in result.values()):
            result[f"coarse {len(result)}"] = half[labels]
    for i in (1, 2):
        result[f"random {i}"] = rng.permutation(np.arange(len(labels)) % 2)
    return result


def shared_images(probe: Checkpoint, tasks: Sequence[tuple[Task, Images, Labels]]) -> None:
    """Claim 4: which task is it, judged by other images of the same ones?

    Each partition is embedded on two disjoint halves of the images; a half's nearest among the other half's
    should be of the same partition. By DOMAIN all partitions of a half are one point.
    """
    exact = embedder(probe, "exact")
    right: dict[str, list[float]] = {name: [] for name in DISTANCES}
    labels_right: dict[str, list[float]] = {name: [] for name in DISTANCES}
    for _, images, labels in tqdm(tasks, desc="shared images"):
        halves = [drawn(labels, len(labels) // 2, 0)]
        halves.append(~halves[0])
        cut = partitions(labels, 0)
        rows = [[exact.embed(Pairs(images[h], given[h])) for given in cut.values()] for h in halves]
        for name in DISTANCES:
            matrix = pairwise([*rows[0], *rows[1]], name=name)[: len(cut), len(cut) :]
            nearest = matrix.argmin(axis=0)
            right[name] += (nearest == np.arange(len(cut))).astype(float).tolist()
            labels_right[name] += (nearest[:3] == np.arange(3)).astype(float).tolist()
    n = len(partitions(tasks[0][2], 0))
    print(
        f"\n4. Which of {n} tasks on the same images (fine, two coarse, two of random labels); chance {1 / n:.2f}"
    )
    for name in DISTANCES:
        line = f"all {np.mean(right[name]):.2f}, fine and coarse {np.mean(labels_right[name]):.2f}"
        print(f"   {name}: {line}; DOMAIN: {1 / n:.2f} by construction")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("claims"), help="where decoded images are kept")
    parser.add_argument("--tasks", type=int, default=None)
    parser.add_argument("--shared", type=int, default=12, help="tasks whose images are labelled anew")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    probe = Checkpoint(args.probe.stem, args.probe, None, (), True)
    task2vec, reader = embedder(probe), Reader(probe)
    tasks, embeddings, errors, domain, kept = [], [], [], [], []
    for task in tqdm(read_tasks(args.data)[: args.tasks], desc="embed"):
        images, labels = decoded(task, 300, args.out)
        train = drawn(labels, N, 0)
        if np.bincount(labels[train]).min() < 2:
            print(f"{task.name} is left out: {labels.max() + 1} classes in {N} images")
            continue
        path = args.out / "embeddings" / f"{task.key}.safetensors"
        if not path.exists():
            write(task2vec.embed(Pairs(images[train], labels[train])), path)
        features = reader.read(images)["features"]
        tasks.append(task)
        embeddings.append(TaskEmbedding.load(path))
        errors.append(float(linear_errors(features, labels, [train])[0]))
        domain.append(features[train].mean(axis=0))
        kept.append((task, images, labels))
    norms(embeddings, errors, tasks)
    taxonomy(embeddings, domain, tasks)
    permutation(probe, *kept[0][1:])
    shared_images(probe, [item for item in kept if item[2].max() >= 3][: args.shared])


if __name__ == "__main__":
    main()
