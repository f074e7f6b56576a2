"""`load` takes labelled images as they come."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List

from t2v_hub.data import load
from t2v_hub.errors import (
    DataError,
    LabelError,
    SettingsError,
    SplitError,
)
from tests.pictures import Pairs, folder, picture, reds, table


def test_a_dataset_is_read_without_decoding(monkeypatch):
    """Labels of a million images must not cost a million decodings."""
    monkeypatch.setattr(Image, "decode_example", lambda *_, **__: pytest.fail("an image was decoded"))
    task = load(table())

    assert task.info.n_samples == 12
    assert task.class_names == ("cat", "dog")
    assert task.info.label_column == "label"
    assert task.info.revision.startswith("fingerprint:")
    assert len(task.sample(6, seed=0)) == 6


def test_images_and_labels_stay_together():
    """Through a selection and a transform, which may change what rows look like."""
    data = table(20).select([9, 3, 4, 6, 1, 0]).with_transform(lambda rows: {"nothing": rows["label"]})
    sample = load(data).sample(6, seed=0)

    values = reds(sample)
    assert sorted(values) == [0, 1, 3, 4, 6, 9]
    assert [value % 2 for value in values] == sample.labels.tolist()


def test_formats_do_not_matter():
    """Whoever trained with it has set it to torch."""
    sample = load(table().with_format("torch")).sample(12, seed=0)

    assert reds(sample) == sample.positions.tolist()


def test_other_content_is_another_revision():
    """The revision keys the cache."""
    assert load(table(12)).info.revision != load(table(14)).info.revision
    assert load(table(12)).info.revision == load(table(12)).info.revision


def test_the_key_names_images_and_labels():
    """Caches are found by it; whatever changes what is measured must change it, and nothing else."""
    data = table(12).add_column("other", [0, 0, 1] * 4).add_column("second", [b""] * 12)
    data = data.cast_column("second", Image())
    first = {"image_column": "image", "label_column": "label"}
    options = [first, {**first, "label_column": "other"}, {**first, "image_column": "second"}]
    keys = {load(data, **these).key for these in options}

    assert len(keys) == 3
    assert load(data, name="mine", **first).key in keys
    assert load(data.select(range(8)), **first).key not in keys
    assert load([(picture(i), i % 2) for i in range(4)]).key is None


def test_several_labels_per_image():
    """Lists of classes become one yes or no per class."""
    features = Features({"image": Image(), "tags": List(ClassLabel(names=["x", "y", "z"]))})
    data = Dataset.from_dict(
        {"image": [picture(i) for i in range(4)], "tags": [[0], [0, 2], [2], []]}, features=features
    )
    task = load(data)

    assert task.info.multi_label
    assert task.class_names == ("x", "z")
    assert task.labels.tolist() == [[True, False], [True, True], [False, True], [False, False]]


def test_images_may_be_paths(tmp_path):
    """A column of paths is opened image by image."""
    paths = [str(path) for path in sorted(folder(tmp_path / "f", "a", "b").rglob("*.png"))]
    sample = load(Dataset.from_dict({"image": paths, "label": list("aaaabbbb")})).sample(8, seed=0)

    assert sorted(reds(sample)) == [0, 1, 2, 3, 10, 11, 12, 13]


def test_the_train_split_is_meant_where_none_is_named():
    """As everywhere in the ecosystem."""
    splits = DatasetDict(train=table(12), test=table(8))

    assert (load(splits).info.split, load(splits).n_samples) == ("train", 12)
    assert (load(splits, split="test").info.split, load(splits, split="test").n_samples) == ("test", 8)
    assert load({"all": table(6)}).info.split == "all"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (
            DatasetDict(a=table(), b=table()),
            {},
            r"Several splits, and none is named 'train': 'a', 'b'.*split=",
        ),
        (DatasetDict(a=table(), b=table()), {"split": "c"}, r"no split 'c'; there are 'a', 'b'"),
        (DatasetDict(a=table()), {"split": "a[:3]"}, r"no split 'a\[:3\]'; there are 'a'"),
        (table(), {"split": "train"}, r"split='train' was given, but the data set has no splits"),
        (
            Pairs([(picture(0), 0)]),
            {"split": "train"},
            r"split='train' was given, but the data set has no splits",
        ),
    ],
)
def test_splits_that_are_not_there(source, options, message):
    """The message lists those that are."""
    with pytest.raises(SplitError, match=message):
        load(source, **options)


def test_the_repository_is_known_from_the_cache():
    """`dataset_name` has no namespace, but the folder of the cache has."""
    data = table()
    cached = SimpleNamespace(
        cache_files=[
            {"filename": "/home/me/.cache/AI-Lab-Makerere___beans/default/0.0.0/abc/beans-train.arrow"}
        ]
    )
    from t2v_hub.data.provenance import id_of

    assert id_of(cached) == "AI-Lab-Makerere/beans"
    assert load(data).info.id == "unnamed"
    assert load(data, name="mine").info.id == "mine"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Pairs([(torch.full((3, 4, 4), -2.0), 0)] * 2), DataError, r"drop Normalize"),
        (
            [{"image": 1, "label": 2}],
            DataError,
            r"Item 0 is a mapping of \['image', 'label'\]; wanted a pair",
        ),
        ([picture(0), picture(1)], DataError, r"Item 0 is Image; wanted a pair"),
        (["ab", "cd"], DataError, r"Item 0 is str; wanted a pair"),
        ([], DataError, r"no images"),
        (7, DataError, r"int is no data set.*Give a datasets\.Dataset"),
        (torch.utils.data.DataLoader([(0, 1)]), DataError, r"DataLoader is no data set .*Pass its \.dataset"),
        ({"train": [1]}, DataError, r"A mapping must hold a data set per split"),
        (Pairs([(picture(0), 0.5)] * 2), LabelError, r"not whole, such as 0\.5"),
    ],
    ids=str.split("normalised mapping single string empty number loader dict regression"),
)
def test_what_is_no_data_set(source, error, message):
    """The message says what would be one."""
    with pytest.raises(error, match=message):
        load(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "label"}, r"mean something only for data with columns"),
        ({"revision": "main"}, r"only for the id of a data set on the Hub"),
        ({"small_classes": "ignore"}, r'small_classes must be "error", "keep" or "drop"; got \'ignore\''),
        ({"seed": -1}, r"seed must be"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    """An option that is silently ignored looks as if it had worked."""
    with pytest.raises(SettingsError, match=message):
        load(Pairs([(picture(i), i % 2) for i in range(4)]), **options)


def test_a_task_is_returned_as_it_is():
    """Callers need not ask what they were given."""
    task = load(table())

    assert load(task) is task


def test_importing_the_room_imports_neither_torch_nor_datasets():
    """Ranking from stored embeddings must start at once."""
    code = "import sys, t2v_hub.data; print([m for m in ('torch', 'datasets') if m in sys.modules])"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.kit
def test_real_images_load_and_decode(kit):
    """Photographs of the kit: JPEG of many sizes, classes of unequal size."""
    task = load(kit / "data" / "caltech101" / "birds.parquet")
    sample = task.sample(60, seed=0)
    decoded = sample.decode(lambda image: np.asarray(image.resize((32, 32))).transpose(2, 0, 1))

    assert task.n_samples == 294
    assert task.class_names == ("emu", "flamingo", "ibis", "pigeon", "rooster")
    assert np.bincount(decoded.labels).sum() == 60
    assert 60 < decoded.images.mean() < 200
