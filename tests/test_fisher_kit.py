"""Real weights and real images: where sizes, scales and rounding are what users meet."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from t2v_hub import Task2Vec
from t2v_hub.fisher import SquaredGradients, frozen
from t2v_hub.fisher.estimators import directions
from t2v_hub.head import Head
from t2v_hub.probe import ProbeNetwork
from tests.networks import autograd_squares

pytestmark = pytest.mark.kit

PROBES = [("resnet18.pqf_in1k", 64, 4), ("mobilenetv2_100.coral_in1k", 64, 8)]


def load(kit: Path, name: str, side: int) -> ProbeNetwork:
    return ProbeNetwork.load(kit / "weights" / f"{name}.safetensors", image_size=side)


def birds(kit: Path, probe: ProbeNetwork, n: int) -> Tensor:
    """Normalised images of a task, spread over its classes."""
    column = pq.read_table(kit / "data" / "caltech101" / "birds.parquet", columns=["image"])["image"]
    places = np.arange(n) * len(column) // n
    pixels = [
        probe.preprocessing.prepare(Image.open(io.BytesIO(column[int(i)]["bytes"].as_py()))) for i in places
    ]
    return probe.preprocessing.normalise(torch.from_numpy(np.stack(pixels)))


def exact_fisher(probe: ProbeNetwork, inputs: Tensor, head: Head, *, batch: int) -> np.ndarray:
    """The Fisher of 4 classes by t2v_hub's engine, ``(n_filters,)``."""
    total = np.zeros(sum(layer.n_filters for layer in probe.layers))
    with frozen(probe.module):
        measured = SquaredGradients(probe.module, probe.features, probe.layers)
        for x in inputs.split(batch):
            p = head.probabilities(measured.forward(x).double().numpy())
            for direction, weight in directions("exact", head.weight, p, np.zeros((len(x), 1), np.int64)):
                rows = measured.backward(torch.from_numpy(direction), keep=True).numpy()
                total += (rows * weight[:, None]).sum(axis=0)
        assert measured.slow == ()
    return total / len(inputs)


def autograd_fisher(probe: ProbeNetwork, inputs: Tensor, head: Head) -> np.ndarray:
    """The same by autograd, image by image and class by class, from the definition."""
    with frozen(probe.module):
        total = 0.0
        for x in inputs:
            with torch.no_grad():
                p = head.probabilities(probe.features(x[None]).numpy())[0]
            scores = torch.from_numpy((np.eye(4) - p) @ head.weight)
            rows = autograd_squares(probe.features, probe.layers, x[None], scores[None])
            total = total + (rows.numpy() * p[:, None]).sum(axis=0)
    return np.asarray(total) / len(inputs)


def errors(probe: ProbeNetwork, actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Relative to the filter, or to a millionth of its layer's mean where that is larger."""
    edges = np.cumsum([0, *(layer.n_filters for layer in probe.layers)])
    means = np.concatenate(
        [np.full(b - a, expected[a:b].mean()) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    )
    return np.abs(actual - expected) / np.maximum(expected, 1e-6 * means)


@pytest.mark.parametrize(("name", "side", "n"), PROBES)
def test_exact_fisher_of_real_probes_equals_autograd(kit, name, side, n):
    """In float64 to rounding; in float32 but for units that rounding switches on or off.

    A unit whose input is 1e-7 from zero is on in one order of additions and off in another, which
    moves the few filters that hang on it by up to some percent where a layer has few positions. The
    sum over all filters and 99 of 100 filters do not notice.
    """
    single = load(kit, name, side)
    double = single.placed(torch.device("cpu"), torch.float64)
    inputs = birds(kit, single, n)
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(4, single.n_features)) / 10, np.zeros(4))

    expected = autograd_fisher(double, inputs.double(), head)
    exact = exact_fisher(double, inputs.double(), head, batch=8)
    rounded = exact_fisher(single, inputs, head, batch=8)

    assert errors(single, exact, expected).max() <= 1e-9
    assert rounded.sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert np.mean(errors(single, rounded, expected) <= 1e-4) >= 0.99


def test_the_vector_does_not_depend_on_the_batch_size(kit):
    """Bit for bit: passes have one size whatever is asked for, and sums one order."""
    probe = load(kit, "mobilenetv2_035.tm_in1k", 64)
    task = str(kit / "data" / "caltech101" / "birds.parquet")

    vectors = [
        Task2Vec(probe, filters=0.2, batch_size=size, max_samples=20, cache=False, progress=False).embed(task)
        for size in (1, 7, 32)
    ]

    for other in vectors[1:]:
        np.testing.assert_array_equal(other.fisher, vectors[0].fisher)
        np.testing.assert_array_equal(other.deviations, vectors[0].deviations)
