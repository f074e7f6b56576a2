"""How long does it take to know an embedding to 5 %, and how long did it take before?

The truth is ``exact`` on all images of a task under one head. Two estimators are timed on their way to
it, interleaved, in one process:

* ours: one label per image, drawn for what it contributes, every gradient squared before it is averaged;
* the reference's estimator, restated: the gradient of a batch's mean, squared, times the batch size, with
  drawn labels, in batches of 64; in evaluation mode, which the reference did not use.

Images are drawn anew for every pass over the data, and labels for every image. The error is
``|F - truth| / |truth|``; both fall with the square root of the work, so the time to 5 % is
``time * (error / 0.05)²``, taken at the end of equal times, and averaged (in squares) over seeds.

    python benchmarks/precision.py --data ../shared/kit/data --probe ../shared/kit/weights/resnet18.pqf_in1k.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from t2v_hub import data
from t2v_hub.data import DecodedSample
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.estimators import directions, draw_labels, proposal
from t2v_hub.head import Head, HeadRecipe
from t2v_hub.probe import ProbeNetwork

TASKS = ["caltech101/landmarks", "fruits360/citrus_a", "sign_digits/digits_0_4"]
Array = NDArray[np.float64]
Step = Callable[[NDArray[np.int64]], Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--max-images", type=int, default=300, help="of a task; all of them make the truth")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each estimator and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.05)
    options = parser.parse_args()
    files = {t["task"]: t["file"] for t in json.loads((options.data / "tasks.json").read_text())["tasks"]}
    probe = ProbeNetwork.load(options.probe, image_size=options.image_size)
    for name in options.tasks:
        task = data.load(options.data / files[name], progress=False)
        sample = task.sample(options.max_images, seed=0).decode(probe.preprocessing.prepare, progress=False)
        with frozen(probe.module):
            compare(name, Estimators(probe, sample), options.seconds, options.seeds, options.goal)


class Estimators:
    """Both estimators of one task under one head, and the truth."""

    def __init__(self, probe: ProbeNetwork, sample: DecodedSample) -> None:
        self.probe = probe
        self.images = torch.from_numpy(sample.images)
        self.squares = SquaredGradients(probe.module, probe.features, probe.layers)
        places = np.arange(len(self.images))
        with torch.no_grad():
            parts = [probe.features(self.inputs(part)) for part in np.split(places, places[8::8])]
        self.features = torch.cat(parts).double().numpy()
        self.head: Head = HeadRecipe().fit(self.features, sample.labels)
        self.p = self.head.probabilities(self.features)
        self.proposal = proposal(self.head.weight, self.p)
        self.truth = np.zeros(sum(layer.n_filters for layer in probe.layers))
        for part in np.split(places, places[8::8]):
            self.squares.forward(self.inputs(part))
            for along, weight in directions("exact", self.head.weight, self.p[part], sample.labels):
                rows = self.squares.backward(torch.from_numpy(along.copy()), keep=True).numpy()
                self.truth += (weight[:, None] * rows).sum(axis=0) / len(places)

    def inputs(self, part: NDArray[np.int64]) -> torch.Tensor:
        return self.probe.preprocessing.normalise(self.images[part])

    def drawn(
        self, part: NDArray[np.int64], generator: np.random.Generator, drawn_from: Array
    ) -> tuple[torch.Tensor, Array]:
        """The drawn labels' directions in feature space, and their weights."""
        labels = draw_labels(drawn_from[part], 1, seed=int(generator.integers(1 << 62)), multi_label=False)
        along, weight = next(
            directions("monte_carlo", self.head.weight, self.p[part], labels, drawn_from=drawn_from[part])
        )
        return torch.from_numpy(along).float(), weight

    def ours(self, part: NDArray[np.int64], generator: np.random.Generator) -> Array:
        """Mean over a pass of 8 images."""
        self.squares.forward(self.inputs(part))
        along, weight = self.drawn(part, generator, self.proposal)
        rows: Array = self.squares.backward(along).numpy()
        return (weight[:, None] * rows).mean(axis=0)

    def reference(self, part: NDArray[np.int64], generator: np.random.Generator) -> Array:
        """The squared mean gradient of a batch, times its size."""
        weights = [layer.weight for layer in self.probe.layers]
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            features = self.probe.features(self.inputs(part))
        along, _ = self.drawn(part, generator, self.p)
        gradients = torch.autograd.grad(features, weights, along / len(part))
        for weight in weights:
            weight.requires_grad_(False)
        squares = [g.double().square().flatten(1).mean(dim=1) for g in gradients]
        return torch.cat(squares).numpy() * len(part)


def compare(name: str, task: Estimators, seconds: float, seeds: int, goal: float) -> None:
    """Print the time to the goal of both."""
    needed: dict[str, list[float]] = {"ours": [], "reference": []}
    images: dict[str, list[float]] = {"ours": [], "reference": []}
    for seed in range(seeds):
        for label, size in (("ours", 8), ("reference", 64)):
            spent, n, error = run(task, label, size, seconds, seed)
            needed[label].append(spent * (error / goal) ** 2)
            images[label].append(n * (error / goal) ** 2)
    ours, reference = (np.mean(needed[label]) for label in ("ours", "reference"))
    print(
        f"{name}: to {goal:.0%}, ours {ours:.1f} s ({np.mean(images['ours']):.0f} images), reference "
        f"{reference:.1f} s ({np.mean(images['reference']):.0f} images); {reference / ours:.1f} times as long "
        f"(by seed {', '.join(f'{b / a:.1f}' for a, b in zip(*needed.values(), strict=True))})",
        flush=True,
    )


def run(task: Estimators, label: str, size: int, seconds: float, seed: int) -> tuple[float, int, float]:
    """Seconds spent, images used and the error reached."""
    generator = np.random.default_rng([seed, size])
    step = task.ours if label == "ours" else task.reference
    total, n, spent = np.zeros_like(task.truth), 0, 0.0
    order = np.zeros(0, np.int64)
    while spent < seconds:
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(len(task.images))])
        part, order = order[:size], order[size:]
        start = time.perf_counter()
        total += step(part, generator) * size
        spent += time.perf_counter() - start
        n += size
    return spent, n, float(np.linalg.norm(total / n - task.truth) / np.linalg.norm(task.truth))


if __name__ == "__main__":
    main()
