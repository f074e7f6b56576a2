"""Tiny checkpoints on disk and digits to score them on, for tests of features and of the second stage."""

from pathlib import Path

import timm
import torch

from t2v_hub.demo.digits import TARGETS, Digits
from t2v_hub.demo.networks import new_network, save, seeded

WIDTHS = (16, 24, 32, 48)  # random features of so many kinds tell some digits apart


def save_checkpoint(folder: Path, library: str = "timm", *, seed: int = 0, n_classes: int = 3) -> Path:
    """A checkpoint of random weights, in the library's own layout."""
    network = new_network(library, n_classes, widths=WIDTHS, seed=seed)  # type: ignore[arg-type]
    save(network, folder, class_names=[str(code) for code in range(n_classes)], widths=WIDTHS)
    return folder


def save_headless(folder: Path, library: str = "timm", *, seed: int = 0) -> Path:
    """A checkpoint whose classification head is not in its files."""
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    folder.mkdir(parents=True)
    with seeded(seed):
        if library == "timm":
            network = timm.create_model(
                "resnet18", num_classes=0, layers=(1, 1, 1, 1), channels=WIDTHS, zero_init_last=False
            )
            network.pretrained_cfg = {
                "architecture": "resnet18",
                "num_classes": 0,
                "input_size": (3, 32, 32),
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
            }
            arguments = {"layers": (1, 1, 1, 1), "channels": WIDTHS, "zero_init_last": False}
            timm.models.save_for_hf(network, str(folder), model_args=arguments, safe_serialization=True)
        else:
            config = ResNetConfig(
                embedding_size=64, hidden_sizes=list(WIDTHS), depths=[1] * 4, layer_type="basic"
            )
            ResNetModel(config).save_pretrained(folder)
            ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def broken(folder: Path) -> Path:
    """The same checkpoint with a weight that is not a number."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    next(weight for weight in state.values() if weight.dim() == 4).view(-1)[0] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def digits(n_per_class: int = 16, *, target: int = 0):  # type: ignore[no-untyped-def]
    """A ``datasets`` data set of real handwritten digits, five classes."""
    return Digits(0).dataset(TARGETS[target], "test", stop=n_per_class)
