"""Anything that stands for an image becomes an upright RGB image."""

import io
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from t2v_hub.data.images import DECODE_FAILURES, failure, open_image
from t2v_hub.errors import DataError

RAMP = np.linspace(0, 255, 12, dtype=np.uint8).reshape(3, 4)
COLOURS = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3) * 2


def encoded(image: PIL.Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_grey_becomes_three_equal_channels():
    """Probes want three channels."""
    pixels = np.asarray(open_image(encoded(PIL.Image.fromarray(RAMP))))

    np.testing.assert_array_equal(pixels, np.repeat(RAMP[:, :, None], 3, axis=2))


def test_one_bit_becomes_black_and_white():
    """Mode 1 holds 0 and 1, which would both be black as bytes."""
    pixels = np.asarray(open_image(PIL.Image.fromarray(RAMP > 127)))

    assert set(np.unique(pixels)) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "La"])
def test_what_is_transparent_becomes_white(mode):
    """Black strokes on nothing are often stored as black on black; the shape is in the alpha."""
    image = PIL.Image.new("LA", (4, 3), (0, 0))
    image.putpixel((1, 1), (0, 255))

    pixels = np.asarray(open_image(image.convert(mode)))

    assert pixels[1, 1].tolist() == [0, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_a_transparent_palette_entry_becomes_white():
    """Palette images keep their transparency in the file's header, not in a channel."""
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)

    pixels = np.asarray(open_image(encoded(image, transparency=0)))

    assert pixels[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_a_palette_becomes_its_colours():
    """Indices into a palette are no grey values."""
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)

    assert np.asarray(open_image(encoded(image)))[0].tolist() == [[10, 20, 30], [200, 0, 0]]


def test_cmyk_becomes_rgb():
    """Photographs for print occur in image folders."""
    image = PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0))

    pixels = np.asarray(open_image(encoded(image, "jpeg", quality=100)))

    assert pixels.shape == (8, 8, 3)
    assert abs(pixels[0, 0].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind):
    """Pillow's own conversion clips everything above 255 to white."""
    deep = np.array([[0, 257, 257 * 128, 65535]], dtype=np.uint16)

    pixels = np.asarray(open_image(encoded(PIL.Image.fromarray(deep), kind)))

    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([7.0, 7.0, 7.0], [7, 7, 7]),
        ([np.nan, 0.0, 1.0], [0, 0, 255]),
    ],
)
def test_float_images_are_scaled_by_the_range_they_fit(values, expected):
    """Mode F has no range of its own; clipping would make most of them white."""
    image = PIL.Image.fromarray(np.array([values], dtype=np.float32))

    assert np.asarray(open_image(image))[0, :, 0].tolist() == expected


def test_one_pixel_is_an_image():
    """Placeholders of one pixel occur; they are small, not damaged."""
    assert open_image(encoded(PIL.Image.new("RGB", (1, 1), "red"))).size == (1, 1)


@pytest.mark.parametrize(
    "wrap", [lambda image: image, lambda image: encoded(image, "jpeg", exif=image.getexif())]
)
def test_exif_orientation_is_applied(wrap):
    """Cameras store the turn beside the pixels; a probe would see the image lying on its side."""
    image = PIL.Image.fromarray(COLOURS)
    image.getexif()[0x0112] = 6  # turn by a quarter

    assert open_image(wrap(image)).size == (5, 6)


@pytest.mark.parametrize("kind", ["bytes", "mapping", "path", "mapping of path", "string"])
def test_files_come_as_bytes_paths_or_mappings(kind, tmp_path: Path):
    """`datasets` stores bytes or paths, and the paths are opened only when the image is wanted."""
    content = encoded(PIL.Image.fromarray(COLOURS))
    path = tmp_path / "image.png"
    path.write_bytes(content)
    raw = {
        "bytes": content,
        "mapping": {"bytes": content, "path": "gone.png"},
        "path": path,
        "mapping of path": {"bytes": None, "path": str(path)},
        "string": str(path),
    }[kind]

    np.testing.assert_array_equal(np.asarray(open_image(raw)), COLOURS)


