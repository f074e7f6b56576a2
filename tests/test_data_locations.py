"""Folders, Parquet files and Hub data sets are found by where they lie."""

import bz2
import gzip
import lzma
import re
import zlib
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from datasets import DatasetDict
from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors

from t2v_hub.data import load
from t2v_hub.errors import (
    ClassSizeError,
    ColumnError,
    DataError,
    DataNotFoundError,
    LabelError,
    SettingsError,
    SkippedImagesWarning,
    SplitError,
)
from tests.pictures import folder, reds, table


def test_a_folder_of_images(tmp_path):
    """One sub-folder per class is the oldest format there is."""
    task = load(folder(tmp_path / "pets", "cat", "dog"))
    sample = task.sample(8, seed=0)

    assert task.class_names == ("cat", "dog")
    assert task.info.id == "pets"
    assert task.info.split == "train"
    assert task.info.revision.startswith("fingerprint:")
    assert [value // 10 for value in reds(sample)] == sample.labels.tolist()


def test_a_folder_with_splits(tmp_path):
    """train/ and test/ above the classes are splits."""
    for split in ("train", "test"):
        folder(tmp_path / "pets" / split, "cat", "dog", n=3 if split == "test" else 5)

    assert load(str(tmp_path / "pets")).n_samples == 10
    assert load(str(tmp_path / "pets"), split="test").n_samples == 6


def test_damaged_files_in_a_folder_are_skipped(tmp_path):
    """A folder of thousands always holds some."""
    path = folder(tmp_path / "pets", "cat", "dog", n=15)
    (path / "cat" / "3.png").write_bytes(b"damaged")
    sample = load(path).sample(30, seed=0)

    with pytest.warns(SkippedImagesWarning, match="1 of 30 images"):
        assert len(reds(sample)) == 29


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: folder(path, "cat"), LabelError, r"All 4 images of 'pets' lie in one folder, 'cat'"),
        (
            lambda path: folder(path, "cat", "dog/small"),
            ColumnError,
            r"'pets' have no labels: their folders lie at several",
        ),
        (lambda path: path.mkdir(), DataNotFoundError, r"pets' holds no images; wanted one sub-folder"),
        (lambda path: folder(path, "cat", "dog", n=1), ClassSizeError, r"2 of 2 classes"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, make, error, message):
    """The message says how the folder should look."""
    make(tmp_path / "pets")

    with pytest.raises(error, match=message):
        load(tmp_path / "pets")


def test_a_parquet_file_is_known_by_its_content(tmp_path):
    """A copy with another date elsewhere is the same data; other bytes are not."""
    for name, n in (("a", 12), ("b", 12), ("c", 14)):
        table(n).to_parquet(tmp_path / f"{name}.parquet")
    tasks = [load(str(tmp_path / f"{name}.parquet")) for name in "abc"]

    assert [task.info.id for task in tasks] == ["a", "b", "c"]
    assert tasks[0].class_names == ("cat", "dog")
    assert tasks[0].info.revision == tasks[1].info.revision != tasks[2].info.revision
    assert tasks[0].info.revision.startswith("sha256:")
    assert reds(tasks[0].sample(12, seed=0)) == tasks[0].sample(12, seed=0).positions.tolist()


def test_a_folder_of_parquet_files(tmp_path):
    """As the Hub stores them, with the split in the file's name."""
    path = tmp_path / "pets"
    path.mkdir()
    table(12).to_parquet(path / "train-00000-of-00001.parquet")
    table(8).to_parquet(path / "test-00000-of-00001.parquet")

    assert load(path).n_samples == 12
    assert load(path, split="test").n_samples == 8
    assert load(path, split="train[:6]").info.split == "train[:6]"
    assert load(path, split="train[:6]").n_samples == 6


def test_a_split_of_another_name_than_the_data_set(tmp_path):
    """Whoever passes the training split and asks for the test split should be told."""
    table().to_parquet(tmp_path / "a.parquet")
    data = datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train")

    assert load(data, split=datasets.Split.TRAIN).info.split == "train"
    with pytest.raises(SplitError, match=r"is the split 'train', not 'test'. Pass the DatasetDict"):
        load(data, split="test")
    with pytest.raises(SplitError, match=r"is the split 'train', not 'train\[:5\]'"):
        load(data, split="train[:5]")


