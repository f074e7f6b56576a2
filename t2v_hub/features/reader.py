"""`FeatureReader`: loads checkpoints, one at a time, and reads off what they make of a task's images."""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from t2v_hub.catalog import Library
from t2v_hub.errors import CheckpointError, ProbeError, ProbeOutputError, SettingsError
from t2v_hub.features.images import ScoredImages
from t2v_hub.features.store import Features, FeatureStore, feature_key
from t2v_hub.fisher import frozen
from t2v_hub.passes import Passes
from t2v_hub.probe import Preprocessing, ProbeNetwork
from t2v_hub.probe.files import ModelFiles, find_model
from t2v_hub.probe.loading import OUTPUT, LoadedNetwork, load_network, preprocessing_of
from t2v_hub.probe.network import find_head
from t2v_hub.probe.stages import Stages
from t2v_hub.scores import FeatureKind, layer_means

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20

_Rows = NDArray[np.float32]

_SAME = 1e-3  # of the largest value: two float32 means of one map differ by far less


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights of a candidate are.

    Attributes:
        id: Repository on the Hub, timm's name, or a local folder or file.
        revision: Commit, branch or tag of the repository.
        library: What it is expected to be; None takes what the files say.
        endpoint: Address of another Hub.
        token: Access token, where it is not the one that ``hf auth login`` left; False for none.
    """

    id: str
    revision: str | None = None
    library: Library | None = None
    endpoint: str | None = None
    token: str | bool | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return Path(self.id).expanduser().exists()

    def files(self) -> ModelFiles:
        """Its files, fetched where they are not on this machine.

        Raises:
            CheckpointError: They cannot be had, or are of another library.
        """
        try:
            files = find_model(self.id, revision=self.revision, endpoint=self.endpoint, token=self.token)
        except ProbeError as error:
            raise CheckpointError(f"Cannot load checkpoint {self.id!r}: {error}") from error
        if self.library is not None and files.library != self.library:
            raise CheckpointError(
                f"{self.id!r} is a {files.library} checkpoint, not one of {self.library} as its candidate "
                f"says. Correct the catalog."
            )
        return files

    def network(self) -> ProbeNetwork:
        """The frozen network, whose features a head can be fitted on.

        Raises:
            CheckpointError: It does not load; the message says why.
        """
        files = self.files()
        try:
            return _network_in(load_network(files), files)
        except ProbeError as error:
            raise CheckpointError(f"Cannot load checkpoint {self.id!r}: {error}") from error

    def preprocessing(self, module: nn.Module, files: ModelFiles) -> Preprocessing:
        """The recipe of its images, without loading it once more.

        Args:
            module: The network, loaded from its files.
            files: These.

        Raises:
            CheckpointError: Its image processor cannot be read.
        """
        try:
            return preprocessing_of(module, files)
        except ProbeError as error:
            raise CheckpointError(f"Cannot load checkpoint {self.id!r}: {error}") from error


class FeatureReader:
    """Features and predictions of checkpoints on one task's images.

    Args:
        images: The images.
        store: What was measured before.
        device: Where to measure; None for what accelerate chooses.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show bars (on a terminal).
        features: Which features: the ``last`` ones, the input of a checkpoint's head; or of all ``layers``,
            those and the means of its stages (`t2v_hub.probe.stages.Stages`), each with the same weight.

    Raises:
        SettingsError: There is no such device, or there are no such features.
    """

    def __init__(
        self,
        images: ScoredImages,
        store: FeatureStore,
        *,
        device: str | None = None,
        batch_size: int = 32,
        progress: bool = True,
        features: FeatureKind = "last",
    ) -> None:
        if features not in get_args(FeatureKind):
            raise SettingsError(f"features must be 'last' or 'layers'; got {features!r}.")
        self.features = features
        self.images = images
        self.store = store
        self.device = device_named(device)
        self.batch_size = batch_size
        self.progress = progress

    @torch.inference_mode(False)  # the caller's may be on; nothing can be differentiated in it
    def read(self, checkpoint: Checkpoint) -> Features:
        """Features of all images in float32, from the store where they were measured before.

        A checkpoint on the Hub whose commit is known is not even fetched then.

        Raises:
            CheckpointError: It does not load; the message says why.
            ProbeOutputError: Its features are not finite, or its stages cannot be read.
            ImageError: An image cannot be prepared for it.
            InsufficientMemoryError: Not even one image fits into memory.
        """
        files: ModelFiles | None = None
        identity = _by_commit(checkpoint)
        if identity is None:
            files = checkpoint.files()
            identity = _by_files(checkpoint, files)
        key = feature_key(identity, self.images.digest, features=self.features)
        known = self.store.load(key, n=len(self.images))
        if known is None:
            known = self._measure(checkpoint.id, checkpoint.files() if files is None else files)
            self.store.save(key, known)
        return known

    def _measure(self, id: str, files: ModelFiles) -> Features:
        try:
            loaded = load_network(files)
            network = _network_in(loaded, files).placed(self.device, torch.float32)
        except ProbeError as error:
            raise CheckpointError(f"Cannot load checkpoint {id!r}: {error}") from error
        pixels = self.images.pixels(network.preprocessing)
        passes = Passes(network, pixels, batch_size=self.batch_size)
        stages = Stages(network.module, id) if self.features == "layers" else None
        answers = _Answers(network, trained_head=loaded.trained_head, stages=stages)
        parts: list[_Answer] = []
        with frozen(network.module), answers, self._bar(id, len(pixels)) as bar:

            def work(part: range) -> _Answer:
                return answers.of(passes.inputs(part), len(part))

            for part, found in passes.over(range(len(pixels)), work):
                parts.append(found)
                bar.update(len(part))
        whole = _Answer.joined(parts)
        of_stages = (("features of a stage", rows) for rows in whole.stages)
        for what, rows in (("features", whole.features), ("predictions", whole.predictions), *of_stages):
            if rows is not None and not np.isfinite(rows).all():
                bad = int((~np.isfinite(rows).all(axis=1)).sum())
                raise ProbeOutputError(
                    f"{id!r} gives NaN or infinite {what} for {bad} of {len(rows)} images. Check its weights "
                    f"and its preprocessing (mean, std)."
                )
        return Features(whole.features if stages is None else _of_layers(whole), whole.predictions)

    def _bar(self, id: str, total: int) -> "tqdm[Any]":
        disable = None if self.progress else True
        return tqdm(total=total, desc=f"features of {id}", unit="image", disable=disable, leave=False)


@dataclass(frozen=True, eq=False)
class _Answer:
    """Features, probabilities where there are such, and means of stages where they are wanted."""

    features: _Rows
    predictions: _Rows | None
    stages: tuple[_Rows, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["_Answer"]) -> "_Answer":
        predictions = [one.predictions for one in parts if one.predictions is not None]
        stages = zip(*(one.stages for one in parts), strict=True)
        return cls(
            np.concatenate([one.features for one in parts]),
            np.concatenate(predictions) if predictions else None,
            tuple(np.concatenate(rows) for rows in stages),
        )


def _of_layers(whole: _Answer) -> _Rows:
    """Stages and features in one matrix; features that are the mean of the last stage stand once."""
    stages, own = list(whole.stages), whole.features
    last = stages[-1]
    if last.shape == own.shape and float(np.abs(last - own).max()) <= _SAME * float(np.abs(own).max()):
        stages.pop()
    layers = {f"stage {place}": rows for place, rows in enumerate(stages, start=1)} | {"last": own}
    return layer_means(layers, standardise=True).astype(np.float32)


class _Answers:
    """What a network says of images, all from one pass; inside ``with`` only."""

    def __init__(self, network: ProbeNetwork, *, trained_head: bool, stages: Stages | None) -> None:
        self._network = network
        self._stages = stages
        self._head: nn.Module | None = None
        if trained_head and network.head != OUTPUT:
            self._head = network.module.get_submodule(network.head)
        self._logits: list[Tensor] = []
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> None:
        if self._stages is not None:
            self._hooks.enter_context(self._stages)
        if self._head is not None:
            handle = self._head.register_forward_hook(lambda _, __, output: self._logits.append(output))
            self._hooks.callback(handle.remove)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def of(self, inputs: Tensor, n: int) -> _Answer:
        """Of the first ``n`` inputs."""
        self._logits.clear()
        with torch.no_grad():
            features = self._network.features(inputs)[:n].float().cpu().numpy()
            means = [] if self._stages is None else self._stages.means()
            stages = tuple(rows[:n].cpu().numpy() for rows in means)
            if self._head is None:
                return _Answer(features, None, stages)
            logits = self._logits[0][:n].flatten(1)
            return _Answer(features, logits.double().softmax(dim=1).float().cpu().numpy(), stages)


def _network_in(loaded: LoadedNetwork, files: ModelFiles) -> ProbeNetwork:
    return ProbeNetwork(
        loaded.module,
        files.name,
        head=loaded.head or find_head(loaded.module, files.name, loaded.preprocessing),
        preprocessing=loaded.preprocessing,
        revision=files.revision,
        owned=True,
    )


def device_named(name: str | None) -> torch.device:
    """The device of that name; for None, what accelerate chooses.

    Raises:
        SettingsError: torch knows none of that name.
    """
    if name is None:
        from accelerate import PartialState

        name = str(PartialState().device)
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SettingsError(
            f"device={name!r} is none that torch knows. Pass 'cpu', or None for what is at hand."
        ) from error


def _by_commit(checkpoint: Checkpoint) -> Mapping[str, str] | None:
    """What names a checkpoint whose files need not be seen; None where they must be."""
    if checkpoint.is_local or not _COMMIT.fullmatch(checkpoint.revision or ""):
        return None
    return _at_commit(checkpoint.id, str(checkpoint.revision), checkpoint.endpoint)


def _by_files(checkpoint: Checkpoint, files: ModelFiles) -> Mapping[str, str]:
    """What names a checkpoint that is at hand: its commit, or what its files hold."""
    if files.revision is not None:
        return _at_commit(files.name, files.revision, checkpoint.endpoint)
    whole = files.weights.exists()
    paths = [
        *(files.folder / name for name in ("config.json", "preprocessor_config.json")),
        files.weights.with_suffix(".json"),
        *([files.weights] if whole else sorted(files.folder.glob("model*.safetensors"))),
    ]
    digest = hashlib.sha256()
    try:
        for path in filter(Path.is_file, paths):
            digest.update(f"{path.name}{path.stat().st_size}".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
    except OSError as error:
        raise CheckpointError(f"Cannot load checkpoint {checkpoint.id!r}: {error}.") from error
    return {"files": digest.hexdigest()}


def _at_commit(repository: str, commit: str, endpoint: str | None) -> Mapping[str, str]:
    from huggingface_hub import constants

    return {"repository": repository, "commit": commit, "endpoint": endpoint or constants.ENDPOINT}
