"""Probes: from every kind of place, with their own features, filters and preprocessing; bad ones named."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import transformers as hf
from huggingface_hub import errors as hub_errors
from torch import Tensor, nn

from t2v_hub import Task2Vec
from t2v_hub.errors import (
    CheckpointError,
    HeadNotFoundError,
    ProbeError,
    ProbeNotFoundError,
    ProbeOutputError,
    SettingsError,
    WeightsError,
)
from t2v_hub.head import HeadRecipe
from t2v_hub.probe import Preprocessing, ProbeNetwork, load_checkpoint
from t2v_hub.testing import TINY, TinyNetwork, tiny_probe
from tests.networks import SIDE, SMALL, images, shaken, small_probe, transformers_networks

CONFIG = {
    "architecture": "test_vit",
    "num_classes": 7,
    "model_args": {"img_size": SIDE},
    "pretrained_cfg": {
        "input_size": [3, SIDE, SIDE],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}


def timm_network(seed: int = 0) -> nn.Module:
    return shaken(timm.create_model("test_vit", num_classes=7, img_size=SIDE), seed)


def write_pair(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """Weights and a JSON of the same name, as the kit has them."""
    path = folder / "net.v1.safetensors"
    state = {key: value.to(dtype) for key, value in timm_network().state_dict().items()}
    safetensors.torch.save_file(state, path)
    path.with_suffix(".json").write_text(json.dumps({**CONFIG, **changes}))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return write_pair(tmp_path)


@pytest.fixture
def timm_folder(tmp_path: Path) -> Path:
    """A folder as timm writes it."""
    folder = tmp_path / "timm"
    module = timm_network()
    timm.models.save_for_hf(
        module, folder, model_config={"pretrained_cfg": CONFIG["pretrained_cfg"]}, safe_serialization=True,
        model_args={"img_size": SIDE},
    )  # fmt: skip
    return folder


# From where


def test_a_pair_of_files_gives_features_filters_and_preprocessing(pair):
    """The kit's layout: timm's JSON beside the weights."""
    module = timm_network()

    for path in (pair, str(pair), pair.with_suffix(".json")):
        probe = ProbeNetwork.load(path)

        assert (Path(probe.name).name, probe.head, probe.n_features) == ("net.v1.safetensors", "head", 64)
        assert probe.preprocessing == Preprocessing(
            size=(SIDE, SIDE), resize=40, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
        )
        x = images(2).float()
        expected = module.forward_head(module.forward_features(x), pre_logits=True)
        torch.testing.assert_close(probe.features(x), expected)


def test_a_folder_of_timm_is_the_same_probe(timm_folder, pair):
    folder, other = ProbeNetwork.load(timm_folder), ProbeNetwork.load(pair)

    assert folder.name == str(timm_folder)
    assert folder.digest == other.digest
    assert folder.filters == other.filters
    assert folder.preprocessing == other.preprocessing


def save_transformers(folder: Path, family: str, *, bare: bool = False) -> tuple[nn.Module, Path]:
    module = shaken(transformers_networks()[family]())
    saved = module.base_model if bare else module
    saved.save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return module, folder


FAMILIES = ["ResNet", "ViT", "Swin", "ConvNext", "Dinov2", "DeiT", "MobileNetV2", "RegNet"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_transformers_gives_the_features_before_the_head(family, tmp_path):
    """What the head is fitted on must be what the network's own head sees."""
    module, folder = save_transformers(tmp_path, family)

    probe = ProbeNetwork.load(folder)

    x = images(2).float()
    head = probe.module.get_submodule(probe.head)
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head(probe.features(x)), module(x).logits)
    assert probe.preprocessing.size == (SIDE, SIDE)
    assert not any("classifier" in layer.name or "pooler" in layer.name for layer in probe.filters)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_backbone_of_transformers_is_the_same_probe(family, tmp_path):
    """Weights decide, not whether a head was saved with them."""
    save_transformers(tmp_path / "with", family)
    save_transformers(tmp_path / "bare", family, bare=True)

    whole, bare = ProbeNetwork.load(tmp_path / "with"), ProbeNetwork.load(tmp_path / "bare")

    x = images(2).float()
    torch.testing.assert_close(bare.features(x), whole.features(x))
    assert bare.filters == whole.filters
    assert bare.digest == whole.digest


