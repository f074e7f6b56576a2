"""A laboratory's own score, probes and catalogs for t2v_hub: copy this folder and change what it does.

pip install ./examples/plugin
t2v rank ./photos --catalog lab:checkpoints.csv --refine 3 --score centroid_accuracy
t2v embed ./photos --probe lab:weights.safetensors
"""

import csv
from pathlib import Path

import numpy as np

from t2v_hub import Candidate, Catalog, TaskEmbedding
from t2v_hub.scores import Score


def centroid_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that are nearer to the mean of their class's others than to that of another class."""
    x = features / (np.abs(features).max() or 1)  # no square overflows
    one_hot = np.eye(labels.max() + 1)[labels]  # (n, n_classes)
    n_of = one_hot.sum(axis=0)
    means = one_hot.T @ x / n_of[:, None]
    distances = np.square(x[:, None] - means).sum(axis=2)
    rows, n_own = np.arange(len(x)), n_of[labels]
    without = np.divide(n_own, n_own - 1, out=np.full(len(x), np.inf), where=n_own > 1) ** 2
    own = np.where(n_own > 1, distances[rows, labels] * np.where(n_own > 1, without, 1), np.inf)
    distances[rows, labels] = np.inf
    return float(np.mean(own < distances.min(axis=1) - 1e-12))


CENTROID_ACCURACY = Score(
    "centroid_accuracy", centroid_accuracy, "features", "linear", "Snell et al., NeurIPS 2017"
)


def load_probe(location: str):
    """The laboratory's network, its weights in a safetensors file."""
    from safetensors.torch import load_file  # here: nobody who ranks by distance waits for torch
    from torch import nn

    from t2v_hub import Preprocessing, ProbeNetwork

    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    network.load_state_dict(load_file(Path(location).expanduser()))
    return ProbeNetwork.load(network, preprocessing=Preprocessing(size=(32, 32), resize=32))


def open_catalog(location: str) -> Catalog:
    """The laboratory's list: a CSV of checkpoints (id), their parameters, and embedding files beside it."""
    table = Path(location).expanduser()
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = {row["id"]: table.parent / row["embedding"] for row in rows if row["embedding"]}
    catalog = Catalog(table.with_suffix(".catalog"))
    wanted = [
        Candidate(
            row["id"],
            parameters=int(row["parameters"]),
            embeddings=[TaskEmbedding.load(files[row["id"]])] if row["id"] in files else (),
        )
        for row in rows
    ]
    if list(catalog) != sorted(wanted, key=lambda candidate: candidate.id):  # else there is nothing to write
        for known in list(catalog):
            if known not in wanted:
                catalog.remove(known.id)
        catalog.extend(wanted)
    return catalog
