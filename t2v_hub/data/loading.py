"""`load`: any labelled image data as an `ImageTask`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t2v_hub.data.columns import Columns, choose_columns
from t2v_hub.data.labels import Labels, SmallClasses, encode_labels
from t2v_hub.data.locations import HUB_ONLY, Located, locate
from t2v_hub.data.pairs import read_labels
from t2v_hub.data.provenance import commit_of, id_of
from t2v_hub.data.sampling import check_count, check_seed
from t2v_hub.data.streams import Scan, open_stream, scan, shuffled
from t2v_hub.data.task import ImageTask
from t2v_hub.embedding import TaskInfo
from t2v_hub.errors import ColumnError, DataError, LabelError, SettingsError, SplitError

_SUPPORTED = (
    "Give a datasets.Dataset, DatasetDict or IterableDataset, the path of an image folder or of "
    "Parquet files, the id of a data set on the Hub, or a map-style torch data set of (image, label)."
)


def load(
    source: object,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    name: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    max_scan: int = 100_000,
    max_kept: int = 10_000,
    streaming: bool = False,
    small_classes: SmallClasses = "error",
    seed: int = 0,
    progress: bool = True,
) -> ImageTask:
    """The labelled images of ``source``, ready to draw from; no image is decoded yet.

    Args:
        source: A `datasets.Dataset`, `DatasetDict` or `IterableDataset` (or dict of those); the path of a
            folder with one sub-folder of images per class, of a Parquet file or a folder of them,
            or of a saved data set; the id of a data set on the Hub; a map-style torch data set of
            (PIL image, array or tensor; label); or an `ImageTask`, which is returned as it is.
        split: Which split, where there are several. Default: ``train``, or the only one.
        image_column: Column of the images, where it is not evident.
        label_column: Column of the labels, where it is not evident.
        name: What to call the data set in the embedding. Default: its Hub id or path's last part.
        config: Configuration of a Hub data set that has several.
        revision: Branch, tag or commit of a Hub data set. It is resolved to the commit, which
            is recorded.
        max_scan: Images of a stream to read at most; a stream is read once, from its beginning.
        max_kept: Images of a stream to keep in memory at most, undecoded, for the sample; fewer where they
            would take more than 4 GiB.
        streaming: Read a data set on the Hub as a stream, in an order that the seed chooses as far as its
            files allow, instead of downloading all of it.
        small_classes: What to do about classes with a single image, from which nothing can be
            learned: refuse them, ``"drop"`` them or ``"keep"`` them.
        seed: Chooses which images of a stream are kept. With the same seed in `ImageTask.sample` and
            all kept, a stream gives the sample of the same data at rest.
        progress: Show progress bars on a terminal.

    Raises:
        DataNotFoundError: No such file, folder or Hub data set, or the Hub is out of reach.
        SplitError: The split is absent, or not said where there are several.
        ColumnError: The image or label column is absent or ambiguous.
        LabelError: Labels are missing, are no labels, or are all of one class.
        ClassSizeError: A class has a single image.
        DataError: The data cannot be read, or is of no supported kind.
        SettingsError: An option of no meaning.
    """
    if small_classes not in ("error", "keep", "drop"):
        raise SettingsError(f'small_classes must be "error", "keep" or "drop"; got {small_classes!r}.')
    check_count("max_scan", max_scan)
    check_count("max_kept", max_kept)
    check_seed(seed)
    if isinstance(source, ImageTask):
        return source
    split = None if split is None else str(split)  # datasets.Split.TRAIN is no string

    located = None
    if isinstance(source, str | Path):
        located = locate(
            source, config=config, revision=revision, split=split, progress=progress, streaming=streaming
        )
        source = located.data
    elif streaming:
        raise SettingsError(f"{type(source).__name__} is no id; streaming= reads one on the Hub.")
    elif revision is not None or config is not None:
        raise SettingsError(f"{type(source).__name__} is no id; {HUB_ONLY}")
    if isinstance(source, Mapping):
        source, split = _choose_split(source, split)
    elif located is None or located.split is None:
        split = _own_split(source, split)

    kind = _kind(source)
    if kind is None and (image_column is not None or label_column is not None):
        raise SettingsError("image_column= and label_column= mean something only for data with columns.")
    if kind == "table":
        return _from_table(source, located, split, image_column, label_column, name, small_classes)
    if kind == "stream":
        if streaming:
            source = shuffled(source, seed=seed)
        columns, items = open_stream(
            source, image_column=image_column, label_column=label_column, max_scan=max_scan
        )
        found = scan(items, max_kept=max_kept, seed=seed, progress=progress)
        return _from_scan(found, source, located, columns, split, name, small_classes)
    return _from_pairs(source, name, small_classes, progress)


def _from_table(
    source: Any,
    located: Located | None,
    split: str | None,
    image_column: str | None,
    label_column: str | None,
    name: str | None,
    small_classes: SmallClasses,
) -> ImageTask:
    import datasets

    table = source.with_format(None)
    features = dict(table.features)
    if list(features) == ["image"] and source.info.builder_name == "imagefolder":
        raise _unlabelled_folder(table, located.id if located else id_of(source))
    columns = choose_columns(features, image_column=image_column, label_column=label_column)
    values = table.select_columns([columns.label]).with_format("arrow")[:][columns.label]
    labels = encode_labels(
        values, class_names=columns.class_names, small_classes=small_classes, column=columns.label
    )
    images = table.select_columns([columns.image])
    if isinstance(features[columns.image], datasets.Image):
        images = images.cast_column(columns.image, datasets.Image(decode=False))

    def read(position: int) -> object:
        return images[position][columns.image]

    revision = located.revision if located else commit_of(source, split)
    info = _info(
        labels,
        id=name or (located.id if located else id_of(source)),
        split=split,
        revision=revision or f"fingerprint:{source._fingerprint}",
        config=located.config if located else None,
        column=columns.label,
    )
    return ImageTask(info, labels.codes, labels.counts, labels.positions, read, columns.image)


def _from_scan(
    found: Scan,
    source: Any,
    located: Located | None,
    columns: Columns,
    split: str | None,
    name: str | None,
    small_classes: SmallClasses,
) -> ImageTask:
    labels = encode_labels(
        found.labels, class_names=columns.class_names, small_classes=small_classes, column=columns.label
    )
    at_hand = np.isin(labels.positions, np.fromiter(found.images, np.int64, len(found.images)))
    info = _info(
        labels,
        id=name or (located.id if located else id_of(source)),
        split=split,
        revision=(located.revision if located else None) or found.revision,
        config=located.config if located else None,
        column=columns.label,
    )
    return ImageTask(
        info,
        labels.codes[at_hand],
        labels.counts,
        labels.positions[at_hand],
        found.images.__getitem__,
        columns.image,
    )


def _from_pairs(source: Any, name: str | None, small_classes: SmallClasses, progress: bool) -> ImageTask:
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        hint = " Pass its .dataset." if hasattr(source, "dataset") else ""
        raise DataError(
            f"{type(source).__name__} is no data set that can be read by position.{hint} {_SUPPORTED}"
        )
    pairs = read_labels(source, progress=progress)
    labels = encode_labels(
        pairs.labels, class_names=pairs.class_names, small_classes=small_classes, column="label"
    )
    positions = np.asarray(pairs.positions, np.int64)[labels.positions]
    info = _info(labels, id=name or pairs.name, split=None, revision=None, column=None)
    return ImageTask(info, labels.codes, labels.counts, positions, lambda position: source[position][0])


def _info(
    labels: Labels,
    *,
    id: str,
    split: str | None,
    revision: str | None,
    column: str | None,
    config: str | None = None,
) -> TaskInfo:
    return TaskInfo(
        id=id,
        n_samples=len(labels.positions),
        n_classes=len(labels.names),
        config=config,
        split=split,
        revision=revision,
        label_column=column,
        class_names=labels.names,
        multi_label=labels.multi_label,
    )


def _kind(source: object) -> str | None:
    datasets = sys.modules.get("datasets")  # whoever made one of its objects has imported it
    if isinstance(source, getattr(datasets, "Dataset", ())):
        return "table"
    return "stream" if isinstance(source, getattr(datasets, "IterableDataset", ())) else None


def _choose_split(splits: Mapping[str, object], split: str | None) -> tuple[object, str]:
    if not splits or not all(_kind(data) for data in splits.values()):
        raise DataError(f"A mapping must hold a data set per split. {_SUPPORTED}")
    listed = ", ".join(repr(name) for name in splits)
    if split is not None:
        if split not in splits:
            raise SplitError(f"There is no split {split!r}; there are {listed}. Name one with split=.")
        return splits[split], split
    if "train" in splits:
        return splits["train"], "train"
    if len(splits) == 1:
        return next((data, name) for name, data in splits.items())
    raise SplitError(f"Several splits, and none is named 'train': {listed}. Name one with split=.")


def _own_split(source: Any, split: str | None) -> str | None:
    own = str(source.split) if _kind(source) and source.split is not None else None
    if split is None or split == own:
        return own
    if own is None:
        raise SplitError(f"split={split!r} was given, but the data set has no splits. Leave split= out.")
    raise SplitError(
        f"The data set is the split {own!r}, not {split!r}. Pass the DatasetDict, or leave split= out."
    )


def _unlabelled_folder(table: Any, id: str) -> DataError:
    import datasets

    paths = table.cast_column("image", datasets.Image(decode=False))["image"]
    parents = sorted({Path(item["path"] or "").parent.name for item in paths})
    wanted = "Wanted one sub-folder of images per class, at one depth."
    if len(parents) == 1:
        return LabelError(
            f"All {len(table)} images of {id!r} lie in one folder, {parents[0]!r}; at least two "
            f"classes are wanted. {wanted}"
        )
    return ColumnError(f"The images of {id!r} have no labels: their folders lie at several depths. {wanted}")
