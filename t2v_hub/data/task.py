"""`ImageTask`: labelled images to draw from; `Sample`: what was drawn; `DecodedSample`: its pixels."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tqdm.auto import tqdm

from t2v_hub.data.images import DECODE_FAILURES, open_image
from t2v_hub.data.labels import Codes
from t2v_hub.data.sampling import How, check_sample, draw_by_class, draw_plain
from t2v_hub.data.skips import Skips
from t2v_hub.embedding import TaskInfo, canonical_json
from t2v_hub.errors import DataError, ImageError, InsufficientMemoryError, SettingsError

Prepare = Callable[[PIL.Image.Image], NDArray[np.uint8]]
Reader = Callable[[int], object]
SampleLabels = NDArray[np.int64] | NDArray[np.float32]

# What resizing an image of an odd shape may raise; other errors of `prepare` are not the image's fault.
_PREPARE_FAILURES = (OSError, ValueError, ArithmeticError, MemoryError)


@dataclass(frozen=True, eq=False)
class ImageTask:
    """A labelled image data set: what is known about it, and its images on demand.

    Made by `t2v_hub.data.load`.

    Attributes:
        info: Which data set it is; ``info.n_samples`` counts its labelled images, of a stream
            those that were scanned. ``info.revision`` is None where the content cannot be
            named (torch data sets), so nothing measured on it may be cached under it.
        labels: Of the images at hand (all, but for a stream): ``(m,)`` int64 codes, or ``(m, K)``
            bool where images may have several labels.
        class_counts: ``(K,)`` int64; labelled images of each class, of a stream among those scanned.
        positions: ``(m,)`` int64, ascending; where the images at hand are in the data.
        read: Gives the undecoded image at a position.
        image_column: Column of the images, where there are columns.
    """

    info: TaskInfo
    labels: Codes
    class_counts: NDArray[np.int64]
    positions: NDArray[np.int64]
    read: Reader
    image_column: str | None = None

    @property
    def key(self) -> str | None:
        """SHA-256 that names these images with these labels, for caches; None without a revision.

        It hangs on the revision, split, configuration and columns, and on which images are at hand with
        which codes; not on the names of the data set and of its classes.
        """
        info = self.info
        if info.revision is None:
            return None
        digest = hashlib.sha256(
            canonical_json([info.revision, info.split, info.config, self.image_column, info.label_column])
        )
        for array in (self.positions, self.labels, self.class_counts):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @property
    def n_samples(self) -> int:
        """Labelled images in the data set, or how many were scanned of a stream."""
        return self.info.n_samples

    @property
    def n_classes(self) -> int:
        """Classes that occur."""
        return self.info.n_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their codes."""
        return self.info.class_names

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.info.multi_label

    def __len__(self) -> int:
        """Images at hand."""
        return len(self.positions)

    def __repr__(self) -> str:
        at_hand = "" if len(self) == self.n_samples else f", at_hand={len(self)}"
        several = ", multi_label=True" if self.multi_label else ""
        return (
            f"ImageTask({self.info.id!r}, n_samples={self.n_samples}, n_classes={self.n_classes}"
            f"{at_hand}{several})"
        )

    def sample(self, max_samples: int, *, seed: int, how: How = "natural") -> "Sample":
        """At most ``max_samples`` images drawn over the whole data set, never just the first.

        The same seed gives the same sample on every platform; `t2v_hub.data.sampling.draw_by_class`
        says how it is drawn. Images with several labels are drawn uniformly.

        Args:
            max_samples: Images to draw; all, each once, where the data has no more.
            seed: What the draw hangs on.
            how: ``natural`` keeps the classes in the proportions of the data; ``balanced`` draws
                equally from each, and weighted means are then means over classes.

        Raises:
            SampleSizeError: ``max_samples`` is smaller than the number of classes.
            SettingsError: ``balanced`` with several labels per image, or a setting of no meaning.
        """
        check_sample(max_samples, n_classes=self.n_classes, seed=seed, how=how, multi_label=self.multi_label)
        if self.labels.dtype == np.bool_:
            draw = draw_plain(self.positions, max_samples=max_samples, seed=seed)
            labels: SampleLabels = self.labels[draw.chosen].astype(np.float32)
        else:
            codes = self.labels.astype(np.int64, copy=False)
            draw = draw_by_class(
                codes, self.positions, self.class_counts, max_samples=max_samples, seed=seed, how=how
            )
            labels = codes[draw.chosen]
        return Sample(labels, draw.weights, self.positions[draw.chosen], self.read)


