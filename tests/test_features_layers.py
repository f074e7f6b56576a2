"""Features of all layers: against hooks on the networks, what is kept of them, and what has none."""

import numpy as np
import pytest
import timm
import torch
from checkpoints import digits, save_checkpoint, save_headless
from torch import nn
from transformers import HieraConfig, HieraForImageClassification, ViTConfig, ViTForImageClassification

from t2v_hub.data import load
from t2v_hub.demo.networks import seeded
from t2v_hub.errors import ProbeOutputError, SettingsError
from t2v_hub.features import Checkpoint, FeatureReader, FeatureStore, ScoredImages, reader
from t2v_hub.features.store import feature_key
from t2v_hub.probe import Preprocessing
from t2v_hub.probe.files import find_model
from t2v_hub.probe.loading import LoadedNetwork, load_network
from t2v_hub.probe.stages import Stages

HALF = Preprocessing(size=(32, 32), resize=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def save_timm_vit(folder):
    """Two blocks of width 24, patches of 8 pixels."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with seeded(3):
        network = timm.create_model("vit_tiny_patch16_224", num_classes=4, **arguments)
    network.pretrained_cfg = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 4,
        "input_size": (3, 32, 32),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "classifier": "head",
    }
    timm.models.save_for_hf(network, str(folder), model_args=arguments, safe_serialization=True)
    return folder


def save_transformers_vit(folder):
    """The same, of transformers."""
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=4,
    )
    with seeded(4):
        ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    made = {
        "timm": save_checkpoint(root / "timm", "timm", seed=1),
        "transformers": save_checkpoint(root / "transformers", "transformers", seed=2),
        "timm vit": save_timm_vit(root / "timm-vit"),
        "transformers vit": save_transformers_vit(root / "transformers-vit"),
    }
    return made | {
        f"bare {library}": save_headless(root / f"bare-{library}", library, seed=5)
        for library in ("timm", "transformers")
    }


@pytest.fixture(scope="module")
def images():
    return ScoredImages.of(load(digits(8), progress=False), max_images=30, progress=False)


def reading(images, folder=None, features="layers"):
    return FeatureReader(images, FeatureStore(folder), device="cpu", progress=False, features=features)


def by_hand(folder, images, modules, head):
    """Each module's output and the head's input, from hooks of our own, as float64 ``(n, …)``."""
    loaded = load_network(find_model(str(folder)))
    network, found = loaded.module, {}
    for name in modules:

        def note(_, __, output, name=name):
            output = output[0] if isinstance(output, tuple) else output
            found[name] = output.double().numpy().copy()

        network.get_submodule(name).register_forward_hook(note)
    network.get_submodule(head).register_forward_pre_hook(
        lambda _, inputs: found.update(head=inputs[0].double().flatten(1).numpy())
    )
    with torch.no_grad():
        network(loaded.preprocessing.normalise(torch.from_numpy(images.pixels(loaded.preprocessing))))
    return [found[name] for name in modules], found["head"]


def side_by_side(layers):
    """Every layer centred, and divided so that its variances sum to one part in as many as there are."""
    columns = []
    for rows in layers:
        rows = rows - rows.mean(axis=0)
        columns.append(rows / np.sqrt(len(layers) * np.trace(np.cov(rows.T, bias=True))))
    return np.hstack(columns)


RESNETS = {
    "timm": (["act1", *(f"layer{i}" for i in range(1, 5))], "fc"),
    "transformers": (
        ["resnet.embedder", *(f"resnet.encoder.stages.{i}" for i in range(4))],
        "classifier.1",
    ),
}


@pytest.mark.parametrize("name", RESNETS)
def test_stages_of_a_convolutional_network_stand_beside_each_other(folders, images, name):
    """Stem and four stages; the mean of the last one is the input of the head, and stands once."""
    maps, head = by_hand(folders[name], images, *RESNETS[name])
    means = [values.mean(axis=(2, 3)) for values in maps]

    found = reading(images).read(Checkpoint(str(folders[name])))

    np.testing.assert_allclose(means[-1], head, rtol=1e-5, atol=1e-6)
    assert [mean.shape[1] for mean in means[1:]] == [16, 24, 32, 48]
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(found.features, side_by_side([*means[:-1], head]), rtol=1e-3, atol=1e-5)
    last = reading(images, features="last").read(Checkpoint(str(folders[name])))
    assert found.predictions.tobytes() == last.predictions.tobytes()


def test_blocks_of_timms_transformer_are_averaged_over_its_patches(folders, images):
    """Its class token, normalised, is what the head sees, and stands beside them."""
    maps, head = by_hand(folders["timm vit"], images, ["blocks.0", "blocks.1"], "head")
    means = [values[:, 1:].mean(axis=1) for values in maps]

    found = reading(images).read(Checkpoint(str(folders["timm vit"])))

    assert found.features.shape == (30, 3 * 24)
    np.testing.assert_allclose(found.features, side_by_side([*means, head]), rtol=1e-3, atol=1e-5)


def test_blocks_of_transformers_own_are_averaged_over_all_tokens(folders, images):
    """Beginning with the embedded patches."""
    names = [
        name
        for name, _ in ViTForImageClassification.from_pretrained(folders["transformers vit"]).named_modules()
    ]
    blocks = [name for name in names if name.endswith(("layer.0", "layers.0", "layer.1", "layers.1"))]
    maps, head = by_hand(folders["transformers vit"], images, ["vit.embeddings", *blocks], "classifier")
    means = [values.mean(axis=1) for values in maps]

    found = reading(images).read(Checkpoint(str(folders["transformers vit"])))

    assert len(means) == 3
    assert found.features.shape == (30, 4 * 24)
    np.testing.assert_allclose(found.features, side_by_side([*means, head]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_checkpoint_without_a_head_has_stages_too(folders, images, library):
    """Then its output is the features."""
    own = reading(images, features="last").read(Checkpoint(str(folders[f"bare {library}"])))

    found = reading(images).read(Checkpoint(str(folders[f"bare {library}"])))

    assert found.predictions is None
    width = found.features.shape[1]
    assert width == {"timm": 64 + 16 + 24 + 32 + 48, "transformers": 64 + 16 + 24 + 32 + 48}[library]
    alone = side_by_side([own.features.astype(np.float64)]) / np.sqrt(5)
    np.testing.assert_allclose(found.features[:, -48:], alone, rtol=1e-3, atol=1e-5)


def test_maps_with_their_channels_last_are_averaged_over_places():
    """Transformers gives Hiera's stages both as tokens and as such maps; the means are the same."""
    config = HieraConfig(
        embed_dim=8, image_size=[64, 64], depths=[1, 1, 1], num_heads=[1, 2, 4], num_query_pool=2
    )
    with seeded(0):
        network = HieraForImageClassification(config).eval()
        inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(inputs, output_hidden_states=True)
        with Stages(network, "hiera") as stages:
            logits = network(inputs).logits
            means = stages.means()

    assert expected.reshaped_hidden_states[0].shape[1:] == (16, 16, 8)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(means, [tokens.mean(dim=1) for tokens in expected.hidden_states])


def test_they_are_kept_apart_from_the_last_ones(folders, images, tmp_path, monkeypatch):
    """Both of one checkpoint; a second reading loads nothing. Keys of the last ones are what they were."""
    checkpoint = Checkpoint(str(folders["timm"]))
    last, layers = (reading(images, tmp_path, kind).read(checkpoint) for kind in ("last", "layers"))

    def load_network(files):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(reader, "load_network", load_network)

    assert last.features.shape[1] < layers.features.shape[1]
    for kind, expected in (("last", last), ("layers", layers)):
        again = reading(images, tmp_path, kind).read(checkpoint)
        assert again.features.tobytes() == expected.features.tobytes()
    key = feature_key({"files": "a"}, "sha256:1")
    assert key == feature_key({"files": "a"}, "sha256:1", features="last")
    assert key != feature_key({"files": "a"}, "sha256:1", features="layers")


class Staged(nn.Module):
    """Stands for a network of timm; ``show`` makes what it says of its stages."""

    def __init__(self, show):
        super().__init__()
        self.conv, self.fc, self.show = nn.Conv2d(3, 6, 3), nn.Linear(6, 2), show

    def forward_features(self, inputs):
        return self.conv(inputs)

    def forward_intermediates(self, inputs, output_fmt="NCHW"):
        final = self.conv(inputs)
        return final, self.show(final)

    def forward(self, inputs):
        return self.fc(self.forward_features(inputs).mean(dim=(2, 3)))


class Silent(nn.Module):
    """A network of no stages that it could tell."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, inputs):
        return self.fc(self.conv(inputs).mean(dim=(2, 3)))


def failing(final):
    raise NotImplementedError("no stages in this one")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Silent(), "a Silent has neither forward_intermediates nor hidden_states"),
        (Staged(failing), r"timm's forward_intermediates fails \(no stages in this one\)"),
        (Staged(lambda final: []), "its forward pass shows none"),
        (Staged(lambda final: [final, final[0]]), r"stage 2 gives \(6, 30, 30\) for 8 images, not a map"),
        (Staged(lambda final: ["map"]), "stage 1 gives str for 8 images"),
    ],
)
def test_a_network_without_usable_stages_is_named(folders, images, monkeypatch, network, words):
    """The second stage then skips the candidate; it has no hooks of ours left."""
    loaded = LoadedNetwork(network, "fc", HALF)
    monkeypatch.setattr(reader, "load_network", lambda files: loaded)
    own = str(folders["timm"])

    with pytest.raises(ProbeOutputError, match=f"stages of '{own}' cannot be read: {words}.*='last', or upg"):
        reading(images).read(Checkpoint(own))

    assert "forward_features" not in vars(network)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())


def test_a_stage_that_is_not_finite_is_an_error(folders, images, monkeypatch, tmp_path):
    """Though what the head sees is."""
    loaded = LoadedNetwork(Staged(lambda final: [final / 0]), "fc", HALF)
    monkeypatch.setattr(reader, "load_network", lambda files: loaded)

    with pytest.raises(ProbeOutputError, match="gives NaN or infinite features of a stage for 30 of 30 im"):
        reading(images, tmp_path).read(Checkpoint(str(folders["timm"])))
    assert not list(tmp_path.iterdir())


def test_other_features_are_refused(images):
    """Before anything is loaded."""
    with pytest.raises(SettingsError, match="features must be 'last' or 'layers'; got 'first'"):
        reading(images, features="first")
