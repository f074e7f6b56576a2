"""Features of images without labels: against timm's own, and what is kept of them."""

import numpy as np
import PIL.Image
import pytest
import timm
import torch

from t2v_hub import Preprocessing, ProbeNetwork
from t2v_hub.errors import CacheWarning, DataError, ImageError, ProbeOutputError, SkippedImagesWarning
from t2v_hub.features import Checkpoint, PlainImages, network_features

SMALL = Preprocessing(size=(8, 8), resize=8)


@pytest.fixture(scope="module")
def expert(digits_pool):
    return digits_pool.experts["high-chalk"]


@pytest.fixture(scope="module")
def images(digits_pool):
    return list(digits_pool.train["image"])[:20]


@pytest.fixture
def network(expert):
    return Checkpoint(str(expert), library="timm").network()


def test_features_are_what_timm_makes_with_its_own_transform(expert, images, network):
    """A wrong mean or size would still give features, only worse ones."""
    model = timm.create_model(f"local-dir:{expert}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.no_grad():
        inputs = torch.stack([transform(image.convert("RGB")) for image in images])
        expected = model.forward_head(model.forward_features(inputs), pre_logits=True)

    actual = network_features(network, PlainImages.of(images), cache=False)

    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-5)


def test_an_image_has_the_same_features_alone(images, network):
    """A prediction must not hang on what else was asked for at the same time, not by a bit."""
    together = network_features(network, PlainImages.of(images), cache=False)
    alone = [network_features(network, PlainImages.of([image]), cache=False) for image in images[::5]]

    np.testing.assert_array_equal(np.concatenate(alone), together[::5])


def test_features_are_kept_by_what_makes_them(images, network, tmp_path, monkeypatch):
    """Searches over heads ask for the same ones again and again; another network must not get them."""
    first = network_features(network, PlainImages.of(images), cache=tmp_path)
    monkeypatch.setattr(ProbeNetwork, "features", None)  # whoever calls it fails

    again = network_features(network, PlainImages.of([image.copy() for image in images]), cache=tmp_path)

    np.testing.assert_array_equal(again, first)
    with pytest.raises(TypeError, match="not callable"):
        network_features(network, PlainImages.of(images[1:]), cache=tmp_path)
    with torch.no_grad():
        next(network.module.parameters()).mul_(2)
    monkeypatch.undo()
    other = ProbeNetwork(
        network.module, "other", head=network.head, preprocessing=network.preprocessing, owned=True
    )
    assert not np.array_equal(network_features(other, PlainImages.of(images), cache=tmp_path), first)


def test_damaged_features_are_measured_again(images, network, tmp_path):
    """A disk that filled up leaves half a file."""
    first = network_features(network, PlainImages.of(images), cache=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.warns(CacheWarning, match="measured again"):
        again = network_features(network, PlainImages.of(images), cache=tmp_path)

    np.testing.assert_array_equal(again, first)


def test_the_network_is_left_as_it_was(images, network):
    """It may be somebody's model in training."""
    network.module.train()
    before = {key: value.clone() for key, value in network.module.state_dict().items()}

    network_features(network, PlainImages.of(images), cache=False)

    assert network.module.training
    for key, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_features_that_are_not_finite_are_refused(images, network):
    """A head fitted on them would predict one class for all."""
    network.module.bn1.bias.data.fill_(float("nan"))

    with pytest.raises(ProbeOutputError, match="NaN or infinite features for 20 of 20 images"):
        network_features(network, PlainImages.of(images), cache=False)


def test_all_kinds_of_images_have_the_same_features(digits_pool, images, network, tmp_path):
    """Paths, arrays and PIL images of the same pixels are the same images."""
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in images])

    digests = {
        PlainImages.of(some).digest for some in (images, paths, list(map(str, paths)), arrays, arrays / 255)
    }

    assert len(digests) == 1


def test_an_image_that_cannot_be_decoded_is_named_by_its_place(images, tmp_path):
    """There is a prediction per image, so that none can be left out unless the caller says so."""
    broken = [*images[:19], b"no image"]

    with pytest.raises(
        ImageError, match="at most 0 of 20 may be left out. The first: image 19: cannot ident"
    ):
        PlainImages.of(broken)
    with pytest.warns(SkippedImagesWarning, match="1 of 20 images could not be decoded"):
        some = PlainImages.of(broken, max_skipped=0.05)
    assert some.kept.tolist() == list(range(19))
    assert len(some) == len(some.pixels(SMALL)) == 19


def test_what_is_no_image_is_refused(images):
    """Normalised tensors have lost what each network needs to normalise for itself."""
    with pytest.raises(DataError, match="values from -2 to -2; wanted 0 to 1"):
        PlainImages.of([np.full((8, 8, 3), -2.0)])
    with pytest.raises(ImageError, match="There is no image; wanted at least one"):
        PlainImages.of([])


def test_an_image_that_changed_meanwhile_is_named(images, tmp_path):
    """Files are read twice: for their content's name, and for the network."""
    path = tmp_path / "one.png"
    PIL.Image.new("RGB", (8, 8)).save(path)
    some = PlainImages.of([*images, path])
    path.write_bytes(b"")

    with pytest.raises(ImageError, match="Image 20 cannot be brought to 8 x 8 pixels"):
        some.pixels(SMALL)


def test_a_network_that_was_trained_meanwhile_has_features_of_its_own(images, network, tmp_path):
    """In a notebook the same object is trained, looked at, and trained again."""
    first = network_features(network, PlainImages.of(images), cache=tmp_path)
    with torch.no_grad():
        next(network.module.parameters()).mul_(2)

    again = network_features(network, PlainImages.of(images), cache=tmp_path)

    assert not np.array_equal(again, first)
