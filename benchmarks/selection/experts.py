"""Checkpoints to choose from: the pretrained ones of a folder, and experts fine-tuned from them here."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.selection.tasks import Images, Labels, Task, decoded

LARGE = ("mobilenetv2_100.coral_in1k", "mobilenetv1_100.coral_in1k")
SMALL = "mobilenetv2_035.tm_in1k"
EPOCHS, BATCH, RATE, HEAD_RATE = 8, 32, 5e-4, 5e-3
IMAGES, PER_TASK = 1200, 600


@dataclass(frozen=True)
class Checkpoint:
    """A candidate of the benchmark.

    Attributes:
        name: Its file's.
        path: Its JSON, with the weights beside it.
        base: What it was fine-tuned from; None for pretrained ones.
        tasks: Names of the tasks that it was fine-tuned on.
        free: Whether tables that are derived from it may be passed on.
    """

    name: str
    path: Path
    base: str | None
    tasks: tuple[str, ...]
    free: bool

    @property
    def origin(self) -> str | None:
        """Its training set's name: that of the expert without the base."""
        return None if self.base is None else self.name.split("--")[0]


def pretrained(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a folder laid out like the development kit's ``weights/``."""
    found = []
    for path in sorted(folder.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        licence = json.dumps([about.get("source", {}).get("licence"), about["pretrained_cfg"].get("license")])
        free = "non-commercial" not in licence.lower()
        found.append(Checkpoint(path.stem, path, None, (), free))
    return found


def planned(tasks: Sequence[Task], folder: Path, bases: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Two experts for each training set: one from a large network, by turns, and one from a small one.

    The tasks of a source make at most three training sets, so a target has experts of its own source that
    never saw it.
    """
    by_source: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.name):
        by_source.setdefault(task.source, []).append(task)
    names = {base.name: base for base in bases}
    large = [names[name] for name in LARGE if name in names] or [bases[0]]
    small = names.get(SMALL, bases[-1])
    result = []
    for source, members in sorted(by_source.items()):
        for part in range(min(3, len(members))):
            union = members[part::3] if len(members) >= 3 else members[part : part + 1]
            for base in dict.fromkeys((large[len(result) // 2 % len(large)], small)):
                name = f"{source}-{part + 1}--{base.name.split('.')[0]}"
                free = base.free and all(task.free for task in union)
                path = folder / f"{name}.json"
                result.append(Checkpoint(name, path, base.name, tuple(task.name for task in union), free))
    return result


def union_of(tasks: Sequence[Task], images_folder: Path) -> tuple[Images, Labels]:
    """The images of several tasks as one, with every class a class of its own."""
    parts, offset = [], 0
    for task in tasks:
        images, labels = decoded(task, min(PER_TASK, max(1, IMAGES // len(tasks))), images_folder)
        parts.append((images, labels + offset))
        offset += int(labels.max()) + 1
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def fine_tune(expert: Checkpoint, base: Checkpoint, images: Images, labels: Labels) -> None:
    """Train an expert, all of its weights, and write it as the pretrained ones are written."""
    n_classes = int(labels.max()) + 1
    seed = zlib.crc32(expert.name.encode())
    network, head, about = with_new_head(base, n_classes, seed)
    fit(network, head, images, labels, about["pretrained_cfg"], seed=seed)
    expert.path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, expert.path.with_suffix(".part"))
    expert.path.with_suffix(".part").replace(expert.path.with_suffix(".safetensors"))
    about |= {
        "num_classes": n_classes,
        "label_names": None,
        "source": {"licence": "derived"},
        "tasks": expert.tasks,
    }
    about["pretrained_cfg"] |= {"num_classes": n_classes}
    expert.path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}), encoding="utf-8")


def with_new_head(base: Checkpoint, n_classes: int, seed: int) -> tuple[torch.nn.Module, str, dict[str, Any]]:
    """A checkpoint's network with a head for other classes, the head's name, and what its JSON says."""
    about = json.loads(base.path.read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    network = timm.create_model(about["architecture"], num_classes=n_classes, **about["model_args"])
    head = about["pretrained_cfg"].get("classifier", "classifier")
    weights = load_file(base.path.with_suffix(".safetensors"))
    kept = {
        k: v.float() if v.is_floating_point() else v
        for k, v in weights.items()
        if not k.startswith(f"{head}.")
    }
    missing, unexpected = network.load_state_dict(kept, strict=False)
    if unexpected or not all(name.startswith(f"{head}.") for name in missing):
        raise ValueError(f"{base.path} does not fit: missing {missing}, unexpected {unexpected}")
    return network, head, about


def fine_tuned_error(
    one: Checkpoint, images: Images, labels: Labels, train: NDArray[np.bool_], *, seed: int, epochs: int
) -> float:
    """Test error after all weights were fine-tuned on the training images."""
    network, head, about = with_new_head(one, int(labels.max()) + 1, seed)
    config = about["pretrained_cfg"]
    fit(network, head, images[train], labels[train], config, seed=seed, epochs=epochs)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        parts = torch.from_numpy(images[~train]).split(50)
        found = torch.cat([network((part.float() / 255 - mean) / std).argmax(dim=1) for part in parts])
    return float((found.numpy() != labels[~train]).mean())


def fit(
    network: torch.nn.Module,
    head: str,
    images: Images,
    labels: Labels,
    config: dict[str, object],
    *,
    seed: int,
    epochs: int = EPOCHS,
) -> None:
    """AdamW with one cycle of the rate; images are zoomed and moved a little, and not mirrored (writing)."""
    network.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(seed)
    mean = torch.tensor(config["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(config["std"]).view(1, 3, 1, 1)
    own = [p for name, p in network.named_parameters() if name.startswith(head + ".")]
    rest = [p for name, p in network.named_parameters() if not name.startswith(head + ".")]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "lr": RATE}, {"params": own, "lr": HEAD_RATE}], weight_decay=1e-2
    )
    n, batch = len(images), min(BATCH, len(images))
    steps = epochs * max(1, n // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [RATE, HEAD_RATE], total_steps=steps, pct_start=0.2
    )
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    network.train()
    for _ in range(epochs):
        order = rng.permutation(n)
        for start in range(0, n - batch + 1, batch):
            rows = order[start : start + batch]
            pixels = _moved((x[rows].float() / 255 - mean) / std, rng)
            loss = torch.nn.functional.cross_entropy(
                network(pixels.contiguous(memory_format=torch.channels_last)), y[rows], label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()


def _moved(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each image zoomed by up to a fifth and moved by up to a tenth."""
    n = len(pixels)
    zoom = torch.from_numpy(rng.uniform(0.8, 1.1, n)).float()
    shift = torch.from_numpy(rng.uniform(-0.2, 0.2, (n, 2))).float()
    frames = torch.zeros(n, 2, 3)
    frames[:, 0, 0] = frames[:, 1, 1] = zoom
    frames[:, :, 2] = shift
    grid = torch.nn.functional.affine_grid(frames, list(pixels.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