def test_a_network_in_memory_is_used_as_it_is():
    module = TinyNetwork()

    probe = ProbeNetwork.load(module, preprocessing=TINY)

    assert probe.module is module
    assert (probe.name, probe.head, probe.n_features) == ("TinyNetwork", "head", 10)
    assert [(layer.name, layer.n_filters) for layer in probe.filters] == [
        ("conv1", 6), ("conv2", 8), ("hidden", 10),
    ]  # fmt: skip
    expected = [module.get_submodule(layer.name).weight.square().mean() for layer in probe.filters]
    torch.testing.assert_close(probe.prior.float(), torch.stack(expected).detach())
    assert repr(probe) == "ProbeNetwork('TinyNetwork', 24 filters in 3 layers)"


def test_a_probe_can_be_loaded_again_with_other_settings():
    """What is not named stays: filters must not widen because the size changes."""
    probe = ProbeNetwork.load(TinyNetwork(), preprocessing=TINY, filters=["conv*"], normalisation=True)

    assert ProbeNetwork.load(probe) is probe
    resized = ProbeNetwork.load(probe, image_size=24)
    assert resized.preprocessing.size == (24, 24)
    assert resized.filters == probe.filters
    assert resized.digest == probe.digest
    assert ProbeNetwork.load(probe, filters=["norm"]).filters[0].name == "norm"


class WithOutput(nn.Module):
    """Returns features, and has a module called like the word for that."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.output = nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.output(torch.tanh(self.stem(x)))).mean(dim=(2, 3))


def test_a_network_that_returns_features_has_no_head():
    probe = small_probe(WithOutput(), head="output")

    assert probe.n_features == 5
    assert [layer.name for layer in probe.filters] == ["stem", "output"]


def test_the_digest_holds_every_measured_layer():
    module = WithOutput()
    before = small_probe(module, head="output").digest
    with torch.no_grad():
        module.output.weight.mul_(2)

    assert small_probe(module, head="output").digest != before


def test_a_head_can_be_named():
    """Another layer than the last: its input are the features, and it is not measured."""
    probe = ProbeNetwork.load(TinyNetwork(), head="hidden", preprocessing=TINY)

    assert probe.n_features == 8
    assert [layer.name for layer in probe.filters] == ["conv1", "conv2"]


def test_a_classifier_that_is_a_convolution_can_be_named():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten()
    )

    probe = small_probe(module, head="3")

    assert probe.n_features == 4
    with pytest.raises(HeadNotFoundError, match="No linear layer of 'Sequential' makes its output"):
        small_probe(module)


# What is refused


class Scaled(TinyNetwork):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


class HeadByHand(TinyNetwork):
    """Applies the head's weight itself: the module never runs."""

    def forward(self, images: Tensor) -> Tensor:
        x = torch.tanh(self.conv1(images)).mean(dim=(2, 3))
        return x @ self.head.weight[:, :6].T


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (
            Scaled,
            {},
            HeadNotFoundError,
            r"No linear layer of 'Scaled' makes its output.*head='\.\.\.' \(linear layers: hidden, head\)",
        ),
        (
            TinyNetwork,
            {"head": "fc"},
            HeadNotFoundError,
            "'TinyNetwork' has no module 'fc'. Its linear layers: hidden, head",
        ),
        (
            HeadByHand,
            {"head": "head"},
            HeadNotFoundError,
            "forward pass of 'HeadByHand' never runs 'head'; name another head",
        ),
        (
            TinyNetwork,
            {"head": "norm"},
            ProbeOutputError,
            r"features of shape \(1, 6, 16, 16\) for 1 images; wanted one vector per image",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(10, 2)),
            {},
            ProbeError,
            r"'Sequential' cannot process images of \(3, 16, 16\).*Check image_size and preprocessing",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(10, 2)),
            {"head": "1"},
            ProbeError,
            r"'Sequential' cannot process an image of \(3, 16, 16\).*Check image_size and preprocessing",
        ),
        (
            nn.Flatten,
            {"head": "output"},
            ProbeError,
            "'Flatten' has no parameters; there is nothing to measure",
        ),
        (
            TinyNetwork,
            {"filters": ["layer4.*"]},
            SettingsError,
            r"no layer of 'TinyNetwork' is called 'layer4\.\*'. Its 3 layers begin conv1, conv2, hidden",
        ),
        (TinyNetwork, {"filters": 0.0}, SettingsError, r"filters=0.0 must lie in \(0, 1\]"),
        (TinyNetwork, {"filters": 3}, SettingsError, r"filters=3 must lie in \(0, 1\]"),
        (TinyNetwork, {"filters": []}, SettingsError, r"filters=\[\] names no layer"),
        (TinyNetwork, {"image_size": 0}, SettingsError, "image_size must be at least 1 pixel, not 0"),
        (TinyNetwork, {"image_size": -5}, SettingsError, "image_size must be at least 1 pixel, not -5"),
    ],
)
def test_networks_that_cannot_be_probes_are_refused_with_a_remedy(make, options, error, message):
    with pytest.raises(error, match=message):
        ProbeNetwork.load(make(), **{"preprocessing": TINY, **options})


