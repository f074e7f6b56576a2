"""``precision``: what a card's float16 costs in distances between real embeddings.

Each embedding goes into an entry and comes back. The loss of a distance is how far it moves, as a share of its standard
error, which is worked out from the full embeddings: for all pairs of tasks and all distances. Beside it: how many powers
of ten an embedding's values span, which root the entry takes of them, and how large entries are.
"""

import argparse
import json
import math
import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from serving import print_machine, print_table

from t2v_hub.card import CardEntry, entry_values, read_entry
from t2v_hub.card.yamltext import entry_text
from t2v_hub.distance import DistanceName, distance, distance_standard_error, replicates
from t2v_hub.embedding import Layer, TaskEmbedding
from t2v_hub.task2vec import Task2Vec

TASKS = (
    "caltech101/birds", "caltech101/landmarks", "fruits360/citrus_a", "gtsrb/speed_limits", "omniglot/greek",
    "omniglot/tifinagh", "sign_digits/digits_0_4", "trashnet/materials",
)  # fmt: skip
PROBES = ("resnet18.pqf_in1k", "mobilenetv2_100.coral_in1k")
LARGE = ("resnet50", "convnext_base", "vit_base_patch16_224", "vit_large_patch16_224")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kit", type=Path, default=os.environ.get("T2V_KIT"), help="folder; T2V_KIT by default"
    )
    parser.add_argument("--probes", nargs="+", default=PROBES)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument(
        "--large", nargs="*", default=LARGE, help="timm networks whose entries' sizes are shown"
    )
    parser.add_argument("--cache", type=Path, default=Path("build/hub-precision"))


def main(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.probes, options.tasks, options.images, options.large = (
            ["mobilenetv2_035.tm_in1k"],
            TASKS[:2],
            40,
            [],
        )
        options.image_size = 64
    if options.kit is None:
        raise SystemExit("precision needs the kit of real weights and images: --kit FOLDER, or T2V_KIT.")
    results = {}
    for probe in options.probes:
        embeddings = measured(options, probe)
        entries = {name: back(one) for name, one in embeddings.items()}
        print_table(
            [probe, "norm", "powers of ten", "zeros", "root taken", "standard error", "entry, bytes"],
            [[name, *described(one, entries[name])] for name, one in embeddings.items()],
        )
        results[probe] = losses(embeddings, entries)
    n_pairs = len(options.tasks) * (len(options.tasks) - 1)
    print_table(
        ["distance", *(f"{probe}: worst of {n_pairs} pairs; median" for probe in results)],
        [
            [name, *(f"{max(found[name]):.2g}; {np.median(found[name]):.1g}" for found in results.values())]
            for name in get_args(DistanceName)
        ],
    )
    if options.large:
        print_table(
            ["probe (random weights)", "filters", "layers", "entry, bytes"], [sized(n) for n in options.large]
        )
    print_machine()
    worst = float(np.max([values for found in results.values() for values in found.values()]))
    print(f"\nThe worst loss is {worst:.2g} of a distance's standard error; wanted: below 0.1.")
    return {"losses": results, "failed": not worst < 0.1}


def measured(options: argparse.Namespace, probe: str) -> dict[str, TaskEmbedding]:
    """The embeddings of the tasks with one probe."""
    listed = json.loads((Path(options.kit) / "data" / "tasks.json").read_text())["tasks"]
    files = {task["task"]: Path(options.kit) / "data" / task["file"] for task in listed}
    embedder = Task2Vec(
        Path(options.kit) / "weights" / f"{probe}.safetensors",
        image_size=options.image_size,
        max_samples=options.images,
        cache=options.cache,
        progress=False,
    )
    return {name: embedder.embed(files[name], name=name) for name in options.tasks}


def back(one: TaskEmbedding) -> CardEntry:
    """What a reader makes of the embedding's entry."""
    return read_entry(json.loads(json.dumps(entry_values(one, role="finetune", publish_names=True))))


def described(one: TaskEmbedding, entry: CardEntry) -> list[str]:
    """Columns of the table of embeddings."""
    values = one.fisher[one.fisher > 0]
    span = math.log10(values.max() / values.min())
    n_bytes = len(entry_text(entry_values(one, role="finetune")).encode())
    zeros = f"{len(one.fisher) - len(values)} of {len(one.fisher):,}"
    return [
        f"{one.norm:.3g}",
        f"{span:.1f}",
        zeros,
        str(entry.half.power),
        f"{one.standard_error:.0%}",
        f"{n_bytes:,}",
    ]


def losses(embeddings: dict[str, TaskEmbedding], entries: dict[str, CardEntry]) -> dict[str, list[float]]:
    """Of each distance and pair, how far it moves as a share of its standard error.

    A divergence is infinite where a filter is zero in just one of two tasks, so it is taken over those that are not.
    """
    found: dict[str, list[float]] = {name: [] for name in get_args(DistanceName)}
    for a, b in permutations(embeddings, 2):
        pair: tuple[TaskEmbedding, ...] = (embeddings[a], embeddings[b])
        stored: tuple[TaskEmbedding, ...] = (entries[a].embedding, entries[b].embedding)
        alive = np.all([(one.fisher > 0) & (replicates(one) > 0).all(axis=0) for one in pair], axis=0)
        for name in get_args(DistanceName):
            full, half = pair, stored
            if name in ("kl", "asymmetric_kl", "jsd"):
                full, half = (tuple(restricted(one, alive) for one in each) for each in (pair, stored))
            moved = abs(distance(*half, name=name) - distance(*full, name=name))
            found[name].append(moved / distance_standard_error(*full, name=name))
    return found


def restricted(one: TaskEmbedding, kept: NDArray[np.bool_]) -> TaskEmbedding:
    """The embedding as if the probe had those filters only."""
    edges = np.cumsum([layer.n_filters for layer in one.space.layers])[:-1]
    counts = [int(part.sum()) for part in np.split(kept, edges)]
    layers = [Layer(layer.name, n) for layer, n in zip(one.space.layers, counts, strict=True) if n]
    return replace(
        one,
        fisher=one.fisher[kept],
        prior=one.prior[np.array(counts) > 0],
        space=replace(one.space, layers=tuple(layers)),
        deviations=None if one.deviations is None else one.deviations[:, kept],
    )


def sized(name: str) -> list[str]:
    """How large an entry of a network is; its values do not matter."""
    import timm

    from t2v_hub.embedding import Measurement, TaskInfo

    network = timm.create_model(name, num_classes=10)
    space = Task2Vec(network, cache=False, progress=False).space()
    rng = np.random.default_rng(0)
    one = TaskEmbedding(
        np.exp(rng.normal(-9, 2, space.n_filters)).astype(np.float32),
        np.full(len(space.layers), 1e-3, np.float32),
        space,
        TaskInfo("org/data", 1000, 10, split="train", revision="a" * 40),
        Measurement("monte_carlo", 1000, 0, standard_error=0.02, distance_standard_error=0.004),
    )
    n_bytes = len(entry_text(entry_values(one, role="finetune")).encode())
    return [name, f"{space.n_filters:,}", str(len(space.layers)), f"{n_bytes:,}"]
