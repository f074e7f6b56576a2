"""Small networks for the demo: trained, saved as ordinary checkpoints, fine-tuned."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from t2v_hub.catalog import Library
from t2v_hub.demo.digits import SIDE
from t2v_hub.probe import Preprocessing

if TYPE_CHECKING:
    from datasets import Dataset

EXPERT_WIDTHS = (16, 24, 32, 48)
PROBE_WIDTHS = (24, 32, 48, 64)
_MEAN = _STD = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(
    size=(SIDE, SIDE), resize=(SIDE, SIDE), interpolation="bicubic", mean=_MEAN, std=_STD
)
"""Of the networks that are trained here; what is saved beside them says the same."""

Batch = tuple[Tensor, Tensor]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fixes torch's global randomness, which fresh layers draw from, and puts it back as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def new_network(library: Library, n_classes: int, *, widths: Sequence[int], seed: int) -> nn.Module:
    """A residual network of four blocks; both libraries' have the same layers."""
    with seeded(seed):
        network: nn.Module
        if library == "timm":
            import timm

            network = timm.create_model("resnet18", num_classes=n_classes, **_timm_arguments(widths))
        else:
            from transformers import ResNetConfig, ResNetForImageClassification

            config = ResNetConfig(
                embedding_size=64,
                hidden_sizes=list(widths),
                depths=[1] * len(widths),
                layer_type="basic",
                id2label={code: str(code) for code in range(n_classes)},
            )
            network = ResNetForImageClassification(config)
    return network


def save(network: nn.Module, folder: Path, *, class_names: Sequence[str], widths: Sequence[int]) -> None:
    """Write an ordinary checkpoint folder of the library that the network comes from."""
    from transformers import PreTrainedModel, ViTImageProcessor
    from transformers.utils import logging

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, PreTrainedModel):
        network.config.id2label = dict(enumerate(class_names))
        network.config.label2id = {name: code for code, name in enumerate(class_names)}
        bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            network.save_pretrained(folder)
        finally:
            if bar:
                logging.enable_progress_bar()
        ViTImageProcessor(
            size={"height": SIDE, "width": SIDE},
            resample=Image.Resampling.BICUBIC.value,
            image_mean=list(_MEAN),
            image_std=list(_STD),
        ).save_pretrained(folder)
        return
    import timm

    network.pretrained_cfg = {  # type: ignore[assignment]
        "architecture": "resnet18",
        "num_classes": len(class_names),
        "label_names": list(class_names),
        "input_size": (3, SIDE, SIDE),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": _MEAN,
        "std": _STD,
        "first_conv": "conv1",
        "classifier": "fc",
    }
    timm.models.save_for_hf(network, str(folder), model_args=_timm_arguments(widths), safe_serialization=True)


def tensors(data: "Dataset", preprocessing: Preprocessing) -> Batch:
    """All images of a data set as network input, and their labels."""
    pixels = np.stack([preprocessing.prepare(image) for image in data["image"]])
    return preprocessing.normalise(torch.from_numpy(pixels)), torch.tensor(data["label"])


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def fit(
    network: nn.Module, batch: Batch, *, epochs: int, seed: int, rate: float = 2e-3, batch_size: int = 32
) -> None:
    """Train all weights with AdamW; the rate rises for a tenth of the steps and falls to nothing."""
    inputs, labels = batch
    generator = torch.Generator().manual_seed(seed)
    per_epoch = max(1, len(labels) // batch_size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rate, total_steps=epochs * per_epoch + 1, pct_start=0.1
    )
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for drawn in order[: per_epoch * batch_size].split(batch_size):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(_logits(network, inputs[drawn]), labels[drawn])
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()


def accuracy(network: nn.Module, batch: Batch) -> float:
    """Share of images whose largest logit is the right one."""
    inputs, labels = batch
    network.eval()
    with torch.no_grad():
        right = [
            (_logits(network, part).argmax(dim=1) == wanted).sum()
            for part, wanted in zip(inputs.split(256), labels.split(256), strict=True)
        ]
    return float(torch.stack(right).sum()) / len(labels)


def n_parameters(network: nn.Module) -> int:
    """How many numbers the network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def _logits(network: nn.Module, inputs: Tensor) -> Tensor:
    # timm's networks return logits, transformers' an object that holds them.
    output = network(inputs)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def _timm_arguments(widths: Sequence[int]) -> dict[str, Any]:
    # Without zero_init_last=False timm's blocks start as identities, which transformers' do not.
    return {"layers": (1,) * len(widths), "channels": tuple(widths), "zero_init_last": False}
