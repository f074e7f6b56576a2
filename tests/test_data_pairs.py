"""Torch data sets and other pairs of image and label."""

import pytest
import torch
import torchvision

from t2v_hub.data import load
from t2v_hub.errors import (
    ImageError,
    SkippedImagesWarning,
)
from tests.pictures import Pairs, picture, reds


@pytest.mark.parametrize("as_tensor", [False, True])
def test_pairs_by_position(as_tensor):
    """The plainest torch data set; a list of pairs is one too."""
    items = [(picture(i), i % 2 + 5) for i in range(8)]
    if as_tensor:
        items = [
            (torchvision.transforms.functional.to_tensor(image), torch.tensor(label))
            for image, label in items
        ]
    task = load(Pairs(items))
    sample = task.sample(8, seed=0)

    assert task.class_names == ("5", "6")
    assert task.info.id == "Pairs"
    assert task.info.revision is None
    assert reds(sample) == sample.positions.tolist()
    assert load(items, name="list").class_names == ("5", "6")


class Stored(torchvision.datasets.VisionDataset):
    """A data set as torchvision's own: labels beside the images."""

    classes = ("cat", "dog")

    def __init__(self, n=64, **transforms):
        super().__init__("", **transforms)
        self.targets = [i % 2 for i in range(n)]
        self.n_read = 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        self.n_read += 1
        image, label = picture(i), self.targets[i]
        return self.transforms(image, label) if self.transforms is not None else (image, label)


def test_stored_labels_are_used():
    """Reading a million images for labels that lie beside them would take hours."""
    data = Stored(200)
    task = load(data)

    assert task.class_names == ("cat", "dog")
    assert data.n_read <= 32


@pytest.mark.parametrize(
    "options",
    [{"target_transform": lambda label: 7 - label}, {"transforms": lambda image, label: (image, 7 - label)}],
    ids=["target_transform", "transforms"],
)
def test_stored_labels_are_not_used_where_something_changes_them(options):
    """What a training loop would see is what counts."""
    task = load(Stored(10, **options))

    assert task.class_names == ("6", "7")


def test_stored_labels_are_not_used_where_items_disagree():
    """A subclass may change labels on the way out."""

    class Changed(Stored):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image, 9 if i == 0 else label

    assert load(Changed(40), small_classes="keep").class_names == ("0", "1", "9")


def test_subsets_keep_their_own_positions():
    """The reference implementation fails on them."""
    data = Stored(40)
    part = torch.utils.data.Subset(torch.utils.data.Subset(data, range(10, 30)), [3, 0, 8, 5])
    task = load(part)
    sample = task.sample(4, seed=0)

    assert task.info.n_samples == 4
    assert task.class_names == ("cat", "dog")
    assert sorted(reds(sample)) == [10, 13, 15, 18]
    assert [value % 2 for value in reds(sample)] == sample.labels.tolist()


def test_subsets_of_plain_data_sets():
    """Without stored labels each item of the subset, and no other, is read."""
    data = Pairs([(picture(i), i % 2) for i in range(40)])

    assert load(torch.utils.data.Subset(data, range(6))).n_samples == 6
    assert data.n_read == 6


def test_items_that_cannot_be_read_are_skipped():
    """The label of a damaged item is not known, so the item is left out of the task."""
    items = [(picture(i), i % 2) for i in range(40)]
    items[7] = (OSError("damaged"), 1)
    with pytest.warns(SkippedImagesWarning, match="1 of 40 .*image 7: damaged"):
        task = load(Pairs(items))

    assert task.n_samples == 39
    assert 7 not in task.positions
    with pytest.raises(ImageError, match=r"Too many .*image 0: damaged"):
        load(Pairs([(OSError("damaged"), 0)] * 5))
