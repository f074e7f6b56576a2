"""Images become what timm and transformers would make of them, to rounding."""

import json

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from t2v_hub.errors import ProbeError, SettingsError
from t2v_hub.probe import Preprocessing

SIZES = [(64, 64), (63, 100), (100, 63), (31, 47), (300, 200), (17, 400), (257, 255), (1, 1), (1, 9)]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = {"RGB": 3, "L": 1}[mode]
    pixels = rng.integers(0, 256, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def applied(recipe: Preprocessing, image: Image.Image) -> torch.Tensor:
    prepared = recipe.prepare(image)
    assert prepared.dtype == np.uint8
    assert prepared.shape == (recipe.n_channels, *recipe.size)
    return recipe.normalise(torch.from_numpy(prepared)[None])[0]


TIMM = {
    "resnet": {"crop_pct": 0.875, "interpolation": "bilinear"},
    "a1": {"crop_pct": 0.95, "interpolation": "bicubic"},
    "whole": {"crop_pct": 1.0, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    "squash": {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic"},
    "squash_whole": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"},
    "odd": {"input_size": (3, 61, 61), "crop_pct": 0.9},
    "oblong": {"input_size": (3, 48, 64), "crop_pct": 0.9, "crop_mode": "squash"},
    "lanczos": {"crop_pct": 0.8, "interpolation": "lanczos"},
    "grey": {"input_size": (1, 32, 32), "mean": (0.5,), "std": (0.25,), "crop_pct": 0.9},
}


@pytest.mark.parametrize("changes", TIMM.values(), ids=TIMM)
def test_images_equal_those_of_timms_transform(changes):
    """Up to 1e-6: the order of two float32 operations."""
    config = {
        "input_size": (3, 56, 56),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "crop_mode": "center",
        **changes,
    }
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    theirs = timm.data.create_transform(**config, is_training=False)
    recipe = Preprocessing.from_timm(config)

    for width, height in SIZES:
        image = picture(width, height, mode)
        torch.testing.assert_close(applied(recipe, image), theirs(image), rtol=0, atol=1e-6)


def test_a_grey_image_is_repeated_for_a_network_of_three_channels():
    image = picture(40, 50, "L")

    prepared = Preprocessing(size=(32, 32), resize=36).prepare(image)

    np.testing.assert_array_equal(prepared[0], prepared[1])
    np.testing.assert_array_equal(
        prepared, Preprocessing(size=(32, 32), resize=36).prepare(image.convert("RGB"))
    )


def processors() -> dict[str, object]:
    import transformers as hf

    return {
        "ViT": hf.ViTImageProcessorPil(size={"height": 48, "width": 48}),
        "ViT_oblong": hf.ViTImageProcessorPil(size={"height": 32, "width": 48}, resample=3),
        "ConvNeXT_small": hf.ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=0.875),
        "ConvNeXT_large": hf.ConvNextImageProcessorPil(size={"shortest_edge": 384}, crop_pct=0.875),
        "BiT": hf.BitImageProcessorPil(
            size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3
        ),
        "BiT_odd": hf.BitImageProcessorPil(
            size={"shortest_edge": 65}, crop_size={"height": 48, "width": 33}, resample=3
        ),
        "MobileNetV2": hf.MobileNetV2ImageProcessorPil(
            size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
        ),
        "DeiT": hf.DeiTImageProcessorPil(
            size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 56}
        ),
        "plain": hf.ViTImageProcessorPil(size={"height": 24, "width": 24}, do_normalize=False),
        "unscaled": hf.ViTImageProcessorPil(
            size={"height": 24, "width": 24}, do_rescale=False, image_mean=[127.0] * 3, image_std=[60.0] * 3
        ),
        "half_scale": hf.ViTImageProcessorPil(size={"height": 24, "width": 24}, rescale_factor=1 / 127.5),
    }


@pytest.fixture(scope="module")
def known() -> dict[str, object]:
    return processors()


@pytest.mark.parametrize(
    "name",
    [
        "ViT", "ViT_oblong", "ConvNeXT_small", "ConvNeXT_large", "BiT", "BiT_odd", "MobileNetV2", "DeiT",
        "plain", "unscaled", "half_scale",
    ],
)  # fmt: skip
def test_images_equal_those_of_transformers_processors(known, name):
    """Of their Pillow backend; the torch backend resizes otherwise by a grey level or two."""
    processor = known[name]
    recipe = Preprocessing.from_transformers(processor)

    for width, height in [(64, 64), (63, 101), (101, 62), (31, 47), (300, 200), (1, 1)]:
        image = picture(width, height)
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        bound = 1e-6 * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(applied(recipe, image), theirs.float(), rtol=0, atol=bound)


class Processor:
    """As much of a processor as is looked at."""

    do_resize, do_rescale, do_normalize = True, True, True
    size: object = {"height": 32, "width": 32}
    resample = 2
    rescale_factor = 1 / 255
    image_mean, image_std = [0.5] * 3, [0.5] * 3

    def __init__(self, **changes: object) -> None:
        self.__dict__.update(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_pad": True}, "Processor sets do_pad, which is not supported.*preprocessing=Preprocessing"),
        ({"do_flip_channel_order": True}, "Processor sets do_flip_channel_order"),
        ({"do_reduce_labels": True}, "Processor sets do_reduce_labels"),
        ({"rescale_offset": True}, "Processor sets rescale_offset"),
        ({"size": {"longest_edge": 32}}, "Processor resizes to .*longest_edge.*, which is not supported"),
        ({"size": None}, "Processor resizes to {}, which is not supported"),
        ({"resample": 17}, "Unknown resampling filter 17"),
        (
            {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}},
            r"own preprocessing is not supported: Cannot crop \(40, 40\) out of images resized to \(32, 32\)",
        ),
        ({"image_mean": [0.5] * 4, "image_std": [0.5] * 4}, "3 channels or 1; got 4 and 4"),
    ],
)
def test_processors_that_do_something_else_are_refused_with_a_remedy(changes, message):
    """A wrong recipe would give a wrong embedding without a word."""
    with pytest.raises(ProbeError, match=message):
        Preprocessing.from_transformers(Processor(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_mode": "border"}, "cropped by timm's mode 'border' at 32 x 32, which is not supported"),
        ({"input_size": (3, 32, 48)}, "cropped by timm's mode 'center' at 32 x 48, which is not supported"),
        ({"crop_pct": 1.5}, r"Cannot crop \(32, 32\) out of images resized to 21"),
        ({"interpolation": "magic"}, "Unknown interpolation 'magic'"),
    ],
)
def test_timm_configurations_that_do_something_else_are_refused(changes, message):
    config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, **changes}

    with pytest.raises(ProbeError, match=message):
        Preprocessing.from_timm(config)


