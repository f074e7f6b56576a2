"""Features of checkpoints: what they are, that they are kept, and what becomes of damage."""

import json

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from checkpoints import broken, digits, save_checkpoint, save_headless
from transformers import AutoModelForImageClassification

from t2v_hub.data import load
from t2v_hub.errors import (
    CacheWarning,
    CheckpointError,
    ImageError,
    LabelError,
    ProbeOutputError,
    SettingsError,
    SkippedImagesWarning,
)
from t2v_hub.features import Checkpoint, FeatureReader, Features, FeatureStore, ScoredImages, reader
from t2v_hub.features.store import feature_key
from t2v_hub.probe import Preprocessing

HALF = Preprocessing(size=(32, 32), resize=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    made = {library: save_checkpoint(root / library, library, seed=1) for library in ("timm", "transformers")}
    made |= {f"bare {library}": save_headless(root / f"bare-{library}", library) for library in tuple(made)}
    return made


@pytest.fixture(scope="module")
def images():
    return ScoredImages.of(load(digits(8), progress=False), max_images=30, progress=False)


@pytest.fixture
def read(images, tmp_path):
    """Reads a folder's features with a store of its own."""
    own = FeatureReader(images, FeatureStore(tmp_path / "features"), device="cpu", progress=False)
    return lambda folder, **options: own.read(Checkpoint(str(folder), **options))


@pytest.fixture
def no_loading(monkeypatch):
    """Loading a network is an error of the test."""

    def load_network(files):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(reader, "load_network", load_network)


def normalised(images):
    pixels = torch.from_numpy(images.pixels(HALF)).float()
    return (pixels / 255 - 0.5) / 0.5


# Images


def test_the_images_are_a_stratified_draw(images):
    """The same for every checkpoint, and no more than asked for."""
    assert len(images) == 30
    assert np.bincount(images.labels).tolist() == [6] * 5
    assert images.pixels(HALF).shape == (30, 3, 32, 32)
    assert images.pixels(HALF) is images.pixels(HALF)


def test_two_images_of_each_class_are_drawn_at_least():
    """A class of one image is always missed, leave-one-out."""
    images = ScoredImages.of(load(digits(8), progress=False), max_images=2, progress=False)

    assert np.bincount(images.labels).tolist() == [2] * 5


def test_the_digest_is_that_of_the_pixels():
    """Whatever the data set is called, and however it is stored."""
    table = digits(3)
    others = [(image, label) for image, label in zip(table["image"], table["label"], strict=True)]
    changed = [(PIL.Image.eval(others[0][0], lambda value: value ^ 1), others[0][1]), *others[1:]]
    one, same, other = (
        ScoredImages.of(load(data, progress=False), max_images=15, progress=False)
        for data in (table, others, changed)
    )

    assert one.digest == same.digest
    assert one.digest != other.digest


def test_images_that_cannot_be_decoded_are_left_out_for_all():
    """Else differences image by image would pair different images."""
    table = digits(8)
    pairs = [(image, label) for image, label in zip(table["image"], table["label"], strict=True)]
    pairs[11] = (b"no image", pairs[11][1])

    with pytest.warns(SkippedImagesWarning, match="1 of 40 images could not be decoded"):
        images = ScoredImages.of(load(pairs, progress=False), max_images=40, progress=False)

    assert (len(images), images.n_skipped) == (39, 1)
    assert 11 not in images.sample.positions
    expected = [np.asarray(pairs[i][0].convert("RGB")) for i in images.sample.positions]
    assert images.pixels(HALF).transpose(0, 2, 3, 1).tolist() == np.stack(expected).tolist()
    assert images.labels.tolist() == [pairs[i][1] for i in images.sample.positions]


def test_an_image_that_one_recipe_cannot_take_fails_that_checkpoint(images, monkeypatch):
    """The others keep all images."""

    def prepare(self, image):
        raise ValueError("too narrow")

    monkeypatch.setattr(Preprocessing, "prepare", prepare)
    with pytest.raises(
        ImageError, match="that others can take cannot be prepared .* needs 8 x 9 pixels: .*too narrow"
    ):
        images.pixels(Preprocessing(size=(8, 9), resize=9))


def test_several_labels_per_image_are_refused():
    """No score knows them."""
    from datasets import Dataset, Features, Image, Sequence, Value

    rows = {
        "image": [PIL.Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(4)],
        "label": [[0], [1], [0, 1], [1]],
    }
    table = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Sequence(Value("int64"))}))

    with pytest.raises(LabelError, match="need one label per image, .* leave refine= and budget_s= out"):
        ScoredImages.of(load(table, progress=False), max_images=4, progress=False)


