"""A tiny probe and tiny image folders on disk, for tests of the command ``t2v``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from typer.testing import CliRunner, Result

from t2v_hub.cli import app

SIZE = ("--image-size", 32)
"""Options with which the tiny probe measures the tiny images."""


def t2v(*arguments: object) -> Result:
    """What the command does with these arguments, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def t2v_json(*arguments: object) -> dict[str, Any]:
    """The one JSON object that the command prints on stdout, and nothing else there."""
    result = t2v(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def save_probe(folder: Path, seed: int = 0) -> Path:
    """A folder with a transformers ResNet of 12,331 parameters, as `save_pretrained` leaves it."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", num_labels=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ResNetForImageClassification(config).save_pretrained(folder)
    return folder


def save_images(folder: Path, *, seed: int = 0, n: int = 8, classes: Sequence[str] = ("a", "b", "c")) -> Path:
    """A folder of noisy colours, ``n`` images per class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        colour = rng.uniform(40, 215, 3)
        for number in range(n):
            pixels = np.clip(colour + rng.normal(0, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