def test_the_record_gives_back_the_recipe():
    """Also after JSON, which has lists only."""
    for recipe in (Preprocessing(), Preprocessing(size=(8, 9), resize=(10, 11), mean=(0.1,), std=(0.2,))):
        again = Preprocessing.from_dict(json.loads(json.dumps(recipe.to_dict())))

        assert again == recipe


@pytest.mark.parametrize(
    ("recipe", "size", "resize"),
    [
        (Preprocessing(), 112, 128),
        (Preprocessing(), 96, 109),
        (Preprocessing(resize=224), 100, 100),
        (Preprocessing(resize=(240, 232)), 112, (120, 116)),
        (Preprocessing(size=(200, 100), resize=(200, 100)), 50, (50, 50)),
    ],
)
def test_another_size_keeps_the_share_that_is_cropped_away(recipe, size, resize):
    resized = recipe.resized(size)

    assert (resized.size, resized.resize) == ((size, size), resize)
    assert resized.mean == recipe.mean


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interpolation": "cubic"}, "Unknown interpolation 'cubic'; choose one of: nearest, bilinear"),
        ({"mean": (0.5, 0.5)}, "mean and std must both have 3 channels or 1; got 2 and 3"),
        ({"size": (224, 224), "resize": 200}, r"Cannot crop \(224, 224\) out of images resized to 200"),
        ({"size": (0, 1)}, r"Cannot crop \(0, 1\)"),
    ],
)
def test_recipes_that_cannot_work_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Preprocessing(**settings)


def test_a_size_below_one_pixel_is_refused():
    with pytest.raises(SettingsError, match="image_size must be at least 1 pixel, not 0"):
        Preprocessing().resized(0)


def test_a_very_long_image_is_not_blown_up():
    """256 by 5 million pixels would fill the memory; only what the crop keeps is resized."""
    image = Image.new("RGB", (20_000, 1), (200, 10, 30))

    prepared = Preprocessing().prepare(image)  # otherwise 4 GB

    assert (prepared == np.array([200, 10, 30], np.uint8)[:, None, None]).all()


def test_a_long_image_is_resized_alike_in_part_and_as_a_whole(monkeypatch):
    """But for the rounding between the two passes of Pillow, whose order hangs on the sizes."""
    recipe = Preprocessing(size=(56, 50), resize=64, interpolation="bicubic")
    smooth = [picture(5, 5).resize(size, Image.Resampling.BICUBIC) for size in SIZES]
    whole = [recipe.prepare(image) for image in smooth]
    monkeypatch.setattr("t2v_hub.probe.preprocessing._MAX_PIXELS", 0)

    parts = [recipe.prepare(image) for image in smooth]

    for ours, theirs in zip(parts, whole, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 2
