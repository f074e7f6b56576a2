"""Which head recipe and which distance make embeddings that know their neighbours?

For each task of a folder laid out like the development kit's ``data/`` (``tasks.json`` beside
parquet files): the embedding under each recipe, from one forward pass per image. Then, per recipe
and distance, the share of tasks whose nearest neighbour comes from the same source, and the mean
average precision of "same source", beside the DOMAIN embedding (mean feature) and chance.

    python benchmarks/heads.py --data ../shared/kit/data --probe ../shared/kit/weights/resnet18.pqf_in1k.json

Resumable: one file per task in ``--out``. Tables go to standard output, and as JSON into ``--out``.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from t2v_hub import data
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.estimators import directions, draw_labels
from t2v_hub.head import HeadRecipe
from t2v_hub.probe import ProbeNetwork

RECIPES = {
    "cv, each": HeadRecipe(kind="cv", scaling="each"),
    "adam 2x10k, each": HeadRecipe(kind="adam", scaling="each"),
    "l2 1, each": HeadRecipe(strength=1.0, scaling="each"),
    "l2 10, each": HeadRecipe(strength=10.0, scaling="each"),
    "l2 100, each": HeadRecipe(strength=100.0, scaling="each"),
    "entropy .9, each": HeadRecipe(kind="entropy", strength=10.0, entropy=0.9, scaling="each"),
    "l2 0.1": HeadRecipe(strength=0.1),
    "l2 1": HeadRecipe(strength=1.0),
    "l2 10": HeadRecipe(strength=10.0),
    "l2 100": HeadRecipe(strength=100.0),
    "entropy .9": HeadRecipe(kind="entropy", strength=10.0, entropy=0.9),
}
Array = NDArray[np.float64]


def measure(probe: ProbeNetwork, path: Path, images: int, seed: int) -> dict[str, Array]:
    """Embeddings of one task under every recipe, and its mean feature."""
    task = data.load(path, progress=False)
    sample = task.sample(images, seed=seed).decode(probe.preprocessing.prepare, progress=False)
    with frozen(probe.module):
        squares = SquaredGradients(probe.module, probe.features, probe.layers)
        batches = torch.from_numpy(sample.images).split(8)
        features = torch.cat([squares.forward(probe.preprocessing.normalise(b)) for b in batches]).numpy()
        heads = {name: recipe.fit(features, sample.labels) for name, recipe in RECIPES.items()}
        result: dict[str, Array] = {name: np.zeros(sum(f.n_filters for f in probe.filters)) for name in heads}
        for start, batch in zip(range(0, len(features), 8), batches, strict=True):
            part = slice(start, start + 8)
            squares.forward(probe.preprocessing.normalise(batch))
            for place, (name, head) in enumerate(heads.items()):
                p = head.probabilities(features)
                drawn = draw_labels(p, 1, seed=seed, multi_label=False)[part]
                ((v, w),) = directions("monte_carlo", head.weight, p[part], drawn)
                rows = squares.backward(torch.from_numpy(v).float(), keep=place + 1 < len(heads))
                result[name] += (rows * torch.from_numpy(w)[:, None]).sum(0).numpy() / len(features)
    for name, head in heads.items():
        result[f"confidence {name}"] = np.array(head.probabilities(features).max(axis=1).mean())
    result["DOMAIN"] = features.mean(axis=0).astype(np.float64)
    return result


def symmetric(rows: Array) -> Array:
    """Symmetric distance of all pairs."""
    result = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        u, v = rows / (rows + row), row / (rows + row)
        result[:, i] = 1 - (u * v).sum(1) / np.sqrt((u * u).sum(1) * (v * v).sum(1))
    return result


def cosine(rows: Array) -> Array:
    """Cosine distance of all pairs."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def scores(distance: Array, sources: list[str]) -> tuple[float, float]:
    """Share of right nearest neighbours, and mean average precision, of tasks with a companion."""
    first, precision = [], []
    for i, source in enumerate(sources):
        others = [j for j in range(len(sources)) if j != i]
        order = sorted(others, key=lambda j: distance[j, i])
        right = np.array([sources[j] == source for j in order])
        if right.any():
            first.append(bool(right[0]))
            hits = np.flatnonzero(right)
            precision.append(float(np.mean([(k + 1) / (place + 1) for k, place in enumerate(hits)])))
    return float(np.mean(first)), float(np.mean(precision))