class Dictionary(TinyNetwork):
    def forward(self, images: Tensor) -> object:
        return {"features": super().forward(images)}


def test_a_network_that_returns_no_tensor_is_refused():
    with pytest.raises(ProbeOutputError, match="returns a dict, not a tensor of features"):
        ProbeNetwork.load(Dictionary(), head="output", preprocessing=TINY)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    """NaN would travel through every image into the embedding."""
    module = TinyNetwork()
    with torch.no_grad():
        module.conv2.weight[1, 0, 2, 2] = value

    with pytest.raises(WeightsError, match=r"1 of 216 values of 'conv2.weight' in 'TinyNetwork' are NaN or"):
        ProbeNetwork.load(module, preprocessing=TINY)


def test_a_layer_of_zeros_is_refused():
    module = TinyNetwork()
    with torch.no_grad():
        module.conv2.weight.zero_()
        module.conv2.bias.fill_(0.3)

    with pytest.raises(WeightsError, match="All weights of layer 'conv2' in 'TinyNetwork' are zero"):
        ProbeNetwork.load(module, preprocessing=TINY)
    assert len(ProbeNetwork.load(module, filters=["hidden"], preprocessing=TINY).layers) == 1


def rewritten(path: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), r"1 absent \(norm.weight\)"),
        (lambda state: state.update(extra=torch.ones(2)), r"1 unknown \(extra\)"),
        (
            lambda state: state.update({"norm.weight": torch.ones(3)}),
            r"1 of another shape \(norm.weight \(3,\) for \(64,\)\)",
        ),
        (
            lambda state: state.update({"head.bias": torch.full((7,), torch.nan)}),
            "7 of 7 values of 'head.bias' in '.*net.v1.*' are NaN or infinite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(pair, change, message):
    rewritten(pair, change)

    with pytest.raises(WeightsError, match=message):
        ProbeNetwork.load(pair)


@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.5])
def test_truncated_weights_are_refused(pair, keep):
    content = pair.read_bytes()
    pair.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(WeightsError, match=r"net.v1.safetensors' is no whole safetensors file"):
        ProbeNetwork.load(pair)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"architecture": "resnet999"},
            ProbeError,
            r"timm .* has no architecture 'resnet999', which '.*net.v1.*'",
        ),
        ({"architecture": "hf-hub:a/b"}, ProbeError, r"has no architecture 'hf-hub:a/b'"),
        ({"model_args": {"wings": 2}}, ProbeError, r"timm cannot build 'test_vit' for '.*net.v1.*': .*wings"),
        (
            {"model_args": {"checkpoint_path": "evil.bin", "pretrained": True}},
            ProbeError,
            r"model_args of '.*net.v1.*' hold \['checkpoint_path', 'pretrained'\], which load other weights",
        ),
        ({"num_classes": 9}, WeightsError, r"2 of another shape \(head.bias \(7,\) for \(9,\)"),
    ],
)
def test_descriptions_that_do_not_fit_are_named(tmp_path, changes, error, message):
    """A description is untrusted: it must not make timm fetch, or unpickle, anything else."""
    path = write_pair(tmp_path, **changes)

    with pytest.raises(error, match=message):
        ProbeNetwork.load(path)


