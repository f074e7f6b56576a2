"""`Space`: what an embedding was measured under."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self, get_args

from t2v_hub.errors import EmbeddingMismatchError

Family = Literal["fisher", "empirical", "variational"]
SPACE_SETTINGS = frozenset(
    ("head", "sampling", "filters", "normalisation", "image_size", "preprocessing", "beta", "variational")
)
"""Arguments of `Task2Vec` that make a space of their own."""
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Layer:
    """A layer's filters: its name in the probe, and how many output channels or rows it has."""

    name: str
    n_filters: int


@dataclass(frozen=True, eq=False)
class Space:
    """What an embedding was measured under; two embeddings compare only in equal spaces.

    The settings that change what the numbers mean belong to it: the probe's tensors, the filters,
    the preprocessing, the head's recipe, the sampling, the family of the estimator and ``beta``.
    Library versions, the seed and the number of images do not.

    Attributes:
        probe_digest: SHA-256 of the probe's tensors without its head, sorted by name, as float32.
        layers: The measured layers in the order of the vector.
        preprocessing: How an image becomes the probe's input.
        head: Recipe of the linear head, and its loss (softmax or sigmoid).
        sampling: How images are drawn from the data; of ``variational``, its whole recipe.
        family: Which quantity was estimated; ``monte_carlo`` and ``exact`` share ``fisher``. Vectors of
            ``variational`` hold precisions.
        beta: Weight of the prior in the robust precision ``F/(2 beta) + 1/lambda^2``.
        probe: Name under which the probe was loaded; for messages, not part of the identity.
    """

    probe_digest: str
    layers: tuple[Layer, ...]
    preprocessing: Mapping[str, Json]
    head: Mapping[str, Json]
    sampling: Mapping[str, Json]
    family: Family
    beta: float
    probe: str = "unnamed probe"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", float(self.beta))  # 1 and 1.0 must not make two spaces

    @cached_property
    def identity(self) -> str:
        """All that makes this space what it is, as one line of JSON in one spelling; see `canonical_json`."""
        identity = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "probe"}
        identity["layers"] = [[layer.name, layer.n_filters] for layer in self.layers]
        for name in ("preprocessing", "head", "sampling"):
            identity[name] = dict(identity[name])
        return canonical_json(identity).decode()

    @cached_property
    def id(self) -> str:
        """Short name of the space, for tags: ``s`` and 15 hexadecimal digits of the identity's SHA-256."""
        return "s" + hashlib.sha256(self.identity.encode()).hexdigest()[:15]

    @property
    def n_filters(self) -> int:
        """Length of the vectors of this space."""
        return sum(layer.n_filters for layer in self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def differences(self, other: "Space") -> list[str]:
        """What distinguishes two spaces, in words; empty when they are equal."""
        found = []
        if self.probe_digest != other.probe_digest:
            same = " (same name, other weights)" if self.probe == other.probe else ""
            found.append(f"probe {self.probe!r} against {other.probe!r}{same}")
        if self.layers != other.layers:
            found.append(
                f"filters: {self.n_filters} in {len(self.layers)} layers against "
                f"{other.n_filters} in {len(other.layers)}"
            )
        for name in ("preprocessing", "head", "sampling"):
            ours, theirs = getattr(self, name), getattr(other, name)
            found += [
                f"{name}.{key}: {ours.get(key)!r} against {theirs.get(key)!r}"
                for key in sorted({*ours, *theirs})
                if ours.get(key) != theirs.get(key)
            ]
        for name in ("family", "beta"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name}: {getattr(self, name)!r} against {getattr(other, name)!r}")
        return found

    def require_equal(self, other: "Space") -> None:
        """Return when the spaces are equal.

        Raises:
            EmbeddingMismatchError: They are not; the message lists the differences.
        """
        if self != other:
            raise EmbeddingMismatchError(
                "Cannot compare embeddings of different spaces: "
                + "; ".join(self.differences(other))
                + ". Embed both tasks with one probe and the same settings."
            )

    def to_dict(self) -> dict[str, Json]:
        """The space as plain values."""
        return {
            "probe": self.probe,
            "probe_digest": self.probe_digest,
            "layers": [[layer.name, layer.n_filters] for layer in self.layers],
            "preprocessing": dict(self.preprocessing),
            "head": dict(self.head),
            "sampling": dict(self.sampling),
            "family": self.family,
            "beta": self.beta,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The space that `to_dict` wrote; raises KeyError, TypeError or ValueError otherwise."""
        if values["family"] not in get_args(Family):
            raise ValueError(f"unknown family {values['family']!r}")
        if not (math.isfinite(values["beta"]) and values["beta"] > 0):
            raise ValueError(f"beta must be a finite number > 0, not {values['beta']!r}")
        if any(int(n_filters) < 1 for _, n_filters in values["layers"]):
            raise ValueError("each layer must have at least one filter")
        return cls(
            probe=str(values["probe"]),
            probe_digest=str(values["probe_digest"]),
            layers=tuple(Layer(str(name), int(n_filters)) for name, n_filters in values["layers"]),
            preprocessing=dict(values["preprocessing"]),
            head=dict(values["head"]),
            sampling=dict(values["sampling"]),
            family=values["family"],
            beta=float(values["beta"]),
        )

    @classmethod
    def from_identity(cls, text: str, *, probe: str) -> Self:
        """The space of that `identity`; raises ValueError, KeyError, TypeError or RecursionError otherwise.

        Args:
            text: From anywhere; a reader compares `id` with the one that it was promised.
            probe: Name of the probe, which is no part of the identity.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError("the identity of a space must be a JSON object")
        space = cls.from_dict({**values, "probe": probe})
        if space.identity != text:
            raise ValueError("the identity is not in its one spelling")
        return space


def canonical_json(value: object) -> bytes:
    """One spelling for equal values: sorted keys, no spaces, NaN as null, UTF-8."""
    return json.dumps(_without_nan(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _without_nan(value: object) -> object:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
