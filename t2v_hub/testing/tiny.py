"""Tiny networks and tasks for tests: of plug-ins, of the demo, of t2v_hub itself."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn

from t2v_hub.probe import Preprocessing, ProbeNetwork

if TYPE_CHECKING:
    from datasets import Dataset

TINY = Preprocessing(size=(16, 16), resize=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""Preprocessing of the tiny probe: 16 pixels."""


class TinyNetwork(nn.Module):
    """Two convolutions, a normalisation, a linear layer and a head; seeded random weights.

    Args:
        n_classes: Outputs of the head.
        seed: Of the weights.
    """

    def __init__(self, n_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2)
        self.hidden = nn.Linear(8, 10)
        self.head = nn.Linear(10, n_classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            self.norm.weight.fill_(1.0)
            self.norm.running_var.fill_(0.5)  # type: ignore[union-attr]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, ``(batch, n_classes)``."""
        maps = torch.relu(self.norm(self.conv1(images)))
        maps = torch.tanh(self.conv2(maps))
        logits: torch.Tensor = self.head(torch.tanh(self.hidden(maps.mean(dim=(2, 3)))))
        return logits


def tiny_probe(seed: int = 0) -> ProbeNetwork:
    """A probe of 24 filters that measures 16-pixel images in no time."""
    return ProbeNetwork.load(TinyNetwork(seed=seed), preprocessing=TINY)


def tiny_task(n_per_class: int = 12, n_classes: int = 3, *, seed: int = 0, shift: float = 0.0) -> "Dataset":
    """A ``datasets`` data set of noisy colours, one per class.

    Args:
        n_per_class: Images of each class.
        n_classes: How many classes.
        seed: Of the noise.
        shift: Moves all colours, for tasks that differ.
    """
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    generator = np.random.default_rng(seed)
    colours = np.random.default_rng(7).uniform(40, 215, size=(n_classes, 3)) + 40 * shift
    labels = np.arange(n_per_class * n_classes) % n_classes
    noise = generator.normal(0, 30, size=(len(labels), 16, 16, 3))
    pixels = np.clip(colours[labels][:, None, None, :] + noise, 0, 255).astype(np.uint8)
    names = [f"colour {code}" for code in range(n_classes)]
    return Dataset.from_dict(
        {"image": [Image.fromarray(array) for array in pixels], "label": labels.tolist()},
        features=Features({"image": ImageFeature(), "label": ClassLabel(names=names)}),
    )