def test_files_that_are_missing_or_broken_are_named(pair, tmp_path):
    lonely = tmp_path / "lonely.safetensors"
    shutil.copy(pair, lonely)
    with pytest.raises(ProbeNotFoundError, match=r"has no 'lonely.json' beside it"):
        ProbeNetwork.load(lonely)

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ProbeNotFoundError, match=r"There is no 'config.json' in .*empty"):
        ProbeNetwork.load(empty)
    (empty / "config.json").write_text("{")
    with pytest.raises(ProbeError, match=r"config.json' cannot be read as JSON"):
        ProbeNetwork.load(empty)
    (empty / "config.json").write_text("[1]")
    with pytest.raises(ProbeError, match=r"config.json' holds no JSON object"):
        ProbeNetwork.load(empty)
    (empty / "config.json").write_text("{}")
    with pytest.raises(
        ProbeError, match=r"names neither a timm 'architecture' nor a transformers 'model_type'"
    ):
        ProbeNetwork.load(empty)
    (empty / "config.json").write_text(json.dumps(CONFIG))
    (empty / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(
        ProbeNotFoundError, match="no model.safetensors in .*Only safetensors weights are read"
    ):
        ProbeNetwork.load(empty)
    pair.with_suffix(".json").write_text("{}")
    with pytest.raises(ProbeError, match=r"net.v1.json' does not name a timm 'architecture'"):
        ProbeNetwork.load(pair)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("./nowhere", "There is no network at './nowhere': wanted a folder with config.json"),
        (Path("nowhere"), "There is no network at 'nowhere'"),
        ("no_such_model", r"'no_such_model' is no folder, no Hub repository \(org/name\) and no timm model"),
        (
            "resnet18.no_such_tag",
            "timm has no pretrained weights 'resnet18.no_such_tag'.*It has: resnet18.a1_in1k",
        ),
        ("a/b/c", r"'a/b/c' is no folder on this machine and no name of a Hub repository \(org/name\)"),
    ],
)
def test_names_of_nothing_are_refused(location, message):
    with pytest.raises(ProbeNotFoundError, match=message):
        ProbeNetwork.load(location)


def test_weights_of_transformers_that_do_not_fit_are_named(tmp_path):
    """Transformers fills what is missing with noise and only logs it."""
    _, folder = save_transformers(tmp_path, "ViT")
    path = folder / "model.safetensors"
    key = next(name for name in safetensors.torch.load_file(path) if name.endswith("layernorm.weight"))
    rewritten(path, lambda state: state.pop(key))

    with pytest.raises(WeightsError, match=r"do not fit its configuration: 1 tensors are absent .*layernorm"):
        ProbeNetwork.load(folder)


def test_files_of_transformers_that_are_broken_are_named(tmp_path):
    _, folder = save_transformers(tmp_path, "ViT")
    weights = (folder / "model.safetensors").read_bytes()

    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(WeightsError, match="is no whole safetensors file|no whole safetensors"):
        ProbeNetwork.load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    with pytest.raises(ProbeError, match="cannot load the image processor of"):
        ProbeNetwork.load(folder)
    (folder / "config.json").write_text('{"model_type": "no_such_type"}')
    with pytest.raises(ProbeError, match="transformers cannot read the configuration of"):
        ProbeNetwork.load(folder)


# The Hub


def refusing(error: Exception) -> Callable[..., str]:
    def download(*args: object, **options: object) -> str:
        raise error

    return download


