"""Features of plain images, which come without labels, from a network in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from t2v_hub.data.images import DECODE_FAILURES, open_image
from t2v_hub.data.skips import Skips
from t2v_hub.embedding import canonical_json
from t2v_hub.errors import DataError, ImageError, ProbeOutputError
from t2v_hub.features.reader import device_named
from t2v_hub.features.store import Features, FeatureStore, feature_key
from t2v_hub.fisher import frozen
from t2v_hub.passes import Passes
from t2v_hub.probe import Preprocessing, ProbeNetwork
from t2v_hub.storage import home


@dataclass(frozen=True, eq=False)
class PlainImages:
    """Images in a fixed order, by their place in what was given.

    Attributes:
        items: What was given: PIL images, arrays, bytes or paths of image files.
        kept: ``(n,)`` int64, ascending; places of those that can be decoded.
        digest: SHA-256 of their pixels.
    """

    items: Sequence[object]
    kept: NDArray[np.int64]
    digest: str
    _prepared: dict[Preprocessing, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, items: Sequence[object], *, max_skipped: float = 0.0) -> Self:
        """All of these; each is decoded once here, and not kept.

        Args:
            items: PIL images, arrays, bytes or paths of image files.
            max_skipped: Share that may be left out because it cannot be decoded; from 20 images on at least
                one where it is above 0.

        Raises:
            ImageError: There is none, or more cannot be decoded; the message names them by their places.
            DataError: Arrays that are no raw images.

        Warns:
            SkippedImagesWarning: Some were left out.
        """
        if len(items) == 0:
            raise ImageError("There is no image; wanted at least one.")
        skips = Skips(len(items), max_skipped=max_skipped)
        digest = hashlib.sha256()
        kept = []
        for place in range(len(items)):
            try:
                image = open_image(items[place])
            except DataError:
                raise
            except DECODE_FAILURES as error:
                skips.add(place, error)
                continue
            digest.update(hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest())
            kept.append(place)
        skips.warn()
        return cls(items, np.array(kept, np.int64), f"sha256:{digest.hexdigest()}")

    def __len__(self) -> int:
        return len(self.kept)

    def pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """All of them as a network takes them, ``(n, channels, h, w)``; the last recipe's are kept.

        Raises:
            ImageError: One cannot be brought into that form.
        """
        if preprocessing not in self._prepared:
            self._prepared.clear()
            rows = []
            for place in self.kept.tolist():
                try:
                    rows.append(preprocessing.prepare(open_image(self.items[place])))
                except DECODE_FAILURES as error:
                    raise ImageError(
                        f"Image {place} cannot be brought to {preprocessing.size[0]} x "
                        f"{preprocessing.size[1]} pixels: {error}. Repair it or leave it out."
                    ) from error
            self._prepared[preprocessing] = np.stack(rows)
        return self._prepared[preprocessing]


@torch.inference_mode(False)
def network_features(
    network: ProbeNetwork,
    images: PlainImages,
    *,
    cache: Path | str | Literal[False] | None = None,
    device: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Features of images, ``(n, n_features)``: the input of the network's head.

    An image's row does not hang on the others: passes are of one size.

    Args:
        network: The network.
        images: The images.
        cache: Folder of features that were measured before; None for ``T2V_HOME/features``, False for none,
            as is right for a network whose code is still being changed.
        device: Where to measure; None for what accelerate chooses.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show a bar (on a terminal).

    Raises:
        ProbeOutputError: Features are not finite.
        ImageError: An image cannot be prepared for the network.
        InsufficientMemoryError: Not even one image fits into memory.
        SettingsError: There is no such device.

    Warns:
        CacheWarning: What was kept is damaged, or nothing can be kept.
    """
    place = device_named(device)
    store = FeatureStore(None if cache is False else Path(cache or home() / "features"))
    key = feature_key(_identity(network), images.digest)
    known = store.load(key, n=len(images))
    if known is not None:
        return known.features
    placed = network.placed(place, torch.float32)
    passes = Passes(placed, images.pixels(network.preprocessing), batch_size=batch_size)
    parts: list[NDArray[np.float32]] = []
    bar = tqdm(total=len(images), desc="Features", unit="image", disable=None if progress else True)

    def work(part: range) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = placed.features(passes.inputs(part))[: len(part)].float().cpu().numpy()
        return rows

    with bar, frozen(placed.module), torch.no_grad():
        for part, rows in passes.over(range(len(images)), work):
            parts.append(rows)
            bar.update(len(part))
    features = np.concatenate(parts)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ProbeOutputError(
            f"{network.name!r} gives NaN or infinite features for {int((~finite).sum())} of {len(features)} "
            f"images. Check its weights and its preprocessing (mean, std)."
        )
    store.save(key, Features(features))
    return features


def _identity(network: ProbeNetwork) -> dict[str, str]:
    """Names a network by its tensors as they are now, its layers, and the images' recipe; not by its code."""
    layers = hashlib.sha256(repr(network.module).encode()).hexdigest()
    recipe = canonical_json(network.preprocessing.to_dict()).decode()
    return {"network": network.digest_now(), "layers": layers, "head": network.head, "preprocessing": recipe}