# Features


def test_features_and_predictions_of_timm_are_timms_own(folders, images, read):
    """By timm's own forward pass in two halves."""
    config = json.loads((folders["timm"] / "config.json").read_text())
    model = timm.create_model("resnet18", **config["model_args"]).eval()
    timm.models.load_checkpoint(model, str(folders["timm"] / "model.safetensors"))
    with torch.no_grad():
        maps = model.forward_features(normalised(images))
        expected = model.forward_head(maps, pre_logits=True)
        predictions = model.forward_head(maps).softmax(dim=1)

    found = read(folders["timm"])

    assert found.features.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found.features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(found.predictions), predictions, rtol=1e-4, atol=1e-5)


def test_features_and_predictions_of_transformers_are_its_own(folders, images, read):
    """By its own outputs."""
    model = AutoModelForImageClassification.from_pretrained(folders["transformers"])
    with torch.no_grad():
        expected = model.resnet(normalised(images)).pooler_output.flatten(1)
        predictions = model(normalised(images)).logits.softmax(dim=1)

    found = read(folders["transformers"])

    torch.testing.assert_close(torch.from_numpy(found.features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(found.predictions), predictions, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bare timm", "bare transformers"])
def test_a_checkpoint_without_a_head_has_no_predictions(folders, read, name):
    """Transformers adds a random head, whose predictions would say nothing of the checkpoint."""
    found = read(folders[name])

    assert found.predictions is None
    assert found.features.shape == (30, 48)


def test_features_are_kept(folders, read, monkeypatch, request):
    """A second ranking loads nothing; rounding is that of the file in both."""
    first = read(folders["timm"])
    request.getfixturevalue("no_loading")

    again = read(folders["timm"])

    assert again.features.tobytes() == first.features.tobytes()
    assert again.predictions.tobytes() == first.predictions.tobytes()


def test_other_weights_are_measured_anew(folders, read, tmp_path):
    """A folder's name says nothing of what is in it."""
    folder = save_checkpoint(tmp_path / "net", seed=5)
    before = read(folder)
    save_checkpoint(folder, seed=6)

    assert np.abs(read(folder).features - before.features).max() > 0.01


def test_keys_hang_on_checkpoint_images_and_code(monkeypatch):
    """Each alone makes another key."""
    key = feature_key({"files": "a"}, "sha256:1")
    keys = {key, feature_key({"files": "b"}, "sha256:1"), feature_key({"files": "a"}, "sha256:2")}
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")

    assert len(keys | {feature_key({"files": "a"}, "sha256:1")}) == 4
    assert len(key) == 32


def damaged(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-100])
    elif how == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "rows":
        FeatureStore(path.parent).save(path.stem, Features(np.ones((7, 4), np.float32)))
    elif how == "not finite":
        FeatureStore(path.parent).save(path.stem, Features(np.full((30, 48), np.nan, np.float32)))
    elif how == "type":
        FeatureStore(path.parent).save(path.stem, Features(np.ones((30, 48), np.float64)))
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "no whole safetensors file"),
        ("flipped", "the checksum differs"),
        ("rows", "wanted rows of finite float32 numbers for 30 images"),
        ("not finite", "wanted rows of finite float32"),
        ("type", "wanted rows of finite float32"),
    ],
)
def test_a_damaged_file_is_measured_again(folders, read, tmp_path, how, words):
    """Scores of damaged features would order candidates at random."""
    first = read(folders["timm"])
    [path] = (tmp_path / "features").iterdir()
    damaged(path, how)

    with pytest.warns(CacheWarning, match=f"{words}.* It is measured again now"):
        again = read(folders["timm"])

    assert again.features.tobytes() == first.features.tobytes()
    assert read(folders["timm"]).features.tobytes() == first.features.tobytes()


