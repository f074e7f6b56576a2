"""Is the Fisher right? Against autograd one image at a time, and the estimators against each other.

For each probe and one task, on few images and 4 classes:

* ``exact`` against autograd, one image and one class at a time; the largest error of a filter,
  relative to ``max(F_f, 1e-6 x mean of its layer)``. In float32 also against float32 autograd: a
  rounding error that moves an activation over a ReLU's edge changes single filters, in either.
* ``monte_carlo`` against ``exact``: share of filters beyond 3 standard errors of the drawn labels,
  and the aggregate, for 5 seeds.
* how far ``bfloat16`` (autocast) moves the vector, with drawn labels;
* bit-equal vectors for batch sizes 1, 7 and 32.

    python benchmarks/exactness.py --data ../shared/kit/data/caltech101/landmarks.parquet \
        --probes ../shared/kit/weights/resnet18.pqf_in1k.json ../shared/kit/weights/mobilenetv2_100.coral_in1k.json
"""

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from t2v_hub import data
from t2v_hub.data import DecodedSample
from t2v_hub.distance import symmetric_distance
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.estimators import directions, draw_labels, proposal
from t2v_hub.head import Head, HeadRecipe
from t2v_hub.probe import ProbeNetwork
from t2v_hub.task2vec import Task2Vec

Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probes", nargs="*", default=[])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--labels", type=int, default=10, help="drawn labels per image for monte_carlo")
    options = parser.parse_args()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = timm.create_model("vit_tiny_patch16_224", img_size=options.image_size, depth=3, num_classes=4)
    networks: list[tuple[str, object]] = [(Path(name).stem, name) for name in options.probes]
    for name, network in [*networks, ("random ViT of 3 blocks", vit)]:
        probe = ProbeNetwork.load(network, image_size=options.image_size)  # type: ignore[arg-type]
        print(f"{name}: {probe}")
        check(probe, options.data, options.images, options.labels)


def check(probe: ProbeNetwork, path: Path, images: int, labels: int) -> None:
    """Print the comparisons for one probe."""
    task = data.load(path, progress=False)
    sample = task.sample(images, seed=0).decode(probe.preprocessing.prepare, progress=False)
    results: dict[tuple[str, torch.dtype], Array] = {}
    for dtype in (torch.float64, torch.float32):
        placed = probe.placed(torch.device("cpu"), dtype)
        head, features = fitted(placed, sample)
        results["engine", dtype] = engine(placed, sample, head, features)
        results["autograd", dtype] = autograd(placed, sample, head)
    for ours, theirs in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float32, torch.float64),
    ):
        errors = relative(probe, results["engine", ours], results["autograd", theirs])
        a, b = results["engine", ours].sum(), results["autograd", theirs].sum()
        print(
            f"  exact in {str(ours)[6:]} against autograd in {str(theirs)[6:]}: largest error of a filter "
            f"{errors.max():.1e}, {np.mean(errors <= 1e-4):.2%} of filters within 1e-4, sum {abs(a / b - 1):.1e}"
        )
    monte_carlo(probe, sample, labels)
    vectors = [
        Task2Vec(probe, max_samples=images, batch_size=size, cache=False, progress=False).embed(task).fisher
        for size in (1, 7, 32)
    ]
    rounded = Task2Vec(probe, max_samples=images, dtype="bfloat16", cache=False, progress=False).embed(task)
    whole = Task2Vec(probe, max_samples=images, cache=False, progress=False).embed(task)
    moved = np.linalg.norm(rounded.fisher - whole.fisher) / whole.norm
    print(
        f"  bfloat16 moves the vector by {moved:.1%} of its norm (its standard error: "
        f"{whole.standard_error:.1%}); distance of both {symmetric_distance(rounded, whole):.5f}"
    )
    same = all(np.array_equal(vectors[0], vector) for vector in vectors)
    print(f"  batch sizes 1, 7 and 32: {'the same bits' if same else 'DIFFERENT bits'}")


def batches(probe: ProbeNetwork, sample: DecodedSample) -> list[torch.Tensor]:
    """Normalised images in eights."""
    dtype = next(probe.module.parameters()).dtype
    return [probe.preprocessing.normalise(b).to(dtype) for b in torch.from_numpy(sample.images).split(8)]


def fitted(probe: ProbeNetwork, sample: DecodedSample) -> tuple[Head, Array]:
    """The default head and the features it was fitted on."""
    with frozen(probe.module), torch.no_grad():
        features = torch.cat([probe.features(batch) for batch in batches(probe, sample)]).double().numpy()
    return HeadRecipe().fit(features, sample.labels), features


