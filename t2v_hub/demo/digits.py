"""Real images for the demo: scikit-learn's handwritten digits, drawn in several ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from datasets import Dataset

Rendering = Literal["paper", "chalk", "striped", "colour", "blurred"]
Pool = Literal["probe", "experts", "train", "test"]

RENDERINGS: tuple[Rendering, ...] = get_args(Rendering)
SIDE = 32
_POOLS: dict[Pool, int] = {"probe": 52, "experts": 72, "train": 10, "test": 40}
"""Images of each digit; the rarest digit has 174 in all."""


@dataclass(frozen=True)
class DigitTask:
    """Which digits, drawn how.

    Attributes:
        name: What it is called.
        digits: The classes.
        rendering: How the digits are drawn: ``paper`` dark on light, ``chalk`` light on dark with specks,
            ``striped`` dark on waves, ``colour`` reddish on noisy green of like brightness, ``blurred`` dark
            on light and out of focus.
    """

    name: str
    digits: tuple[int, ...]
    rendering: Rendering


class Digits:
    """The 1,797 handwritten digits in pools that share no image.

    Args:
        seed: Of the split, and of the colours and noise.
    """

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self._strength: NDArray[np.float64] = bunch.images / 16.0  # (1797, 8, 8), 1 is full ink
        self._seed = seed
        generator = np.random.default_rng([seed, 1])
        self.pools: dict[Pool, dict[int, NDArray[np.int64]]] = {pool: {} for pool in _POOLS}
        for digit in range(10):
            places = generator.permutation(np.flatnonzero(bunch.target == digit))
            start = 0
            for pool, count in _POOLS.items():
                self.pools[pool][digit] = places[start : start + count]
                start += count
        self.n_images = len(self._strength)

    def dataset(self, task: DigitTask, pool: Pool, *, start: int = 0, stop: int | None = None) -> "Dataset":
        """A labelled data set of one task.

        Args:
            task: Which digits, drawn how.
            pool: Which pool the images come from.
            start: First image of each digit within the pool.
            stop: First image of each digit that is no longer taken; None for all.
        """
        from datasets import ClassLabel, Dataset, DatasetInfo, Features
        from datasets import Image as ImageFeature

        chosen = [(self.pools[pool][digit][start:stop], code) for code, digit in enumerate(task.digits)]
        rows = {
            "image": [self._draw(int(place), task.rendering) for places, _ in chosen for place in places],
            "label": [code for places, code in chosen for _ in places],
        }
        names = [f"digit {digit}" for digit in task.digits]
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=names)})
        info = DatasetInfo(description=f"{task.rendering} digits", features=features, dataset_name=task.name)
        return Dataset.from_dict(rows, info=info)

    def _draw(self, place: int, rendering: Rendering) -> Image.Image:
        ink = Image.fromarray((self._strength[place] * 255).astype(np.uint8))
        ink = ink.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        if rendering == "blurred":
            ink = ink.filter(ImageFilter.GaussianBlur(2.5))
        share = np.asarray(ink, np.float64)[..., None] / 255
        front, back = np.full(3, 20.0), np.full(3, 235.0)
        # A generator for each image: it looks the same in whichever data set it appears.
        generator = np.random.default_rng([self._seed, 2, place])
        clutter: NDArray[np.float64] = np.zeros(1)
        if rendering == "chalk":
            front, back = np.full(3, 200.0), np.full(3, 40.0)
            clutter = np.where(generator.random((SIDE, SIDE, 1)) < 0.15, 200.0, 0.0)
        elif rendering == "striped":
            angle, phase = generator.uniform(0, np.pi), generator.uniform(0, 2 * np.pi)
            down, right = np.mgrid[:SIDE, :SIDE]
            wave = np.sin((down * np.sin(angle) + right * np.cos(angle)) * 2 * np.pi / 8 + phase)
            clutter = np.asarray(90.0 * wave[..., None] - 60.0, np.float64)
        elif rendering == "colour":
            front = np.array([200.0, 60, 120]) + generator.uniform(-45, 45, 3)
            back = np.array([60.0, 150, 120]) + generator.uniform(-45, 45, 3)
            clutter = generator.normal(0, 25, (SIDE, SIDE, 3))
        pixels = share * front + (1 - share) * back + clutter
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def expert_tasks(renderings: Sequence[Rendering]) -> tuple[DigitTask, ...]:
    """The low and the high digits in each of these renderings."""
    halves = {"low": (0, 1, 2, 3, 4), "high": (5, 6, 7, 8, 9)}
    return tuple(
        DigitTask(f"{half}-{rendering}", digits, rendering)
        for rendering in renderings
        for half, digits in halves.items()
    )


TARGETS = (
    DigitTask("odd-chalk", (1, 3, 5, 7, 9), "chalk"),
    DigitTask("even-striped", (0, 2, 4, 6, 8), "striped"),
    DigitTask("middle-colour", (3, 4, 5, 6, 7), "colour"),
    DigitTask("outer-blurred", (0, 1, 2, 8, 9), "blurred"),
)
"""New tasks: each takes digits from both halves, and the last is drawn as no expert has seen it."""
