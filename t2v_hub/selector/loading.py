"""How candidates are loaded for the second stage of a ranking."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Candidate
from t2v_hub.scores import FeatureKind
from t2v_hub.selector.address import address, hub_of, same_hub
from t2v_hub.storage import home

if TYPE_CHECKING:
    from t2v_hub.data.task import ImageTask
    from t2v_hub.features import Checkpoint, Features


@dataclass(frozen=True)
class Loading:
    """How candidates are loaded for the second stage.

    Attributes:
        device: Where their features are measured; None for what accelerate chooses.
        batch_size: Images per pass on an accelerator.
        cache: Folder of features; None for ``T2V_HOME/features``, False for none.
        endpoint: Address of the Hub that ``token`` is for, in place of the default one.
        token: Access token, where it is not the one that ``hf auth login`` left.
        progress: Whether to show bars (on a terminal).
    """

    device: str | None = None
    batch_size: int = 32
    cache: Path | str | Literal[False] | None = None
    endpoint: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    progress: bool = True


def readings(
    candidates: Iterable[Candidate],
    images: "ImageTask",
    *,
    max_images: int,
    loading: Loading,
    features: FeatureKind = "last",
) -> "tuple[Callable[[str], Features], NDArray[np.int64]]":
    """What loads a candidate, given by its id, and reads its features; and the labels of their images.

    Args:
        candidates: Which can be asked for.
        images: The task.
        max_images: On how many of its images.
        loading: How they are loaded.
        features: Which features are read.

    Raises:
        SettingsError: There is no such device.
        LabelError: The task's images may have several labels each.
        ImageError: Too many of them cannot be decoded.
    """
    from t2v_hub.features import FeatureReader, FeatureStore, ScoredImages

    folder = None if loading.cache is False else Path(loading.cache or home() / "features")
    scored = ScoredImages.of(images, max_images=max_images, progress=loading.progress)
    reader = FeatureReader(
        scored,
        FeatureStore(folder),
        device=loading.device,
        batch_size=loading.batch_size,
        progress=loading.progress,
        features=features,
    )
    by_id = {candidate.id: candidate for candidate in candidates}

    def read(id: str) -> "Features":
        return reader.read(checkpoint_of(by_id[id], loading=loading))

    return read, scored.labels


def checkpoint_of(candidate: Candidate, *, loading: Loading | None = None) -> "Checkpoint":
    """Where a candidate's files are, with a token for that Hub only: for its frozen network, say.

    Args:
        candidate: The candidate.
        loading: Endpoint and token; the default ones where absent.
    """
    from t2v_hub.features import Checkpoint

    loading = loading or Loading()
    of_card = hub_of(candidate)
    token = loading.token if same_hub(of_card, loading.endpoint) else None  # it is for no other
    endpoint, token = address(of_card, endpoint=None, token=token)
    return Checkpoint(candidate.id, candidate.revision, candidate.library, endpoint, token)
