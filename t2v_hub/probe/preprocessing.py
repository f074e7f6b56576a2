"""How a PIL image becomes a network's input: one spelling for timm's and transformers' recipes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from t2v_hub.errors import ProbeError, SettingsError

if TYPE_CHECKING:
    import torch

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in Interpolation.__args__}  # type: ignore[attr-defined]

_MAX_PIXELS = 1 << 26  # of a resized image; 200 MB


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, scale and normalise.

    Attributes:
        size: Height and width of the network's input, in pixels.
        resize: Length of the shorter side after resizing, or height and width (aspect not kept).
        interpolation: Resampling filter of Pillow.
        mean: Per channel, subtracted after scaling; its length is the number of channels, 3 or 1.
        std: Per channel, divided by.
        scale: What 8-bit values are multiplied by.
        crop_rounding: How an odd margin is halved: timm (torchvision) rounds, transformers floors.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] = 256
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    crop_rounding: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise SettingsError(
                f"Unknown interpolation {self.interpolation!r}; choose one of: {', '.join(_RESAMPLING)}."
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise SettingsError(
                f"mean and std must both have 3 channels or 1; got {len(self.mean)} and {len(self.std)}."
            )
        resize = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if min(self.size) < 1 or any(r < s for r, s in zip(resize, self.size, strict=True)):
            raise SettingsError(
                f"Cannot crop {self.size} out of images resized to {self.resize}; resize must not be smaller."
            )

    @property
    def n_channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """The image resized and cropped, ``(channels, height, width)`` uint8."""
        image = image.convert("RGB" if self.n_channels == 3 else "L")
        width, height = image.size
        if isinstance(self.resize, int):
            short, long = sorted((width, height))
            other = max(self.resize, int(self.resize * long / short))
            wanted = (self.resize, other) if width <= height else (other, self.resize)
        else:
            wanted = (self.resize[1], self.resize[0])
        left, top = (self._margin(have - want) for have, want in zip(wanted, self.size[::-1], strict=True))
        right, bottom = left + self.size[1], top + self.size[0]
        if wanted[0] * wanted[1] > _MAX_PIXELS:  # a very long image: no more of it than the crop keeps
            x, y = width / wanted[0], height / wanted[1]
            box = (left * x, top * y, right * x, bottom * y)
            image = image.resize(self.size[::-1], _RESAMPLING[self.interpolation], box=box)
        else:
            if wanted != (width, height):
                image = image.resize(wanted, _RESAMPLING[self.interpolation])
            image = image.crop((left, top, right, bottom))
        pixels = np.asarray(image, dtype=np.uint8).reshape(*self.size, self.n_channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def normalise(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pixels ``(batch, channels, height, width)`` uint8 as the network's float32 input."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() * self.scale - mean) / std

    def resized(self, image_size: int) -> Self:
        """The same recipe for a square input of another size, with the same share cropped away."""
        if image_size < 1:
            raise SettingsError(f"image_size must be at least 1 pixel, not {image_size}.")
        if isinstance(self.resize, int):
            resize: int | tuple[int, int] = math.floor(image_size * self.resize / min(self.size))
        else:
            high, wide = (math.floor(image_size * r / s) for r, s in zip(self.resize, self.size, strict=True))
            resize = (high, wide)
        return replace(self, size=(image_size, image_size), resize=resize)

    def _margin(self, surplus: int) -> int:
        # torchvision: int(round(surplus / 2)), where Python rounds halves to even.
        return round(surplus / 2) if self.crop_rounding == "round" else surplus // 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the `Space`."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote."""
        plain: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in values.items()
        }
        return cls(**plain)

    @classmethod
    def _of_network(cls, **settings: Any) -> Self:
        try:
            return cls(**settings)
        except SettingsError as error:
            raise ProbeError(
                f"The network's own preprocessing is not supported: {error} Pass "
                f"preprocessing=Preprocessing(...) with the recipe that you want."
            ) from error

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Self:
        """Timm's evaluation transform for a data configuration (``resolve_model_data_config``).

        Raises:
            ProbeError: The configuration pads images with a border, which has no equal here.
        """
        _, height, width = config["input_size"]
        fraction = config.get("crop_pct") or 0.875
        resize = (math.floor(height / fraction), math.floor(width / fraction))
        mode = config.get("crop_mode") or "center"
        if mode == "border" or (mode == "center" and resize[0] != resize[1]):
            raise ProbeError(
                f"The network's images are cropped by timm's mode {mode!r} at {height} x {width}, which is "
                f"not supported. Pass preprocessing=Preprocessing(...) with the recipe that you want."
            )
        interpolation: Any = config.get("interpolation") or "bilinear"
        return cls._of_network(
            size=(height, width),
            resize=resize if mode == "squash" else resize[0],
            interpolation="bilinear" if interpolation == "random" else interpolation,
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
        )

    @classmethod
    def from_transformers(cls, processor: object) -> Self:
        """The recipe of a transformers image processor, as its Pillow backend applies it.

        Raises:
            ProbeError: The processor does something that has no equal here.
        """
        name = type(processor).__name__

        def get(key: str) -> Any:
            return getattr(processor, key, None)

        for flag in ("do_pad", "do_flip_channel_order", "do_reduce_labels", "rescale_offset"):
            if get(flag):
                raise ProbeError(
                    f"The image processor {name} sets {flag}, which is not supported. Pass "
                    f"preprocessing=Preprocessing(...) with the recipe that you want."
                )
        size = {key: value for key, value in dict(get("size") or {}).items() if value is not None}
        resize: int | tuple[int, int]
        if "shortest_edge" in size:
            resize = int(size["shortest_edge"])
        elif {"height", "width"} <= set(size):
            resize = (int(size["height"]), int(size["width"]))
        else:
            raise ProbeError(
                f"The image processor {name} resizes to {size}, which is not supported. Pass "
                f"preprocessing=Preprocessing(...) with the recipe that you want."
            )
        if get("crop_pct") and isinstance(resize, int):
            # ConvNeXt's processor: below 384 pixels resize more and crop, from there on squash.
            final = resize
            target = (final, final)
            resize = int(final / get("crop_pct")) if final < 384 else target
        elif get("do_center_crop"):
            crop: dict[str, Any] = {
                key: value for key, value in dict(get("crop_size") or {}).items() if value is not None
            }
            side = crop.get("shortest_edge") or min(resize if isinstance(resize, tuple) else (resize,))
            target = (int(crop.get("height") or side), int(crop.get("width") or side))
        else:
            target = resize if isinstance(resize, tuple) else (resize, resize)
        if get("do_resize") is False:
            resize = target
        normal = get("do_normalize") is not False
        resample = get("resample")
        return cls._of_network(
            size=target,
            resize=resize,
            interpolation=_interpolation(2 if resample is None else int(resample)),
            mean=_channels(get("image_mean")) if normal else (0.0, 0.0, 0.0),
            std=_channels(get("image_std")) if normal else (1.0, 1.0, 1.0),
            scale=float(get("rescale_factor") or 1 / 255) if get("do_rescale") is not False else 1.0,
            crop_rounding="floor",
        )


def _channels(values: float | Sequence[float] | None) -> tuple[float, ...]:
    if values is None or isinstance(values, int | float):
        return (float(values or 0.5),) * 3
    return tuple(float(value) for value in values)


def _interpolation(resample: int) -> Interpolation:
    for name, value in _RESAMPLING.items():
        if value == resample:
            return name  # type: ignore[no-any-return]
    raise ProbeError(f"Unknown resampling filter {resample} in the image processor.")