@pytest.mark.parametrize(
    "raw",
    [
        COLOURS,
        COLOURS.transpose(2, 0, 1),
        COLOURS.tolist(),
        COLOURS.astype(np.int64),
        COLOURS.astype(np.uint16) * 257,
        COLOURS / np.float64(255),
        torch.from_numpy(COLOURS.transpose(2, 0, 1).copy()),
        torch.from_numpy(COLOURS.copy()),
        torch.from_numpy(COLOURS.transpose(2, 0, 1) / np.float32(255)),
    ],
    ids=str.split("hwc chw lists int64 uint16 float tensor tensor-hwc tensor-float"),
)
def test_arrays_and_tensors_mean_the_same_image(raw):
    """Tensors of torchvision are (c, h, w) floats, arrays of NumPy (h, w, c) bytes."""
    np.testing.assert_array_equal(np.asarray(open_image(raw)), COLOURS)


def test_bfloat16_is_understood():
    """NumPy has no such type, so the tensor must be widened first."""
    assert open_image(torch.ones(3, 2, 2, dtype=torch.bfloat16)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("raw", [np.array([[True, False]]), torch.tensor([[[True, False]]])])
def test_masks_become_black_and_white(raw):
    """A mask of True is white, not the number 1."""
    assert np.asarray(open_image(raw))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (torch.full((3, 2, 2), -2.1), r"floats has values from -2.1 to -2.1; wanted 0 to 1.*drop Normalize"),
        (np.full((2, 2, 3), 300.0), r"values from 300 to 300; wanted 0 to 1"),
        (np.full((2, 2, 3), -1), r"integers has values from -1 to -1; wanted 0 to 255"),
        (np.zeros((2, 2, 7), np.uint8), r"shape \(2, 2, 7\); wanted \(height, width\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (object(), r"An item holds object, which is no image"),
    ],
)
def test_arrays_that_are_no_raw_images_are_refused(raw, message):
    """A normalised image means that all are; skipping one by one would hide it."""
    with pytest.raises(DataError, match=message):
        open_image(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"not an image", "cannot identify image file"),
        (b"", "cannot identify image file"),
        (None, "no image"),
        ({"bytes": None, "path": None}, "neither an image nor a path"),
        ({"bytes": None, "path": "gone.png"}, "No such file"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    ],
)
def test_damaged_images_fail_as_one_image_not_as_data(raw, message):
    """One damaged image is skipped, so it must not look like a data set that cannot be used."""
    with pytest.raises(DECODE_FAILURES, match=message) as caught:
        open_image(raw)

    assert not isinstance(caught.value, DataError)
    assert "0x" not in failure(caught.value)


def test_images_inside_archives_are_read(tmp_path: Path):
    """Streamed folders give addresses instead of bytes, such as a place in an archive."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("cat/0.png", encoded(PIL.Image.fromarray(COLOURS)))
    address = f"zip://cat/0.png::{tmp_path / 'pets.zip'}"

    np.testing.assert_array_equal(np.asarray(open_image({"bytes": None, "path": address})), COLOURS)


def test_a_truncated_file_is_damaged():
    """A grey lower half would be measured as if it were the picture."""
    content = encoded(
        PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "jpeg"
    )

    with pytest.raises(DECODE_FAILURES, match="truncated"):
        open_image(content[: len(content) // 2])


def test_a_decompression_bomb_is_damaged(monkeypatch):
    """A few bytes may claim to be gigapixels."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)

    with pytest.raises(DECODE_FAILURES, match="decompression bomb"):
        open_image(encoded(PIL.Image.new("L", (40, 40))))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_a_damaged_exif_block_does_not_cost_the_image():
    """The pixels are whole; only the turn is unknown."""
    content = encoded(PIL.Image.new("RGB", (8, 8)), "jpeg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")

    assert open_image(content).size == (8, 8)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_fail_only_in_the_ways_that_are_skipped(seed, monkeypatch):
    """Decoders raise much more than the documented OSError on damaged files."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10_000)
    random = np.random.default_rng(seed)
    reasons = []
    image = PIL.Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8))
    for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp"):
        content = np.frombuffer(encoded(image, kind), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[random.integers(0, min(len(damaged), 300), 8)] = random.integers(0, 256, 8)
            try:
                open_image(damaged.tobytes())
            except DECODE_FAILURES as error:
                reasons.append(failure(error))
    assert reasons
    assert all(reasons)


def test_the_callers_image_stays_as_it_is():
    """Functions do not change their arguments."""
    image = PIL.Image.fromarray(COLOURS).convert("RGBA")
    before = image.tobytes()

    open_image(image)

    assert image.mode == "RGBA"
    assert image.tobytes() == before
