"""What is measured of a checkpoint on a task: features once, then test errors and scores per split."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.selection.experts import Checkpoint
from benchmarks.selection.linear import linear_errors
from benchmarks.selection.tasks import SIDE, SIZES, Images, Labels, Task, save, splits
from t2v_hub.probe import ProbeNetwork
from t2v_hub.probe.network import OUTPUT
from t2v_hub.scores import BUILT_IN_SCORES, ridge_outcomes, score

BATCH = 50


class Reader:
    """Makes features of images with one checkpoint, which is loaded when it is first needed."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._probe: ProbeNetwork | None = None

    def read(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Pooled features ``(n, d)``, probabilities over its own classes where it has a head, and seconds."""
        start = time.perf_counter()
        if self._probe is None:
            self._probe = ProbeNetwork.load(self.checkpoint.path, image_size=SIDE)
        probe = self._probe
        network = probe.module.eval().to(memory_format=torch.channels_last)
        head = None if probe.head == OUTPUT else network.get_submodule(probe.head)
        caught: list[torch.Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, args: caught.append(args[0])) if head else None
        outputs = []
        with torch.inference_mode():
            for batch in torch.from_numpy(images).split(BATCH):
                inputs = probe.preprocessing.normalise(batch).contiguous(memory_format=torch.channels_last)
                outputs.append(network(inputs))
        if hook is None:
            result = {"features": torch.cat(outputs).flatten(1).numpy()}
        else:
            hook.remove()
            result = {"features": torch.cat(caught).flatten(1).numpy()}
            result["predictions"] = torch.cat(outputs).softmax(dim=1).numpy()
        return result | {"seconds": np.float32(time.perf_counter() - start)}


def _is_complete(path: Path) -> bool:
    """Whether a file has every score; one from before a score was added has not."""
    with np.load(path) as file:
        sizes = [size for size in SIZES if f"{size}/error" in file.files]
        return all(f"{size}/{name}" in file.files for size in sizes for name in BUILT_IN_SCORES)


def measure(reader: Reader, task: Task, images: Images, labels: Labels, folder: Path) -> None:
    """Errors, scores and leave-one-out outcomes of a checkpoint on every split of a task, as one file.

    Scores see the training images of their split and nothing else.
    """
    path = folder / task.key / f"{reader.checkpoint.name}.npz"
    if path.exists() and _is_complete(path):
        return
    made = reader.read(images)
    found: dict[str, NDArray[np.generic]] = {"read_seconds": np.asarray(made["seconds"])}
    for size in SIZES:
        trains = splits(labels, size)
        if not trains:
            continue
        found[f"{size}/n_test"] = np.asarray(np.mean([(~train).sum() for train in trains]))
        found[f"{size}/error"] = linear_errors(made["features"], labels, trains)
        start = time.perf_counter()
        outcomes = np.stack([ridge_outcomes(made["features"][train], labels[train]) for train in trains])
        found[f"{size}/outcomes"] = outcomes.astype(np.float16)
        found[f"{size}/ridge_accuracy"] = outcomes.mean(axis=1)
        found[f"{size}/ridge_accuracy/seconds"] = np.asarray((time.perf_counter() - start) / len(trains))
        for name in BUILT_IN_SCORES.keys() - {"ridge_accuracy"}:
            start = time.perf_counter()
            values = [
                score(
                    name,
                    labels[train],
                    features=made["features"][train],
                    predictions=made["predictions"][train] if "predictions" in made else None,
                )
                for train in trains
            ]
            found[f"{size}/{name}"] = np.array([np.nan if v is None else v for v in values])
            found[f"{size}/{name}/seconds"] = np.asarray((time.perf_counter() - start) / len(trains))
    save(path, **found)
