"""`check_probe`: what a network that a plug-in loads must do."""

import numpy as np
import torch

from t2v_hub.fisher import frozen
from t2v_hub.probe import ProbeNetwork
from t2v_hub.probe.loading import check_finite
from t2v_hub.probe.plugged import Loader, PluggedNetwork
from t2v_hub.task2vec import Task2Vec
from t2v_hub.testing.contracts import no_error, randomness_kept, require
from t2v_hub.testing.tiny import tiny_task

_ROWS = 1e-3  # of the largest feature: what other images in a batch may change, in float32
_ROUNDING = 1e-6


def check_probe(load: Loader, location: str) -> None:
    """Return when what a plug-in loads can be measured with, and is the same each time.

    Its weights are finite, and equal when it is loaded again. Its features are one finite vector per image,
    the same each time, other ones for other images, whatever else is in the batch. Embedding twice gives the
    same bits. Loading leaves torch's default type, whether gradients are on, and the state of random numbers
    as they were.

    Args:
        load: The entry point's function.
        location: One at which there is a network, the smaller the better.

    Raises:
        AssertionError: It cannot; the message says what was wanted and what came.
    """
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    with randomness_kept(f"Loading {location!r}"):
        first, second = (_loaded(load, location) for _ in range(2))
    after = torch.get_default_dtype(), torch.is_grad_enabled()
    require(
        after == before,
        f"Loading {location!r} changed torch's default type and whether gradients are on from {before} to "
        f"{after}. They are the user's: put them back.",
    )
    require(
        first.digest == second.digest,
        f"{location!r} gave other weights when it was loaded again. Nothing measured with the one can be "
        f"compared with the other: load stored weights, all of them.",
    )
    facts = [(one.preprocessing, one.filters, one.head) for one in (first, second)]
    require(
        facts[0] == facts[1],
        f"{location!r} gave another preprocessing, head or other filters when it was loaded again: {facts}.",
    )
    _check_features(first, location)
    data = tiny_task(4)
    vectors = []
    for probe in (first, second):
        with no_error(f"Nothing can be measured with {location!r}"):
            task2vec = Task2Vec(
                probe, max_samples=12, standard_error=False, device="cpu", cache=False, progress=False
            )
            vectors.append(task2vec.embed(data).fisher)
    require(
        vectors[0].tobytes() == vectors[1].tobytes(),
        f"Embedding one data set twice with {location!r} gave different vectors, apart by up to "
        f"{np.abs(vectors[0] - vectors[1]).max():.3g}. Something in it is random, or keeps a state.",
    )
    require(
        bool(vectors[0].any()),
        f"All filters of {location!r} have Fisher information 0: its features do not hang on its weights. "
        f"Let gradients pass through the whole network.",
    )


def _loaded(load: Loader, location: str) -> ProbeNetwork:
    with no_error(f"{location!r} gives no probe"):
        probe = ProbeNetwork.load(PluggedNetwork(location, location, load).network())
        check_finite(probe.module, location)
    return probe


def _check_features(probe: ProbeNetwork, location: str) -> None:
    probe = probe.placed(torch.device("cpu"), torch.float32)
    shape = (4, probe.preprocessing.n_channels, *probe.preprocessing.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with (
        no_error(f"{location!r} gives no features"),
        frozen(probe.module),
        torch.no_grad(),
    ):
        features, again = probe.features(images), probe.features(images)
        alone = torch.cat([probe.features(image[None]) for image in images])
    require(bool(features.isfinite().all()), f"Features of {location!r} are not finite.")
    require(
        torch.equal(features, again),
        f"{location!r} gave other features for the same images. Something in it is random also in evaluation "
        f"mode (self.training is False), or keeps a state.",
    )
    largest = float(features.abs().max())
    apart = float((features - alone).abs().max())
    require(
        apart <= _ROWS * largest,
        f"Features of {location!r} hang on the other images in the batch: they are apart by {apart:.3g}, of "
        f"at most {largest:.3g}. Use stored statistics; Fisher information is of single images.",
    )
    spread = float((features - features[:1]).abs().max())
    require(
        spread > _ROUNDING * largest,
        f"Features of {location!r} are the same for different images. Check its head and preprocessing.",
    )
