"""`TaskEmbedding` and entry of a card's ``task2vec:`` block, spec ``t2v/1``; see ``docs/card-format.md``.

Everything that is read here was written by strangers. A reader never raises on it: what cannot be used
is left out, with the reason.
"""

import base64
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from t2v_hub.card.fields import (
    MAX_TEXT,
    array_of,
    checked_text,
    count_of,
    is_printable,
    kind,
    number_of,
    shown,
    text_of,
)
from t2v_hub.embedding import HalfVector, Json, Measurement, Space, TaskEmbedding, TaskInfo
from t2v_hub.embedding.half import POWERS
from t2v_hub.errors import CardEntryError, EmbeddingError, SettingsError

Role = Literal["finetune", "pretrain", "self"]

SPEC = "t2v/1"
TAG = "task2vec"
LOCAL = "local"
"""Id in a card of a data set that is not on the Hub and whose name was not to be published."""

MAX_ENTRIES = 64
_MAX_ERROR = 1e3
_MAX_FILTERS = 1 << 18
_MAX_LAYERS = 1 << 12
_MAX_IDENTITY = 1 << 16
_MAX_NAMES = 25_000
_SPLITS = ("train", "validation", "test")
_COMMIT = re.compile("[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_PROBE = re.compile(r"(?:hf-hub:)?[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?(?:@[\w.-]{1,100})?")
_SPACE = re.compile("s[0-9a-f]{15}")


@dataclass(frozen=True, eq=False)
class CardEntry:
    """An entry that can be used.

    Attributes:
        embedding: What it holds, to float16's precision and without deviations.
        role: What the data set is to the repository: it was fine-tuned on it, pretrained on it, or is it.
        half: The Fisher vector as the card has it.
        probe: What the card calls the probe; a claim, and no part of the space's identity.
    """

    embedding: TaskEmbedding
    role: Role
    half: HalfVector
    probe: str | None = None


@dataclass(frozen=True)
class CardEntries:
    """What the ``task2vec:`` block of a card holds.

    Attributes:
        entries: Those that can be used.
        skipped: Why the others cannot, in words.
        opted_out: Whether the owner wants no embeddings there (``task2vec: false``).
    """

    entries: tuple[CardEntry, ...] = ()
    skipped: tuple[str, ...] = ()
    opted_out: bool = False


def space_tag(space: str) -> str:
    """The tag by which a listing finds cards with an embedding of that space."""
    return f"t2v-space:{space}"


def entry_values(embedding: TaskEmbedding, *, role: Role, publish_names: bool = False) -> dict[str, Json]:
    """The entry of an embedding as plain values, in the order in which a card has them.

    Args:
        embedding: What to write. Its deviations stay behind: they are 15 times its size.
        role: What the data set is to the repository.
        publish_names: Whether names of classes, names and fingerprints of data sets that are not on the
            Hub, and the name of a local probe are written, too.

    Raises:
        SettingsError: There is no such role.
        CardEntryError: A name cannot be written: control characters, or far too long.
    """
    if role not in get_args(Role):
        raise SettingsError(f"role must be one of {', '.join(map(repr, get_args(Role)))}, not {role!r}.")
    half = HalfVector.encode(embedding.fisher)
    data = half.values.astype("<f2").tobytes()
    values: dict[str, Json] = {
        "spec": SPEC,
        "space": embedding.space.id,
        "role": role,
        "dataset": _data_set_values(embedding.task, publish_names=publish_names),
        "measured": _measured_values(embedding.measurement),
    }
    if _PROBE.fullmatch(embedding.space.probe) and "/" in embedding.space.probe:  # else it may be a class's
        values["probe"] = embedding.space.probe
    values |= {
        "settings": embedding.space.identity,
        "dim": len(embedding.fisher),
        "prior": "f32:" + base64.b64encode(embedding.prior.astype("<f4").tobytes()).decode(),
        "scale": half.scale,
        "power": half.power,
        "data": "f16:" + base64.b64encode(data).decode(),
        "digest": _digest(data),
    }
    return values


def replaces(new: Mapping[str, Json], old: object) -> bool:
    """Whether a new entry takes the place of an old one: same space, data set, configuration, split, role."""
    return isinstance(old, Mapping) and old.get("spec") == SPEC and _key(new) == _key(old)


def read_entries(block: object, *, spaces: Mapping[str, Space] | None = None) -> CardEntries:
    """What a card's ``task2vec:`` block holds; never raises.

    Args:
        block: The block as YAML or JSON gives it; None where the card has none.
        spaces: Spaces that are known here, by id. An entry of another space must carry its settings.
    """
    if block is None:
        return CardEntries()
    if block is False:
        return CardEntries(opted_out=True)
    if not isinstance(block, list):
        return CardEntries(skipped=(f"task2vec is {kind(block)}, not a list of entries",))
    entries, skipped, known = [], [], dict(spaces or {})
    for number, values in enumerate(block[:MAX_ENTRIES], start=1):
        try:
            entry = read_entry(values, spaces=known)
        except CardEntryError as error:
            skipped.append(f"entry {number}: {error}")
            continue
        # One space has one name of its probe, however its entries spell it: digests hang on the name.
        known.setdefault(entry.embedding.space.id, entry.embedding.space)
        entries.append(entry)
    if len(block) > MAX_ENTRIES:
        skipped.append(f"{len(block) - MAX_ENTRIES} entries beyond the first {MAX_ENTRIES}")
    return CardEntries(tuple(entries), tuple(skipped))


def read_entry(values: object, *, spaces: Mapping[str, Space] | None = None) -> CardEntry:
    """One entry.

    Raises:
        CardEntryError: It cannot be used; the message says why.
    """
    if not isinstance(values, Mapping):
        raise CardEntryError(f"it is {kind(values)}, not a mapping")
    spec = values.get("spec")
    if spec != SPEC:
        raise CardEntryError(f"its spec is {shown(spec)}, and only {SPEC} is understood here")
    role = values.get("role")
    if role not in get_args(Role):
        raise CardEntryError(f"its role is {shown(role)}, not one of {', '.join(get_args(Role))}")
    space = _space(values, spaces or {})
    half = _half(values, space)
    prior = array_of(values, "prior", "f32:", np.dtype("<f4"), len(space.layers)).astype(np.float32)
    with np.errstate(over="ignore"):
        fisher = half.decode().astype(np.float32)
    try:
        embedding = TaskEmbedding(fisher, prior, space, _task(values), _measurement(values))
    except EmbeddingError as error:
        raise CardEntryError(str(error)) from error
    return CardEntry(embedding, cast(Role, role), half, _probe(values))


def _data_set_values(task: TaskInfo, *, publish_names: bool) -> dict[str, Json]:
    commit = task.revision is not None and bool(_COMMIT.fullmatch(task.revision))
    # A commit is there where the data was loaded from the Hub; a slash alone may be in any name.
    public = publish_names or (commit and bool(_REPOSITORY.fullmatch(task.id)))
    values: dict[str, Json] = {"id": task.id if public else LOCAL}
    if task.config is not None and public:
        values["config"] = task.config
    if task.split is not None and (public or task.split in _SPLITS):
        values["split"] = task.split
    if task.revision is not None and public:
        values["revision"] = f"sha:{task.revision}" if commit else task.revision
    if task.label_column is not None and public:
        values["label"] = task.label_column
    values |= {"n": task.n_samples, "classes": task.n_classes}
    if task.multi_label:
        values["multi_label"] = True
    if publish_names and task.class_names:
        values["names"] = list(task.class_names)
    texts = [text for text in values.values() if isinstance(text, str)]
    for text in (*texts, *(task.class_names if publish_names else ())):
        if not is_printable(text):
            raise CardEntryError(
                f"{text[:60]!r} cannot be written into a card: wanted 1 to {MAX_TEXT} characters, none of "
                f"them a control character. Give the data set another name (name=), or leave names out."
            )
    return values


def _measured_values(how: Measurement) -> dict[str, Json]:
    values: dict[str, Json] = {"estimator": how.estimator, "images": how.n_samples, "seed": how.seed}
    if how.n_labels != 1:
        values["labels"] = how.n_labels
    if how.dtype != "float32":
        values["dtype"] = how.dtype
    errors = {"standard_error": how.standard_error, "distance_se": how.distance_standard_error}
    values |= {name: float(f"{error:.4g}") for name, error in errors.items() if math.isfinite(error)}
    if "t2v_hub" in how.versions:
        values["t2v_hub"] = how.versions["t2v_hub"]
    return values


def _key(values: Mapping[str, Any]) -> tuple[object, ...]:
    data = values.get("dataset")
    data = data if isinstance(data, Mapping) else {}
    id = data.get("id")
    own = (id.casefold() if isinstance(id, str) else id, data.get("config"), data.get("split"))
    return values.get("space"), values.get("role"), *own


def _space(values: Mapping[str, Any], spaces: Mapping[str, Space]) -> Space:
    id = values.get("space")
    if not isinstance(id, str) or not _SPACE.fullmatch(id):
        raise CardEntryError(f"its space is {shown(id)}, not s and 15 hexadecimal digits")
    if id in spaces:
        return spaces[id]
    settings = values.get("settings")
    if not isinstance(settings, str):
        raise CardEntryError(f"it does not carry the settings of its space, {id}, which is not known here")
    if len(settings) > _MAX_IDENTITY:
        raise CardEntryError(f"the settings of its space are longer than {_MAX_IDENTITY >> 10} kB")
    space = _space_of(settings, _probe(values) or Space.probe)
    if isinstance(space, str):
        raise CardEntryError(f"the settings of its space cannot be read: {space}")
    if space.id != id:
        raise CardEntryError(f"its settings are those of space {space.id}, not {id}")
    return space


def _probe(values: Mapping[str, Any]) -> str | None:
    probe = values.get("probe")
    return probe if isinstance(probe, str) and _PROBE.fullmatch(probe) else None


@functools.lru_cache(maxsize=256)
def _space_of(settings: str, probe: str) -> Space | str:
    """The space, or why there is none; thousands of cards carry the same."""
    try:
        space = Space.from_identity(settings, probe=probe)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return shown(f"{type(error).__name__}: {error}")
    if len(space.layers) > _MAX_LAYERS or space.n_filters > _MAX_FILTERS:
        return f"{space.n_filters} filters in {len(space.layers)} layers are too many"
    return space


def _half(values: Mapping[str, Any], space: Space) -> HalfVector:
    dim = values.get("dim")
    if isinstance(dim, bool) or dim != space.n_filters:
        raise CardEntryError(f"its dim is {shown(dim)}, but its space has {space.n_filters} filters")
    power = values.get("power", 1)
    if isinstance(power, bool) or not isinstance(power, int) or power not in POWERS:
        raise CardEntryError(f"its power is {shown(power)}, not one of {', '.join(map(str, POWERS))}")
    scale = number_of(values, "scale")
    if not scale > 0:
        raise CardEntryError(f"its scale is {scale!r}, not positive")
    stored = array_of(values, "data", "f16:", np.dtype("<f2"), space.n_filters).astype(np.float16)
    promised = values.get("digest")
    if promised != _digest(stored.astype("<f2").tobytes()):
        raise CardEntryError("its digest is not that of its data, which was damaged or changed")
    if not np.isfinite(stored).all():
        raise CardEntryError("its data holds values that are not finite")
    if (stored < 0).any():
        raise CardEntryError("its data holds negative values")
    if not stored.any():  # it would be nearest to everything, by a distance that favours the complex
        raise CardEntryError("its data is zero throughout")
    return HalfVector(stored, scale, power)


def _task(values: Mapping[str, Any]) -> TaskInfo:
    data = values.get("dataset")
    if not isinstance(data, Mapping):
        raise CardEntryError(f"its dataset is {kind(data)}, not a mapping")
    id = text_of(data, "id")
    if id is None:
        raise CardEntryError("its dataset has no id")
    revision = text_of(data, "revision")
    if revision is not None:
        revision = revision.removeprefix("sha:")
    names = data.get("names", [])
    if not isinstance(names, list) or len(names) > _MAX_NAMES:
        raise CardEntryError("the names of its classes are no list")
    n_classes, multi_label = count_of(data, "classes", least=1), data.get("multi_label", False)
    if not isinstance(multi_label, bool):
        raise CardEntryError(f"its multi_label is {shown(multi_label)}, not true or false")
    return TaskInfo(
        id=id,
        n_samples=count_of(data, "n", least=1),
        n_classes=n_classes,
        config=text_of(data, "config"),
        split=text_of(data, "split"),
        revision=revision,
        label_column=text_of(data, "label"),
        class_names=tuple(checked_text(name, "name of a class") for name in names),
        multi_label=multi_label,
    )


def _measurement(values: Mapping[str, Any]) -> Measurement:
    how = values.get("measured")
    if not isinstance(how, Mapping):
        raise CardEntryError(f"its measured is {kind(how)}, not a mapping")
    version = text_of(how, "t2v_hub")
    errors = {
        name: number_of(how, name) if name in how else math.nan for name in ("standard_error", "distance_se")
    }
    if any(not 0 <= error < _MAX_ERROR for error in errors.values() if not math.isnan(error)):
        raise CardEntryError(f"a standard error is not between 0 and {_MAX_ERROR:g}")
    return Measurement(
        estimator=text_of(how, "estimator") or "unknown",
        n_samples=count_of(how, "images", least=1),
        seed=count_of(how, "seed", least=0),
        n_labels=count_of(how, "labels", least=1) if "labels" in how else 1,
        dtype=text_of(how, "dtype") or "float32",
        standard_error=errors["standard_error"],
        distance_standard_error=errors["distance_se"],
        versions={} if version is None else {"t2v_hub": version},
    )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
