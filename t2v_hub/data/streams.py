"""One pass over a stream that ends with a random sample of every class in memory."""

import contextlib
import hashlib
import heapq
import io
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tqdm.auto import tqdm

from t2v_hub.data.columns import Columns, Untyped, choose_columns
from t2v_hub.data.images import DECODE_FAILURES, to_rgb
from t2v_hub.data.locations import reading_failures
from t2v_hub.data.sampling import key_stream
from t2v_hub.errors import DataError

_CHUNK = 4096
_SHUFFLED = 1000  # images that a stream holds to shuffle them
_MAX_BYTES = 4 << 30  # of undecoded images in memory: 1,000 of 4 MiB
_MANY: Hashable = ("several labels",)


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass over a stream found.

    Attributes:
        labels: Label of every image that was scanned.
        images: Undecoded images that were kept, by their position in the stream.
        revision: SHA-256 of all that was scanned, as ``sha256:`` and 16 digits.
    """

    labels: list[object]
    images: dict[int, object]
    revision: str


def shuffled(source: Any, *, seed: int) -> Any:
    """A `datasets.IterableDataset` in an order that the seed chooses, as far as its files allow.

    Raises:
        DataError: Its files cannot be read.
    """
    with _reading():
        return source.shuffle(seed=seed, buffer_size=_SHUFFLED)


def open_stream(
    source: Any, *, image_column: str | None, label_column: str | None, max_scan: int
) -> tuple[Columns, Iterator[tuple[object, object]]]:
    """The columns of a `datasets.IterableDataset`, and its first ``max_scan`` undecoded images and labels.

    Raises:
        ColumnError: A column is absent or ambiguous.
        DataError: The stream is empty or breaks off.
    """
    import datasets

    with _reading():
        stream = source.with_format(None)
        features = stream.features
        first = next(iter(stream), None) if features is None else None
    if features is None:
        if first is None:
            raise DataError("There are no images: the stream is empty. Check the split and filters.")
        guessed = {name: datasets.Image() if _is_image(value) else Untyped() for name, value in first.items()}
        columns = choose_columns(guessed, image_column=image_column, label_column=label_column)
        return columns, _items(stream, columns, max_scan)
    columns = choose_columns(features, image_column=image_column, label_column=label_column)
    with _reading():
        stream = stream.select_columns([columns.image, columns.label])
        if isinstance(features[columns.image], datasets.Image):
            stream = stream.cast_column(columns.image, datasets.Image(decode=False))
    return columns, _items(stream, columns, max_scan)


def scan(
    items: Iterable[tuple[object, object]],
    *,
    max_kept: int,
    seed: int,
    progress: bool,
    max_bytes: int = _MAX_BYTES,
) -> Scan:
    """One pass over ``(image, label)`` pairs, of which at most about ``max_kept`` images stay in memory.

    The images have the keys that `t2v_hub.data.sampling.draw_by_class` gives them by their position.
    Of each class those with the lowest keys stay, so they are a random sample of the class; and
    as long as everything fits, sampling from a stream equals sampling from a table.
    When it is full, the image with the highest key goes, but none of a class that holds no
    more than ``max_kept / 2K`` (and 2) images, so rare classes stay. More than ``max_kept`` are kept
    only where that is fewer than two per class. Where images take more than ``max_bytes``, ``max_kept``
    becomes as many as do not.
    """
    labels: list[object] = []
    reservoir = _Reservoir(max_kept, max_bytes)
    digest = hashlib.sha256()
    bits, keys = key_stream(seed), np.zeros(0, np.uint64)
    bar = tqdm(items, desc="Scanning", unit="image", disable=None if progress else True)
    for position, (image, label) in enumerate(bar):
        if position % _CHUNK == 0:
            keys = np.asarray(bits.random_raw(_CHUNK), np.uint64)
        labels.append(label)
        digest.update(repr(label).encode())
        digest.update(hashlib.sha256(_content(image)).digest())
        reservoir.offer(position, int(keys[position % _CHUNK]), _class_of(label), image)
    return Scan(labels, reservoir.images, "sha256:" + digest.hexdigest()[:16])


@dataclass
class _Reservoir:
    """At most about ``size`` images: of each class those with the lowest keys."""

    size: int
    max_bytes: int = _MAX_BYTES
    images: dict[int, object] = field(default_factory=dict)
    n_bytes: int = 0
    _number: dict[Hashable, int] = field(default_factory=dict)
    _heaps: list[list[tuple[int, int]]] = field(default_factory=list)  # per class (-key, position)
    # Arrays over classes, grown by doubling: the highest key held, how many are held, and
    # the lowest key ever let go, above which nothing enters or the class would have a gap.
    _top: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(8, np.uint64))
    _held: NDArray[np.int64] = field(default_factory=lambda: np.zeros(8, np.int64))
    _limit: list[int] = field(default_factory=list)

    def offer(self, position: int, key: int, name: Hashable, image: object) -> None:
        """Take the image in if it has a place."""
        number = self._number.setdefault(name, len(self._number))
        if number == len(self._heaps):
            self._heaps.append([])
            self._limit.append(1 << 64)
            if number == len(self._top):
                self._top = np.concatenate([self._top, np.zeros_like(self._top)])
                self._held = np.concatenate([self._held, np.zeros_like(self._held)])
        if key >= self._limit[number]:
            return
        heapq.heappush(self._heaps[number], (-key, position))
        self.images[position] = image
        self.n_bytes += _n_bytes(image)
        self._update(number)
        while len(self.images) > self.size and self._let_one_go():
            pass
        if position not in self.images:
            return
        self.images[position] = compact = _compact(image)
        self.n_bytes += _n_bytes(compact) - _n_bytes(image)
        while self.n_bytes > self.max_bytes:
            self.size = min(self.size, len(self.images) - 1)
            if not self._let_one_go():
                break

    def _let_one_go(self) -> bool:
        n = len(self._heaps)
        share = max(2, self.size // (2 * n))
        loose = self._held[:n] > share
        if not loose.any():
            return False
        number = int(np.argmax(np.where(loose, self._top[:n], 0)))
        key, position = heapq.heappop(self._heaps[number])
        self._limit[number] = -key
        self.n_bytes -= _n_bytes(self.images.pop(position))
        self._update(number)
        return True

    def _update(self, number: int) -> None:
        heap = self._heaps[number]
        self._held[number] = len(heap)
        self._top[number] = -heap[0][0]


def _class_of(label: object) -> Hashable:
    if hasattr(label, "tolist"):
        label = label.tolist()
    if isinstance(label, Hashable) and not isinstance(label, tuple):
        return label
    return _MANY  # images with several labels are drawn uniformly, as of one class


def _content(image: object) -> bytes:
    """Bytes that tell the image from others."""
    if isinstance(image, dict):
        content, path = image.get("bytes"), image.get("path")
        return content if isinstance(content, bytes) else str(path).encode()
    if isinstance(image, bytes):
        return image
    if isinstance(image, PIL.Image.Image):
        try:
            return image.mode.encode() + image.tobytes()
        except DECODE_FAILURES:
            return b"damaged"
    if isinstance(image, np.ndarray):
        return f"{image.dtype}{image.shape}".encode() + image.tobytes()
    return repr(image).encode()


def _compact(image: object) -> object:
    """The image as it may stay in memory: not decoded."""
    if not isinstance(image, PIL.Image.Image):
        return image
    try:
        file = io.BytesIO()
        to_rgb(image).save(file, "png", compress_level=1)
    except DECODE_FAILURES:
        return image  # met again, and counted, when the sample is decoded
    return file.getvalue()


def _n_bytes(image: object) -> int:
    """What an image takes in memory, once it is compact."""
    if isinstance(image, dict):
        image = image.get("bytes")
    return len(image) if isinstance(image, bytes) else int(getattr(image, "nbytes", 0))


def _is_image(value: object) -> bool:
    if isinstance(value, Mapping):
        return "bytes" in value or "path" in value
    return hasattr(value, "getexif") or isinstance(value, bytes) or getattr(value, "ndim", 0) >= 2


def _items(stream: Any, columns: Columns, max_scan: int) -> Iterator[tuple[object, object]]:
    n = 0
    try:
        for item in islice(stream, max_scan):
            yield item[columns.image], item[columns.label]
            n += 1
    except reading_failures() as error:
        raise _broken(n, error) from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What `datasets` raises before the first image becomes ours."""
    try:
        yield
    except reading_failures() as error:
        raise _broken(0, error) from error


def _broken(n: int, error: BaseException) -> DataError:
    return DataError(
        f"The stream broke off after {n} images: "
        f"{' '.join(str(error).split())[:300] or type(error).__name__}. "
        "Check the connection and the source; max_scan= bounds how far it is read."
    )
