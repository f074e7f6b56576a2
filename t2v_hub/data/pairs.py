"""Map-style torch data sets, and whatever else gives ``(image, label)`` by position."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from t2v_hub.data.images import DECODE_FAILURES, open_image
from t2v_hub.data.skips import Skips
from t2v_hub.errors import DataError, T2VError

_N_COMPARED = 32


@dataclass(frozen=True, eq=False)
class Pairs:
    """The labels of a data set of pairs.

    Attributes:
        labels: Of the items that could be read.
        positions: Which those are.
        class_names: Names of the labels 0, 1, 2 …, where the data set knows them.
        name: What to call the data set: its type.
    """

    labels: list[object]
    positions: list[int]
    class_names: tuple[str, ...] | None
    name: str


def read_labels(source: Any, *, progress: bool) -> Pairs:
    """The labels of ``source``, which has a length and gives ``(image, label)`` by position.

    A torchvision data set keeps its labels in ``targets`` or ``labels``. They are taken from there when
    no ``target_transform`` changes them and 32 items spread over the data set agree; else each
    item is read once, which decodes every image but keeps none.

    Raises:
        DataError: Items are no pairs, or their images cannot be used.
        ImageError: Too many items cannot be read.
    """
    n = len(source)
    root = _root(source)
    name = type(root).__name__ if type(root).__module__ != "builtins" else "unnamed"
    stored = _stored_labels(source)
    if stored is not None and _agree(source, stored):
        return Pairs(stored, list(range(n)), _class_names(root, stored), name)
    labels: list[object] = []
    positions: list[int] = []
    skips = Skips(n)
    bar = tqdm(range(n), desc="Reading labels", unit="image", disable=None if progress else True)
    for position in bar:
        try:
            image, label = _pair(source, position)
            if not labels:
                open_image(image)  # what is wrong with all images should not wait for the sample
        except T2VError:
            raise
        except DECODE_FAILURES as error:
            skips.add(position, error)
            continue
        labels.append(label)
        positions.append(position)
    skips.warn(stacklevel=5)
    return Pairs(labels, positions, _class_names(root, labels), name)


def is_subset(source: object) -> bool:
    """Whether ``source`` is a `torch.utils.data.Subset`; it can be one only if torch was imported."""
    torch_data = sys.modules.get("torch.utils.data")
    return torch_data is not None and isinstance(source, torch_data.Subset)


def _root(source: Any) -> Any:
    while is_subset(source):
        source = source.dataset
    return source


def _pair(source: Any, position: int) -> tuple[object, object]:
    item = source[position]
    if isinstance(item, Mapping):
        raise DataError(
            f"Item {position} is a mapping of {sorted(map(str, item))}; wanted a pair (image, label). "
            "Give a datasets.Dataset, or wrap the data set so that its items are pairs."
        )
    if not isinstance(item, Sequence) or isinstance(item, str | bytes) or len(item) < 2:
        raise DataError(
            f"Item {position} is {type(item).__name__}; wanted a pair (image, label). "
            "Wrap the data set so that its items are pairs."
        )
    return item[0], item[1]


def _stored_labels(source: Any) -> list[object] | None:
    if is_subset(source):
        labels = _stored_labels(source.dataset)
        return None if labels is None else [labels[int(i)] for i in source.indices]
    if getattr(source, "target_transform", ...) is not None:
        return None  # changed, or no torchvision data set at all
    transforms = getattr(source, "transforms", None)
    if transforms is not None and getattr(transforms, "target_transform", ...) is not None:
        return None  # a joint transform sees the labels too
    for name in ("targets", "labels"):
        stored = _plain(getattr(source, name, None))
        if isinstance(stored, list | tuple) and len(stored) == len(source) > 0:
            return list(stored)
    return None


def _agree(source: Any, stored: list[object]) -> bool:
    n_read = 0
    for position in np.unique(np.linspace(0, len(stored) - 1, _N_COMPARED).astype(int)).tolist():
        try:
            image, label = _pair(source, position)
            if n_read == 0:
                open_image(image)
        except T2VError:
            raise
        except DECODE_FAILURES:
            continue  # a damaged image says nothing about the labels
        n_read += 1
        if _plain(label) != _plain(stored[position]):
            return False
    return n_read > 0


def _plain(label: Any) -> object:
    return label.tolist() if hasattr(label, "tolist") else label


def _class_names(root: Any, labels: list[object]) -> tuple[str, ...] | None:
    names = getattr(root, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    plain = [_plain(label) for label in labels]
    in_range = all(
        isinstance(label, int) and not isinstance(label, bool) and -1 <= label < len(names) for label in plain
    )
    return tuple(names) if in_range else None