def test_a_revision_of_a_path_has_no_meaning(tmp_path):
    """It would look as if that revision had been measured."""
    with pytest.raises(SettingsError, match=r"is a path; revision=, config= and"):
        load(folder(tmp_path / "pets", "a", "b"), revision="v1")


def test_a_saved_data_set(tmp_path):
    """`save_to_disk` is how people keep what they filtered."""
    table().save_to_disk(tmp_path / "pets")

    assert load(tmp_path / "pets").n_samples == 12


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        ("./nowhere", DataNotFoundError, r"no file or folder '\./nowhere'.*'owner/name'"),
        ("a/b/c", DataNotFoundError, r"no file or folder 'a/b/c'"),
        ("gone.parquet", DataNotFoundError, r"no file or folder 'gone\.parquet'"),
        (Path("owner/name"), DataNotFoundError, r"no file or folder 'owner/name'"),
        ("notes.txt", DataError, r"notes\.txt' is no Parquet file; wanted a folder"),
        ("bad.parquet", DataError, r"bad\.parquet' cannot be read as a data set.*whole"),
    ],
)
def test_paths_that_are_no_data_set(tmp_path, monkeypatch, location, error, message):
    """A mistyped path must not become a request to the Hub where it cannot be an id."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    Path("bad.parquet").write_bytes(b"garbage")

    with pytest.raises(error, match=message):
        load(location)


RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            hub_errors.RepositoryNotFoundError("404", response=RESPONSE),
            r"'owner/pets' is neither a path here nor a data set.*log in",
        ),
        (hub_errors.GatedRepoError("403", response=RESPONSE), r"'owner/pets' is gated. Accept its terms"),
        (hub_errors.RevisionNotFoundError("404", response=RESPONSE), r"'owner/pets' has no revision 'v9'"),
        (
            hub_errors.HfHubHTTPError("500 Server Error", response=RESPONSE),
            r"Hub cannot be reached.*500 Server Error.*HF_HUB_OFFLINE=1",
        ),
        (hub_errors.HFValidationError("bad id"), r"neither a path here nor"),
    ],
)
def test_hub_data_sets_that_cannot_be_had(monkeypatch, failure, message):
    """The four reasons have four remedies."""

    def fails(self, id, revision=None):
        raise failure

    monkeypatch.setattr(HfApi, "dataset_info", fails)

    with pytest.raises(DataNotFoundError, match=message) as caught:
        load("owner/pets", revision="v9")
    assert caught.value.__cause__ is failure


def test_an_unreachable_hub_says_how_to_go_on(monkeypatch):
    """The HTTP library's own error would name a socket and no remedy."""
    http_error = hub_errors.HfHubHTTPError.__bases__[0]

    def fails(self, id, revision=None):
        raise http_error("[Errno 111] Connection refused")

    monkeypatch.setattr(HfApi, "dataset_info", fails)
    with pytest.raises(
        DataNotFoundError, match=r"Hub cannot be reached .*Connection refused.*HF_HUB_OFFLINE=1"
    ):
        load("owner/pets")


def test_offline_mode_uses_what_was_downloaded(monkeypatch):
    """Clusters download first and compute without a network."""
    asked = []

    def offline(self, id, revision=None):
        raise hub_errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(HfApi, "dataset_info", offline)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or table()
    )
    task = load("owner/pets")

    assert task.info.id == "owner/pets"
    assert task.info.revision.startswith("fingerprint:")
    assert asked == [(("owner/pets",), {"name": None, "revision": None, "split": None, "streaming": False})]


