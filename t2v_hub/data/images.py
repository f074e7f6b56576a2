"""Anything that stands for an image, as an upright RGB image of 8 bits per channel."""

import io
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from t2v_hub.errors import DataError

# What Pillow's decoders were seen to raise on damaged files; the narrower list of its manual is not complete.
DECODE_FAILURES: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)

_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa"}
_DEEP_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_ORIENTATION = 0x0112
_CHANNELS = (1, 3, 4)
_RAW_IMAGES = "Give raw images: drop Normalize from the transform, t2v_hub normalises for each probe itself."
_ADDRESS = re.compile(r"\s*<?_io\.\w+ object at 0x[0-9a-fA-F]+>?")


def open_image(raw: object) -> PIL.Image.Image:
    """The upright RGB image that ``raw`` stands for.

    Args:
        raw: A PIL image; the bytes of an image file; a path; a mapping with ``bytes`` or ``path``,
            as `datasets` stores images; a tensor ``(c, h, w)`` or an array ``(h, w, c)`` or
            ``(h, w)`` with 1, 3 or 4 channels, of bytes or of floats in ``[0, 1]``. The other order
            of axes is understood where only it makes sense.

    Raises:
        DataError: An array that is no raw image, such as one already normalised. Damaged files raise
            one of `DECODE_FAILURES` instead: they are a matter of one image, this is one of all.
    """
    if isinstance(raw, PIL.Image.Image):
        return to_rgb(raw)
    if isinstance(raw, Mapping):
        content, path = raw.get("bytes"), raw.get("path")
        if content is None and path is None:
            raise ValueError("there is neither an image nor a path")
        return open_image(path if content is None else content)
    if raw is None:
        raise ValueError("there is no image")
    if isinstance(raw, bytes | bytearray | memoryview):
        with PIL.Image.open(io.BytesIO(raw)) as image:
            return to_rgb(image)
    if isinstance(raw, str) and "://" in raw:
        return open_image(_download(raw))
    if isinstance(raw, str | Path):
        with PIL.Image.open(raw) as image:
            return to_rgb(image)
    return _from_array(raw)


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image upright (EXIF) and in RGB; the image itself where it already is.

    What is transparent becomes white, because the colour stored under it is arbitrary: black strokes
    on nothing are often stored as black on black. Sixteen bits are scaled to eight, not cut off;
    other integers and floats by the range they fit: 0..1, 0..255, 0..65535, else their own.
    """
    image.load()
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = PIL.ImageOps.exif_transpose(image)
    except DECODE_FAILURES:
        pass  # a damaged EXIF block says nothing about the pixels, which are whole
    if image.mode in _DEEP_MODES:
        return PIL.Image.fromarray(_to_bytes(np.asarray(image), image.mode)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the only conversion Pillow has for it
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def failure(error: Exception) -> str:
    """Why an image could not be decoded, in a line without memory addresses."""
    text = " ".join(_ADDRESS.sub("", str(error)).split())[:200]
    if isinstance(error, LookupError) or not text:
        text = f"{type(error).__name__} {text}".strip()  # str(KeyError(0)) is "0"
    return text


def _download(address: str) -> bytes:
    # Streamed image folders hold addresses (hf://, zip://...::hf://) instead of bytes.
    from datasets.utils.file_utils import xopen

    with xopen(address, "rb") as file:
        content: bytes = file.read()
    return content


def _to_bytes(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    if mode.startswith("I;16"):
        return _halve(values)
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        if not finite.any():
            raise ValueError("no pixel is a finite number")
        values = np.where(finite, values, values[finite].min())
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    elif mode == "F" and high <= 1:
        scaled = values * 255
    elif high <= 255:
        scaled = values
    else:
        scaled = values / 257
    return np.rint(scaled).astype(np.uint8)


def _halve(values: NDArray[Any]) -> NDArray[np.uint8]:
    # 65535 becomes 255 and each byte stands for 257 values.
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _from_array(raw: Any) -> PIL.Image.Image:
    is_tensor = hasattr(raw, "detach") and hasattr(raw, "cpu")
    if is_tensor:
        raw = raw.detach().cpu()
        if raw.is_floating_point():
            raw = raw.float()  # NumPy knows no bfloat16
        raw = raw.numpy()
    array = np.asarray(raw)
    if array.dtype.kind not in "buif":
        raise DataError(
            f"An item holds {type(raw).__name__}, which is no image. "
            "Give PIL images, bytes or paths of image files, or arrays of numbers."
        )
    if array.size == 0:
        raise ValueError(f"the image is empty, of shape {array.shape}")
    pixels = _with_channels_last(array, first=is_tensor)
    if pixels.dtype.kind == "f":
        pixels = _from_floats(pixels)
    elif pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype != np.uint8:
        pixels = _from_integers(pixels)
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return to_rgb(PIL.Image.fromarray(np.ascontiguousarray(pixels)))


def _with_channels_last(array: NDArray[Any], *, first: bool) -> NDArray[Any]:
    """The array as ``(h, w, c)``; ``first`` says which end to try first for the channels."""
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3:
        for end in (0, -1) if first else (-1, 0):
            if array.shape[end] in _CHANNELS:
                return np.moveaxis(array, end, -1)
    raise DataError(
        f"An image has shape {array.shape}; wanted (height, width), (height, width, channels) or "
        "(channels, height, width) with 1, 3 or 4 channels. Change what the data set returns."
    )


def _from_floats(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.isfinite(pixels).all():
        raise ValueError("some pixels are NaN or infinite")
    low, high = float(pixels.min()), float(pixels.max())
    # Resizing floats overshoots a little at edges; normalised images leave the range by far.
    if low < -0.02 or high > 1.02:
        raise DataError(
            f"An image of floats has values from {low:.3g} to {high:.3g}; wanted 0 to 1. {_RAW_IMAGES}"
        )
    return np.rint(np.clip(pixels.astype(np.float64), 0, 1) * 255).astype(np.uint8)


def _from_integers(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise DataError(
            f"An image of integers has values from {low} to {high}; wanted 0 to 255, or 0 to 65535. "
            f"{_RAW_IMAGES}"
        )
    if pixels.dtype == np.uint16 or high > 255:
        return _halve(pixels)
    return pixels.astype(np.uint8)