@dataclass(frozen=True, eq=False)
class Sample:
    """Images that were drawn, not yet decoded, in an order whose every run is much like the whole.

    Attributes:
        labels: ``(n,)`` int64 codes, or ``(n, K)`` float32 of zeros and ones.
        weights: ``(n,)`` float64 of mean 1. Weighted means over the sample estimate means over the
            data, or over its classes where the sample is balanced.
        positions: ``(n,)`` int64; where the images are in the data.
        read: Gives the undecoded image at a position.
    """

    labels: SampleLabels
    weights: NDArray[np.float64]
    positions: NDArray[np.int64]
    read: Reader

    def __len__(self) -> int:
        """Images in the sample."""
        return len(self.positions)

    def encoded(self, i: int) -> object:
        """Image ``i`` of the sample as the data holds it: bytes, a path or an array."""
        return self.read(int(self.positions[i]))

    def decode(
        self, prepare: Prepare, *, max_skipped: float = 0.05, progress: bool = True
    ) -> "DecodedSample":
        """The pixels of the sample; images that cannot be decoded are left out and counted.

        Args:
            prepare: Makes an RGB image an array ``(3, h, w)`` of uint8, of one shape for all.
            max_skipped: Share of the sample that may be left out; from 20 images on at least one.
            progress: Show a progress bar on a terminal.

        Raises:
            ImageError: More were left out, or those of all classes but one.
            DataError: Arrays that are no raw images.
            InsufficientMemoryError: The pixels do not fit into memory.

        Warns:
            SkippedImagesWarning: Some were left out.
        """
        skips = Skips(len(self), max_skipped=max_skipped)
        images: NDArray[np.uint8] | None = None
        kept: list[int] = []
        for i in tqdm(
            range(len(self)), desc="Reading images", unit="image", disable=None if progress else True
        ):
            try:
                rgb = open_image(self.encoded(i))
            except DataError:
                raise
            except DECODE_FAILURES as error:
                skips.add(int(self.positions[i]), error)
                continue
            try:
                pixels = prepare(rgb)
            except _PREPARE_FAILURES as error:
                skips.add(int(self.positions[i]), error)
                continue
            if images is None:
                images = _room(len(self), pixels)
            if pixels.shape != images.shape[1:] or pixels.dtype != np.uint8:
                raise SettingsError(
                    f"prepare must return uint8 arrays of one shape (3, h, w); got {pixels.dtype} "
                    f"{pixels.shape} after {images.shape[1:]}."
                )
            images[len(kept)] = pixels
            kept.append(i)
        labels, weights = self.labels[kept], self.weights[kept]
        n_left = len(np.unique(labels)) if labels.ndim == 1 else int(labels.any(axis=0).sum())
        if images is None or n_left < 2:
            raise ImageError(
                f"Fewer than two classes are left of {len(self)} images, because {len(skips.names)} "
                f"could not be decoded ({'; '.join(skips.names[:3])}). Repair the images, or draw "
                "more of them."
            )
        skips.warn()
        return DecodedSample(
            images[: len(kept)], labels, weights / weights.mean(), len(skips.names), tuple(skips.names)
        )


@dataclass(frozen=True, eq=False)
class DecodedSample:
    """The pixels of a sample, without the images that could not be decoded.

    Attributes:
        images: ``(n, 3, h, w)`` uint8.
        labels: ``(n,)`` int64 codes, or ``(n, K)`` float32 of zeros and ones.
        weights: ``(n,)`` float64 of mean 1.
        n_skipped: Images left out.
        skipped: Which, and why: ``"image 17: cannot identify image file"``.
    """

    images: NDArray[np.uint8]
    labels: SampleLabels
    weights: NDArray[np.float64]
    n_skipped: int
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        """Images that were decoded."""
        return len(self.images)


def _room(n: int, first: NDArray[np.uint8]) -> NDArray[np.uint8]:
    try:
        return np.empty((n, *first.shape), np.uint8)
    except MemoryError as error:
        raise InsufficientMemoryError(
            f"{n} images of shape {first.shape} take {n * first.size / 2**30:.1f} GiB, which is not free. "
            "Lower max_samples or image_size."
        ) from error