def test_offline_mode_without_a_copy(monkeypatch):
    """The message names the variable that forbids the download."""

    def offline(self, id, revision=None):
        raise hub_errors.OfflineModeIsEnabled("offline")

    def absent(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'owner/pets' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(HfApi, "dataset_info", offline)
    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(DataNotFoundError, match=r"not downloaded before, and HF_HUB_OFFLINE forbids"):
        load("owner/pets")


def test_a_hub_data_set_is_loaded_at_the_commit_that_is_recorded(monkeypatch):
    """A branch may move between looking and loading."""
    asked = {}

    def loads(id, **options):
        asked.update(options, id=id)
        return DatasetDict(train=table())

    monkeypatch.setattr(HfApi, "dataset_info", lambda self, id, revision=None: SimpleNamespace(sha="abc123"))
    monkeypatch.setattr(datasets, "load_dataset", loads)
    task = load("owner/pets", revision="main", config="small")

    assert asked == {
        "id": "owner/pets", "name": "small", "revision": "abc123", "split": None, "streaming": False
    }  # fmt: skip
    assert task.info.revision == "abc123"
    assert task.info.config == "small"


def test_a_hub_data_set_that_does_not_load(monkeypatch):
    """Several configurations are the usual reason."""

    def fails(id, **options):
        raise ValueError("Config name is missing.")

    monkeypatch.setattr(HfApi, "dataset_info", lambda self, id, revision=None: SimpleNamespace(sha="abc123"))
    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(
        DataError, match=r"'owner/pets' on the Hub cannot be loaded: Config name is missing\. Set config="
    ):
        load("owner/pets")


LINES = b"".join(b'{"image": "%d.png", "label": %d}\n' % (i, i % 2) for i in range(4000))


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(255 - x for x in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("train.zip", b"garbage" * 100, "BadZipFile: File is not a zip file"),
        ("train.tar", b"garbage" * 1000, "ReadError: "),
        ("train.jsonl.gz", gzip.compress(LINES)[:-1000], "EOFError: Compressed file ended"),
        ("train.jsonl.xz", lzma.compress(LINES)[:-100], "EOFError: Compressed file ended"),
        ("train.jsonl.xz", damaged(lzma.compress(LINES)), "LZMAError: Corrupt input data"),
        ("train.jsonl.gz", damaged(gzip.compress(LINES)), "error|BadGzipFile"),
        ("train.jsonl.bz2", bz2.compress(LINES)[:-500], "EOFError: "),
        ("train.h5", b"\x89HDF" + b"garbage" * 9, "ModuleNotFoundError: No module named 'h5py'|OSError"),
        ("train.parquet", b"garbage" * 9, "ArrowInvalid: "),
        ("README.md", b"---\nconfigs: [a: {\n---\n", "ParserError: "),
        ("README.md", b"---\ndataset_info:\n  features: [7]\n---\n", "AttributeError: "),
    ],
)
def test_damaged_files_of_strangers_are_an_error_of_ours(tmp_path, monkeypatch, name, content, cause):
    """What `datasets` raises then is that of the module that met it; a bulk run must not end with a trace."""
    (tmp_path / name).write_bytes(content)
    if name == "README.md":
        (tmp_path / "train.jsonl").write_bytes(LINES)
    real = datasets.load_dataset
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, id, revision=None: SimpleNamespace(sha="abc123"))
    monkeypatch.setattr(
        datasets, "load_dataset", lambda id, **options: real(str(tmp_path), split="train", streaming=True)
    )

    with pytest.raises(DataError) as caught:
        load("owner/pets", streaming=True)
    found = f"{type(caught.value.__cause__).__name__}: {caught.value.__cause__}"
    assert re.match(cause, found), found


@pytest.mark.parametrize("step", ["shuffle", "features", "cast_column"])
@pytest.mark.parametrize("failure", [zlib.error("invalid stored block lengths"), AssertionError()])
def test_a_stream_fails_at_any_step_with_an_error_of_ours(monkeypatch, step, failure):
    """Columns of a stream may be looked up in its files, and shuffling one opens them."""

    def fails(self, *arguments, **options):
        raise failure

    stream = table().to_iterable_dataset()
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, id, revision=None: SimpleNamespace(sha="abc123"))
    monkeypatch.setattr(datasets, "load_dataset", lambda id, **options: stream)
    if step == "features":
        fails = property(fails)
    monkeypatch.setattr(datasets.IterableDataset, step, fails)

    with pytest.raises(DataError, match=f"broke off after 0 images: {str(failure) or 'AssertionError'}"):
        load("owner/pets", streaming=True)