def answer(code: int) -> SimpleNamespace:
    """As much of a response as the Hub's errors keep; which HTTP library makes them has changed twice."""
    return SimpleNamespace(status_code=code, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_errors.GatedRepoError("x", response=answer(403)), "'org/net' is gated: accept its terms"),
        (
            hub_errors.RepositoryNotFoundError("x", response=answer(404)),
            "no repository 'org/net' that you may",
        ),
        (hub_errors.RevisionNotFoundError("x", response=answer(404)), "'org/net' has no revision 'v9'"),
        (hub_errors.LocalEntryNotFoundError("x"), r"the Hub did not answer \(LocalEntryNotFoundError\)"),
        (hub_errors.HfHubHTTPError("x", response=answer(500)), r"Hub did not answer \(HfHubHTTPError, 500\)"),
        (hub_errors.HfHubHTTPError("x", response=answer(401)), "does not let you read 'org/net': the token"),
        (hub_errors.DisabledRepoError("x", response=answer(403)), "'org/net' was disabled by the Hub"),
        (hub_errors.LocalTokenNotFoundError("x"), "To read it, log in with `hf auth login`"),
        (hub_errors.HfHubHTTPError.__bases__[0]("x"), r"the Hub did not answer \(HTTPError\)"),
        (json.JSONDecodeError("x", "y", 0), r"the Hub did not answer \(JSONDecodeError\)"),
        (OSError(errno.ENOSPC, "No space left"), "'org/net' cannot be kept on this machine: No space left"),
        (
            ConnectionError("x"),
            r"Hub did not answer \(ConnectionError\). Check the connection, unset HF_HUB_OFF",
        ),
    ],
)
def test_what_the_hub_refuses_is_explained(error, message, monkeypatch):
    """Each has another remedy: accept terms, log in, correct the name, check the connection."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(error))

    with pytest.raises(ProbeError, match=message):
        ProbeNetwork.load("org/net", revision="v9")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint("org/net", revision="v9")


def test_a_hub_out_of_reach_is_said_to_be(monkeypatch):
    """A closed port of this machine stands for no network; nothing is retried for minutes."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(
        ProbeNotFoundError, match="'org/net' is not on this machine and the Hub did not answer"
    ):
        ProbeNetwork.load("org/net")


def test_a_loaded_timm_network_says_its_own_preprocessing(timm_folder):
    """Transforms are made from it; the architecture's default weights have another size and mean."""
    config = json.loads((timm_folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.75, "input_size": [3, SIDE, SIDE]}
    (timm_folder / "config.json").write_text(json.dumps(config))

    resolved = timm.data.resolve_model_data_config(load_checkpoint(timm_folder, n_classes=3))

    assert (resolved["mean"], resolved["crop_pct"]) == ([0.1, 0.2, 0.3], 0.75)
    assert resolved["input_size"] == [3, SIDE, SIDE]


@pytest.mark.parametrize(
    ("location", "revision", "expected"),
    [
        ("org/net", None, ("org/net", None)),
        ("hf-hub:org/net", "v1", ("org/net", "v1")),
        ("hf_hub:org/net@abc", None, ("org/net", "abc")),
        ("resnet18.a1_in1k", None, ("timm/resnet18.a1_in1k", None)),
        ("test_vit", None, ("timm/test_vit.r160_in1k", None)),
    ],
)
def test_names_lead_to_the_repository(location, revision, expected, timm_folder, monkeypatch):
    """The folder that the Hub's client hands back is named after the commit."""
    asked = []

    def download(
        repository: str, *, revision: str | None, allow_patterns: list[str], **options: object
    ) -> str:
        assert options == {"endpoint": None, "token": None, "cache_dir": None}
        asked.append((repository, revision))
        assert "model*.safetensors" in allow_patterns
        assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in allow_patterns)
        return str(timm_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    probe = ProbeNetwork.load(location, revision=revision)

    assert asked == [expected]
    assert (probe.name, probe.revision) == (expected[0], timm_folder.name)


# Filters and digests


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, ["conv1", "conv2", "hidden"]),
        (["conv*"], ["conv1", "conv2"]),
        ("hidden", ["hidden"]),
        (["hidden", "conv1"], ["conv1", "hidden"]),
        (1.0, ["conv1", "conv2", "hidden"]),
        (1, ["conv1", "conv2", "hidden"]),
        (0.5, ["conv2", "hidden"]),
        (0.01, ["hidden"]),
    ],
)
def test_filters_narrow_by_name_or_depth(filters, expected):
    """Always in the order of the network."""
    probe = ProbeNetwork.load(TinyNetwork(), filters=filters, preprocessing=TINY)

    assert [layer.name for layer in probe.filters] == expected