def engine(probe: ProbeNetwork, sample: DecodedSample, head: Head, features: Array) -> Array:
    """The exact Fisher by the library's engine."""
    total = 0.0
    with frozen(probe.module):
        squares = SquaredGradients(probe.module, probe.features, probe.layers)
        start = 0
        for batch in batches(probe, sample):
            squares.forward(batch)
            p = head.probabilities(features[start : start + len(batch)])
            for v, w in directions("exact", head.weight, p, sample.labels):
                rows = squares.backward(torch.from_numpy(v.copy()), keep=True).numpy()
                total = total + (w[:, None] * rows).sum(axis=0)
            start += len(batch)
    return np.asarray(total) / len(sample.labels)


def autograd(probe: ProbeNetwork, sample: DecodedSample, head: Head) -> Array:
    """The exact Fisher by autograd alone: one image, one class, one gradient at a time."""
    weights = [layer.weight for layer in probe.layers]
    total = np.zeros(sum(layer.n_filters for layer in probe.layers))
    with frozen(probe.module):
        for weight in weights:
            weight.requires_grad_(True)
        matrix = torch.from_numpy(head.weight)
        for image in torch.cat(batches(probe, sample)):
            logits = probe.features(image[None]).double() @ matrix.T + torch.from_numpy(head.bias)
            log_p = torch.log_softmax(logits, dim=1)[0]
            for code in range(len(log_p)):
                gradients = torch.autograd.grad(log_p[code], weights, retain_graph=True)
                rows = [g.double().square().flatten(1).mean(dim=1) for g in gradients]
                total += float(log_p[code].detach().exp()) * torch.cat(rows).numpy()
    return total / len(sample.labels)


def relative(probe: ProbeNetwork, ours: Array, truth: Array) -> Array:
    """Error of each filter relative to itself, or to a millionth of its layer's mean."""
    floors = []
    start = 0
    for layer in probe.filters:
        part = truth[start : start + layer.n_filters]
        floors.append(np.maximum(part, 1e-6 * part.mean()))
        start += layer.n_filters
    return np.asarray(np.abs(ours - truth) / np.concatenate(floors))


def monte_carlo(probe: ProbeNetwork, sample: DecodedSample, n_labels: int, n_seeds: int = 5) -> None:
    """Print how far drawn labels are from all labels, in standard errors that are known exactly.

    The library's squares are taken once for each image and class; drawn labels pick among them.
    """
    head, features = fitted(probe, sample)
    p = head.probabilities(features)
    blocks = []
    with frozen(probe.module):
        squares = SquaredGradients(probe.module, probe.features, probe.layers)
        start = 0
        for batch in batches(probe, sample):
            squares.forward(batch)
            terms = directions("exact", head.weight, p[start : start + len(batch)], sample.labels)
            rows = [squares.backward(torch.from_numpy(v.copy()), keep=True).numpy() for v, _ in terms]
            blocks.append(np.stack(rows, axis=1))
            start += len(batch)
    rows = np.concatenate(blocks)  # (images, classes, filters)
    by_image = np.einsum("nc,ncf->nf", p, rows)
    exact = by_image.mean(axis=0)
    drawn_from = proposal(head.weight, p)
    rows = rows * (p / drawn_from)[:, :, None]  # what a drawn label contributes
    variance = np.einsum("nc,ncf->f", drawn_from, np.square(rows - by_image[:, None]))
    variance /= len(rows) ** 2 * n_labels
    whole = rows.sum(axis=2) - by_image.sum(axis=1)[:, None]
    whole_variance = (drawn_from * np.square(whole)).sum() / len(rows) ** 2 / n_labels
    beyond, aggregate = [], []
    for seed in range(n_seeds):
        drawn = draw_labels(drawn_from, n_labels, seed=seed, multi_label=False)
        mean = np.mean([rows[np.arange(len(rows)), column].mean(axis=0) for column in drawn.T], axis=0)
        beyond.append(np.mean(np.abs(mean - exact) > 3 * np.sqrt(variance) + 1e-12 * exact))
        aggregate.append((mean.sum() - exact.sum()) / np.sqrt(whole_variance))
    print(
        f"  monte_carlo, {len(rows)} images, {n_labels} labels each, against exact, by seed: "
        f"{', '.join(f'{share:.2%}' for share in beyond)} of filters beyond 3 standard errors; the aggregate is "
        f"{', '.join(f'{gap:+.1f}' for gap in aggregate)} standard errors off"
    )


if __name__ == "__main__":
    main()
