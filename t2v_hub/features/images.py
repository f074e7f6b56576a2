"""`ScoredImages`: the images of a task on which checkpoints are compared, the same for all of them."""

import hashlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from t2v_hub.data.task import ImageTask, Sample
from t2v_hub.errors import ImageError, LabelError
from t2v_hub.probe import Preprocessing


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Images that could be decoded, in a fixed order.

    Comparisons in pairs need the same images for every checkpoint, whatever its preprocessing.

    Attributes:
        sample: The images.
        labels: ``(n,)`` int64 codes.
        digest: SHA-256 of their pixels as they are in the data; says nothing of the labels.
        n_skipped: Images of the draw that could not be decoded.
    """

    sample: Sample
    labels: NDArray[np.int64]
    digest: str
    n_skipped: int = 0
    _prepared: dict[Preprocessing, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, task: ImageTask, *, max_images: int, seed: int = 0, progress: bool = True) -> Self:
        """A stratified draw of at most ``max_images``, but two of each class where the data has them.

        Args:
            task: The task.
            max_images: How many to draw.
            seed: What the draw hangs on.
            progress: Whether to show a bar.

        Raises:
            LabelError: Its images may have several labels, which the scores do not know.
            ImageError: Too many images cannot be decoded.

        Warns:
            SkippedImagesWarning: Some were left out.
        """
        if task.multi_label:
            raise LabelError(
                f"Scores of loaded checkpoints need one label per image, and those of {task.info.id!r} may "
                f"have several. Rank by distance alone: leave refine= and budget_s= out."
            )
        sample = task.sample(max(max_images, 2 * task.n_classes), seed=seed)
        tried: list[int] = []
        kept: list[int] = []

        def read(position: int) -> object:
            tried.append(position)
            return sample.read(position)

        def fingerprint(image: PIL.Image.Image) -> NDArray[np.uint8]:
            digest = hashlib.sha256(f"{image.mode}{image.size}".encode())
            digest.update(image.tobytes())
            kept.append(tried[-1])
            return np.frombuffer(digest.digest(), np.uint8)

        drawn = Sample(sample.labels, sample.weights, sample.positions, read)
        decoded = drawn.decode(fingerprint, progress=progress)
        readable = Sample(decoded.labels, decoded.weights, np.array(kept, np.int64), sample.read)
        digest = hashlib.sha256(decoded.images.tobytes()).hexdigest()
        return cls(readable, decoded.labels.astype(np.int64), f"sha256:{digest}", decoded.n_skipped)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """All images as a network takes them, ``(n, channels, h, w)``; the last recipe's are kept.

        Raises:
            ImageError: One cannot be brought into that form.
        """
        if preprocessing not in self._prepared:
            self._prepared.clear()
            try:
                decoded = self.sample.decode(preprocessing.prepare, max_skipped=0.0, progress=False)
            except ImageError as error:
                raise ImageError(
                    f"An image that others can take cannot be prepared for this checkpoint, which needs "
                    f"{preprocessing.size[0]} x {preprocessing.size[1]} pixels: {error}"
                ) from error
            self._prepared[preprocessing] = decoded.images
        return self._prepared[preprocessing]