def test_features_that_cannot_be_kept_are_still_there(folders, images, tmp_path):
    """A full disk costs the next ranking time, not this one its result."""
    (tmp_path / "file").write_text("in the way")
    own = FeatureReader(images, FeatureStore(tmp_path / "file"), device="cpu", progress=False)

    with pytest.warns(CacheWarning, match="Features are not kept: Cannot write"):
        found = own.read(Checkpoint(str(folders["timm"])))

    assert found.features.shape == (30, 48)


def test_without_a_folder_nothing_is_kept(folders, images, tmp_path, monkeypatch):
    monkeypatch.setenv("T2V_HOME", str(tmp_path))

    FeatureReader(images, FeatureStore(None), device="cpu", progress=False).read(
        Checkpoint(str(folders["timm"]))
    )

    assert list(tmp_path.iterdir()) == []


def test_the_network_is_not_trained_and_not_left_with_hooks(folders, images, monkeypatch):
    """Running statistics that moved with the batch would make features hang on the order."""
    loaded = []
    real = reader.load_network
    monkeypatch.setattr(reader, "load_network", lambda files: loaded.append(real(files)) or loaded[-1])

    FeatureReader(images, FeatureStore(None), device="cpu", progress=False).read(
        Checkpoint(str(folders["timm"]))
    )

    fresh = real(Checkpoint(str(folders["timm"])).files()).module
    module = loaded[0].module
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key


# What does not load


def test_what_does_not_load_is_one_error(folders, read, tmp_path):
    """Whatever is wrong: the caller skips the candidate and says why."""
    with pytest.raises(CheckpointError, match=r"Cannot load checkpoint '.*nan': .*NaN or infinite"):
        read(broken(save_checkpoint(tmp_path / "nan")))
    with pytest.raises(CheckpointError, match=r"Cannot load checkpoint '.*empty': There is no 'config.json'"):
        (tmp_path / "empty").mkdir()
        read(tmp_path / "empty")
    with pytest.raises(
        CheckpointError, match=r"is a timm checkpoint, not one of transformers as its cand.* Correct"
    ):
        read(folders["timm"], library="transformers")
    with pytest.raises(CheckpointError, match="Cannot load checkpoint 'org/net': .*did not answer"):
        read("org/net")


def test_features_that_are_not_finite_are_an_error(read, tmp_path, monkeypatch):
    """Finite weights may still overflow."""
    from safetensors.torch import load_file, save_file

    folder = save_checkpoint(tmp_path / "huge")
    state = load_file(folder / "model.safetensors")
    state["fc.weight"] *= 1e38
    state["fc.weight"][:, :] = 3e38
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        ProbeOutputError, match=r"gives NaN or infinite predictions for \d+ of 30 images. Check"
    ):
        read(folder)
    assert not (tmp_path / "features").exists()


def test_a_device_that_is_none_is_named(images):
    """Before any checkpoint is fetched."""
    with pytest.raises(SettingsError, match="device='abacus' is none that torch knows. Pass 'cpu'"):
        FeatureReader(images, FeatureStore(None), device="abacus")


def test_a_token_is_not_shown():
    """Errors and logs print what they are given."""
    assert "hf_secret" not in repr(Checkpoint("org/a", token="hf_secret"))