def distances(prior: Array) -> dict[str, Callable[[Array], Array]]:
    """The distances to compare, each a function of all Fisher vectors."""

    def robust(beta: float, alpha: float) -> Callable[[Array], Array]:
        def function(rows: Array) -> Array:
            rows = rows / (2 * beta) + prior
            trivial = symmetric(np.vstack([rows, prior]))[:-1, -1]
            return symmetric(rows) - alpha * trivial[:, None]

        return function

    table: dict[str, Callable[[Array], Array]] = {
        "symmetric": symmetric,
        "symmetric, mean 1": lambda rows: symmetric(rows / rows.mean(axis=1, keepdims=True)),
        "log cosine": lambda rows: cosine(np.log(rows) - np.log(rows).mean(axis=1, keepdims=True)),
        "raw cosine": cosine,
    }
    for exponent in (-7, -8, -9, -10, -11, -12):
        table[f"asymmetric, beta 1e{exponent}"] = robust(10.0**exponent, 0.15)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--image-size", type=int, default=None, help="the probe's own where absent")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--per-source", type=int, default=None, help="take so many tasks of a source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/heads"))
    options = parser.parse_args()

    probe = ProbeNetwork.load(options.probe, image_size=options.image_size)
    tasks = json.loads((options.data / "tasks.json").read_text())["tasks"]
    if options.per_source:
        seen: Counter[str] = Counter()
        tasks = [
            task
            for task in tasks
            if seen.update([task["source"]]) or seen[task["source"]] <= options.per_source
        ]
    key = [probe.digest, probe.preprocessing.to_dict(), options.images, options.seed]
    recipes = {name: recipe.to_dict() for name, recipe in RECIPES.items()}
    folder = options.out / hashlib.sha256(json.dumps([key, recipes]).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    vectors = []
    for task in tqdm(tasks, desc="tasks"):
        file = folder / (task["task"].replace("/", "__") + ".npz")
        if not file.exists():
            result = measure(probe, options.data / task["file"], options.images, options.seed)
            with file.with_suffix(".tmp").open("wb") as handle:
                np.savez(handle, **result)  # type: ignore[arg-type]
            file.with_suffix(".tmp").replace(file)
        with np.load(file) as stored:
            vectors.append({name: stored[name] for name in stored})
    report(probe, vectors, [task["source"] for task in tasks], folder)


def report(probe: ProbeNetwork, vectors: list[dict[str, Array]], sources: list[str], folder: Path) -> None:
    """Print the table and keep it as JSON."""
    counts = [layer.n_filters for layer in probe.filters]
    prior = np.repeat(1 / probe.prior.numpy(), counts)
    companions = [sources.count(source) - 1 for source in sources]
    chance = np.mean([c / (len(sources) - 1) for c in companions if c])
    domain = scores(cosine(np.stack([v["DOMAIN"] for v in vectors])), sources)
    rows = [
        {
            "head": "DOMAIN (cosine)",
            "confidence": None,
            "distance": "",
            "nearest": domain[0],
            "map": domain[1],
        }
    ]
    rows += list(_rows(vectors, sources, prior))
    print(f"{probe.name}, {len(vectors)} tasks, nearest from the same source by chance {chance:.2f}")
    for row in rows:
        sure = "" if row["confidence"] is None else f"{row['confidence']:.2f}"
        print(f"{row['head']:22s} {sure:5s} {row['distance']:24s} {row['nearest']:.2f} / {row['map']:.2f}")
    (folder / "table.json").write_text(json.dumps({"chance": chance, "rows": rows}, indent=1))


def _rows(vectors: list[dict[str, Array]], sources: list[str], prior: Array) -> Iterator[dict[str, object]]:
    for name in RECIPES:
        fisher = np.maximum(np.stack([vector[name] for vector in vectors]), 1e-30)
        confidence = float(np.mean([vector[f"confidence {name}"] for vector in vectors]))
        for label, function in distances(prior).items():
            nearest, precision = scores(function(fisher), sources)
            yield {
                "head": name,
                "confidence": confidence,
                "distance": label,
                "nearest": nearest,
                "map": precision,
            }


if __name__ == "__main__":
    main()