@pytest.mark.parametrize(
    ("architecture", "options", "count"),
    [
        ("resnet18", {}, 4800),
        ("resnet34", {}, 8512),
        ("densenet121", {}, 10_240),
        ("vgg13", {}, 2944),
    ],
)
def test_filters_are_counted_as_in_the_paper(architecture, options, count):
    """The vector's length is the paper's; VGG's two wide layers belong to its head."""
    module = timm.create_model(architecture, num_classes=2, **options)

    probe = small_probe(module, preprocessing=None if architecture == "vgg13" else SMALL)

    assert sum(layer.n_filters for layer in probe.filters) == count
    if architecture == "vgg13":
        assert probe.n_features == 4096


def test_normalisation_scales_are_counted_as_in_the_reference():
    """ResNet-34's 17,024 of the reference code: each convolution has a normalisation of its width."""
    probe = small_probe(shaken(timm.create_model("resnet34", num_classes=2)), normalisation=True)

    assert sum(layer.n_filters for layer in probe.filters) == 17_024


def test_fused_attention_counts_three_times_the_width():
    probe = small_probe(timm_network())

    counts = {layer.name: layer.n_filters for layer in probe.filters}
    assert counts["blocks.0.attn.qkv"] == 3 * 64
    assert "patch_embed.proj" in counts
    assert not any(name in counts for name in ("pos_embed", "cls_token", "head"))


def test_the_digest_leaves_out_what_does_not_matter(tmp_path):
    """The head is replaced, batches are only counted, and storage in float16 is the storer's affair."""
    module = timm.create_model("resnet18", num_classes=2)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(tensor.half())
    before = small_probe(module)

    with torch.no_grad():
        module.fc.weight.add_(1)
        module.bn1.num_batches_tracked.fill_(77)
    assert small_probe(module).digest == before.digest
    module.reset_classifier(9)
    assert small_probe(module).digest == before.digest
    assert small_probe(module.half()).digest == before.digest

    with torch.no_grad():
        module.bn1.running_mean[0] += 1
    assert small_probe(module).digest != before.digest


def test_weights_stored_in_half_precision_become_float32(tmp_path):
    path = write_pair(tmp_path, dtype=torch.float16)

    probe = ProbeNetwork.load(path)

    assert {p.dtype for p in probe.module.parameters()} == {torch.float32}
    expected = timm_network().half().float()
    assert probe.digest == small_probe(expected, head="head").digest


GOLDEN_DIGEST = "sha256:2c8d4b4db3f78369e0358c6e8067b3d5b69a8d9a697d2efb18f2fd636caab225"
GOLDEN_SPACE = "s4f9c954a004be7a"
GOLDEN_SPACE_OF_MANY_LABELS = "s34a2166e2d90922"


def test_the_space_of_the_tiny_probe_is_golden():
    """Published embeddings compare by this id: whatever changes it is a new major version."""
    probe = tiny_probe()
    embedder = Task2Vec(
        probe, head=HeadRecipe(kind="l2", strength=10.0, scaling="common"), beta=1e-9, cache=False
    )

    assert probe.digest == GOLDEN_DIGEST
    assert embedder.space().id == GOLDEN_SPACE
    assert embedder.space(multi_label=True).id == GOLDEN_SPACE_OF_MANY_LABELS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probe_in_another_type_is_a_copy(dtype):
    probe = tiny_probe()

    placed = probe.placed(torch.device("cpu"), dtype)

    assert (placed is probe) == (dtype == torch.float32)
    assert {p.dtype for p in probe.module.parameters()} == {torch.float32}
    assert {p.dtype for p in placed.module.parameters()} == {dtype}
    for ours, theirs in zip(probe.layers, placed.layers, strict=True):
        assert theirs.weight is placed.module.get_submodule(theirs.name).weight
        assert theirs.name == ours.name
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(placed.features(x.to(dtype)).float(), probe.features(x))


