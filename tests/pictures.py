"""Tiny labelled image data sets in all their shapes, for the tests of `t2v_hub.data`."""

from pathlib import Path

import numpy as np
import PIL.Image
from datasets import ClassLabel, Dataset, Features, Image

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "emu"])})


def picture(value: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (5, 4), (value, 0, 0))


def table(n: int = 12, features: Features = FEATURES) -> Dataset:
    codes = [i % 2 for i in range(n)]
    return Dataset.from_dict({"image": [picture(i) for i in range(n)], "label": codes}, features=features)


def reds(sample) -> list[int]:
    decoded = sample.decode(lambda image: np.asarray(image).transpose(2, 0, 1), progress=False)
    return decoded.images[:, 0, 0, 0].tolist()


def folder(path: Path, *classes: str, n: int = 4) -> Path:
    for i, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for j in range(n):
            picture(10 * i + j).save(path / name / f"{j}.png")
    return path


class Pairs:
    """A map-style data set that counts how often it is read."""

    def __init__(self, items):
        self.items, self.n_read = items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.n_read += 1
        image, label = self.items[i]
        if isinstance(image, Exception):
            raise image
        return image, label