def test_a_probe_can_be_loaded_under_inference_mode():
    """People measure inside of evaluation loops."""
    module = TinyNetwork()

    with torch.inference_mode():
        probe = ProbeNetwork.load(module, preprocessing=TINY)

    assert len(probe.layers) == 3


# Checkpoints for fine-tuning


def test_a_checkpoint_of_timm_gets_a_head_for_the_new_classes(timm_folder):
    module = load_checkpoint(timm_folder, class_names=["ant", "bee", "cat"])

    assert module.training
    assert module(images(2).float()).shape == (2, 3)
    assert module.pretrained_cfg["label_names"] == ["ant", "bee", "cat"]
    assert module.pretrained_cfg["num_classes"] == 3
    torch.testing.assert_close(module.norm.weight, timm_network().norm.weight)


def test_a_checkpoint_of_transformers_gets_a_head_for_the_new_classes(tmp_path):
    before, folder = save_transformers(tmp_path, "ViT")

    module = load_checkpoint(folder, class_names=["ant", "bee", "cat"])

    assert module.training
    assert module(images(2).float()).logits.shape == (2, 3)
    assert module.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert module.config.label2id == {"ant": 0, "bee": 1, "cat": 2}
    torch.testing.assert_close(module.vit.layernorm.weight, before.vit.layernorm.weight)


def test_a_checkpoint_can_be_loaded_for_a_number_of_classes(timm_folder, tmp_path):
    _, folder = save_transformers(tmp_path / "hf", "ViT")

    ours, theirs = (load_checkpoint(path, n_classes=4) for path in (timm_folder, folder))

    assert ours(images(1).float()).shape == (1, 4)
    assert theirs(images(1).float()).logits.shape == (1, 4)


def test_a_checkpoint_keeps_its_head_where_no_classes_are_named(timm_folder, tmp_path):
    before, folder = save_transformers(tmp_path / "hf", "ViT")

    ours, theirs = load_checkpoint(timm_folder).eval(), load_checkpoint(folder).eval()

    x = images(2).float()
    torch.testing.assert_close(ours(x), timm_network()(x))
    torch.testing.assert_close(theirs(x).logits, before(x).logits)


def test_a_bare_backbone_gets_a_head(tmp_path):
    _, folder = save_transformers(tmp_path, "Swin", bare=True)

    module = load_checkpoint(folder, n_classes=4)

    assert module(images(1).float()).logits.shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"class_names": ["a", "b"], "n_classes": 3},
            "Got 2 class names for n_classes=3; pass one of the two",
        ),
        ({"n_classes": 0}, "A head needs at least one class, not 0"),
        ({"class_names": []}, "A head needs at least one class, not 0"),
        ({"class_names": ["a", "b", "a"]}, r"Class names must differ; more than once: \['a'\]"),
        ({"library": "transformers"}, "is a timm checkpoint, not one of transformers"),
    ],
)
def test_checkpoints_for_impossible_classes_are_refused(timm_folder, options, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(timm_folder, **options)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: shutil.rmtree(f), "Cannot load checkpoint .*There is no network at"),
        (lambda f: (f / "model.safetensors").unlink(), "Cannot load checkpoint .*no model.safetensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"x"),
            "Cannot load checkpoint .*no whole safetensors",
        ),
        (
            lambda f: rewritten(
                f / "model.safetensors", lambda s: s.update({"norm.bias": torch.full((64,), torch.nan)})
            ),
            "Cannot load checkpoint .*64 of 64 values of 'norm.bias'",
        ),
    ],
)
def test_checkpoints_that_do_not_load_say_why(timm_folder, break_it, message):
    """A ranking's candidate may be broken; that must be one named error."""
    break_it(timm_folder)

    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(timm_folder)


def test_a_probe_from_the_kit_measures_real_images(kit):
    """The real thing once: file, preprocessing, head, filters."""
    probe = ProbeNetwork.load(kit / "weights" / "resnet18.pqf_in1k.safetensors")

    assert Path(probe.name).is_absolute()
    assert (Path(probe.name).stem, probe.head, probe.n_features) == ("resnet18.pqf_in1k", "fc", 512)
    assert sum(layer.n_filters for layer in probe.filters) == 4800
    assert np.isfinite(probe.prior.numpy()).all()
