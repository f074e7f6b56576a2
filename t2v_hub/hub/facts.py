"""`Facts`: what one row of the Hub's listing says of a checkpoint and of the data it was trained on.

A row is JSON that others wrote. Nothing here raises for what it holds, and nothing here looks at more
than a fixed number of its items or characters: what cannot be used is as if it were not there.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from t2v_hub.catalog import Candidate, Library
from t2v_hub.embedding import TaskEmbedding

_MOST = {"tags": 1000, "datasets": 64, "base models": 32, "entries": 8, "results": 16, "metrics": 16}
_LONGEST = 500  # characters of any text
_LIBRARIES: tuple[Library, ...] = ("timm", "transformers")  # timm's are tagged with both: it comes first
_SHARED = ("revision", "library", "parameters", "licence", "downloads", "likes", "gated", "upstream_accuracy")

_PART = "[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(f"(?:{_PART}/)?{_PART}")
_NO_ID = re.compile(r"--|\.\.|\.git$|^[^/]+\.(?:csv|jsonl?|txt|zip|tar|gz|parquet|h5|npz)$", re.IGNORECASE)
_SITE = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/"
_PREFIX = re.compile(f"(?:{_SITE}|hf://)(datasets/)?|(datasets?:|datasets/)", re.IGNORECASE)
_NO_OWNERS = {"api", "blog", "collections", "docs", "models", "papers", "spaces"}
_PAGES = {"tree", "blob", "resolve", "raw", "viewer", "discussions", "commit", "commits"}

# What is written where no data set has a name: loaders, nothing, one's own. Matched as `_squashed` spells it.
_NO_DATA_SET = re.compile(
    "(?:my|own|your|custom|private|local|internal|train|training|test|validation|image|audio|video|the)?"
    "(?:data|dataset|datasets|folder|image|images)?"
    "|arrow|csv|generator|generic|hdf5|json|lance|pandas|parquet|sql|text|txt|webdataset|xml"
    "|default|n/?a|nan|nil|none|null|other|proprietary|synthetic|tbd|todo|undefined|unknown|various"
)
_KNOWN = (  # ids that cards also call by the one-part names of old
    "AI-Lab-Makerere/beans", "ILSVRC/imagenet-1k", "aharley/rvl_cdip", "ethz/food101", "ylecun/mnist",
    "microsoft/cats_vs_dogs", "songweig/imagenet_sketch", "ufldl-stanford/svhn", "uoft-cs/cifar10",
    "uoft-cs/cifar100", "zalando-datasets/fashion_mnist",
)  # fmt: skip
_SPELLINGS = {id.casefold(): id for id in _KNOWN}
_FILLERS = re.compile(r"[\s_.@()-]+")
_ALIASES = {_FILLERS.sub("", id.split("/")[1]): id for id in _KNOWN} | dict.fromkeys(
    ("imagenet", "imagenet2012", "ilsvrc2012", "imagenetilsvrc2012"), "ILSVRC/imagenet-1k"
)

_NUMBER = re.compile(r"([0-9]{1,3}(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)")
_RELATION_TAG = re.compile("base_model:(finetune|quantized|merge|adapter):")
_RELATIONS = {
    "fine": "finetune",
    "quant": "quantized",
    "merg": "merge",
    "adapt": "adapter",
    "lora": "adapter",
}
_SIGNS = {"gguf": "quantized", "peft": "adapter", "merge": "merge", "mergekit": "merge"}
_ACCURACY = re.compile(
    "(?:eval|test|val|validation|overall|classification)?acc(?:uracy)?(?:top)?1?|top1(?:acc|accuracy)?"
)
_OTHER_METRIC = re.compile("top(?:[2-9]|10)|acc(?:uracy)?(?:[2-9]|10)$|train|balanced|macro|error")


@dataclass(frozen=True)
class Facts:
    """What the Hub's listing says of a checkpoint. A fact that is None is not known, or not usable.

    Attributes:
        id: Repository, as the Hub spells it.
        revision: Commit, 40 hexadecimal digits.
        library: Which library loads it; None also where it is one that we do not know.
        licence: As the Hub spells it; ``other`` stays ``other``, as its ``license_name`` is free text
            that could say anything; several are joined by commas.
        parameters: How many numbers its safetensors files hold.
        downloads: Downloads in the last 30 days.
        likes: Likes.
        gated: Whether access must be requested, automatically granted or not.
        private: Whether only some may see it.
        disabled: Whether the Hub has closed it.
        pipeline_tag: Its task, such as ``image-classification``.
        tags: Its tags, those that the Hub computed among them.
        last_modified: When it was last committed to, as the Hub writes it.
        upstream_accuracy: Accuracy in [0, 1], **self-reported**: whatever its ``model-index`` claims.
        accuracies: Data sets, and the accuracy of classifying images of each that were held out; likewise
            self-reported.
        datasets: Ids of the data sets it was trained on, in order of trust: those of its card, of the
            results in its ``model-index`` (some name only what was evaluated), of its tags.
        base_models: Ids of the checkpoints it was made from, never its own.
        relation: How it was made from them: ``finetune``, ``quantized``, ``merge``, ``adapter``, or another
            word of its card; None where it has no base model.
    """

    id: str
    revision: str | None = None
    library: Library | None = None
    licence: str | None = None
    parameters: int | None = None
    downloads: int | None = None
    likes: int | None = None
    gated: bool | None = None
    private: bool = False
    disabled: bool = False
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    last_modified: str | None = None
    upstream_accuracy: float | None = None
    accuracies: tuple[tuple[str, float], ...] = ()
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    relation: str | None = None


def facts_of(row: object) -> Facts | None:
    """What a row of ``GET /api/models`` says; None where not even its id can be used. Never raises.

    Args:
        row: The row as parsed from JSON, with ``cardData``, ``tags`` and what else was expanded.
            A ``model-index`` is read from the card, else from beside it.
    """
    found = _dict(row)
    id = _id(found.get("id")) or _id(found.get("modelId"))
    if id is None:
        return None
    card = _dict(found.get("cardData"))
    tags = _texts(found.get("tags"), "tags") or _texts(card.get("tags"), "tags")
    tensors = _dict(found.get("safetensors"))
    total = sum(_count(n) or 0 for n in islice(_dict(tensors.get("parameters")).values(), 64))
    results = _results(card.get("model-index")) or _results(found.get("model-index"))
    declared = _distinct(map(normalised_data_set, _texts(card.get("datasets"), "datasets")))
    evaluated = _distinct(map(_data_set_of, results))
    tagged = _distinct(normalised_data_set(tag) for tag in tags if tag.startswith("dataset:"))
    bases = _distinct(map(_id, _texts(card.get("base_model"), "base models")))
    bases = bases or _distinct(_id(t.split(":")[-1]) for t in tags if t.startswith("base_model:"))
    bases = tuple(base for base in bases if base.casefold() != id.casefold() and not _is_filler(base))
    library = _text(found.get("library_name")) or _text(card.get("library_name"))
    libraries = (library.casefold(),) if library else tags
    revision, gated = _text(found.get("sha")) or "", found.get("gated")
    return Facts(
        id=id,
        revision=revision if re.fullmatch("[0-9a-f]{40}", revision) else None,
        library=next((name for name in _LIBRARIES if name in libraries), None),
        licence=_licence(card, tags),
        parameters=_count(tensors.get("total")) or _count(total) or None,
        downloads=_count(found.get("downloads")),
        likes=_count(found.get("likes")),
        gated=gated is not False if isinstance(gated, bool) or gated in ("auto", "manual") else None,
        private=found.get("private") is True,
        disabled=found.get("disabled") is True,
        pipeline_tag=_text(found.get("pipeline_tag")) or _text(card.get("pipeline_tag")),
        tags=tags,
        last_modified=_text(found.get("lastModified")),
        upstream_accuracy=_accuracy(results, declared or tagged or evaluated),
        accuracies=_accuracies(results),
        datasets=_distinct([*declared, *evaluated, *tagged])[: _MOST["datasets"]],
        base_models=bases[: _MOST["base models"]],
        relation=_relation(card, tags, bases) if bases else None,
    )


def candidate_of(
    facts: Facts, embeddings: Sequence[TaskEmbedding] = (), *, source: str | None = None
) -> Candidate:
    """The checkpoint as a `Candidate`. Never raises for what `facts_of` returned.

    Args:
        facts: What the listing says.
        embeddings: Of the data sets it was trained on.
        source: Data set it was trained on; by default the first that its own row names.
    """
    source = source or next(iter(facts.datasets), None)
    shared = {name: getattr(facts, name) for name in _SHARED}
    return Candidate(facts.id, source=source, embeddings=embeddings, **shared)


def normalised_data_set(name: object) -> str | None:
    """Id of the data set on the Hub that a card means; None where it means none. Never raises.

    Well-known data sets get the id under which the Hub has them now (``imagenet_1k`` is
    ``ILSVRC/imagenet-1k``); other ids keep their spelling, and are to be compared case-folded. Names of
    loaders (``imagefolder``), of nothing (``None``) and of one's own data (``custom``) are no ids.
    """
    id = _id(name, data_set=True) or ""
    if _is_filler(id):
        return None
    return _SPELLINGS.get(id.casefold(), id) if "/" in id else _ALIASES.get(_squashed(id), id)


def _id(value: object, *, data_set: bool = False) -> str | None:
    """A repository's id in an address, behind a prefix, or as it is."""
    text, prefixed = _text(value) or "", False
    while not prefixed and (match := _PREFIX.match(text)):
        if data_set != any(match.groups()):
            return None
        text = text[match.end() :]
        prefixed = not _PREFIX.match(text)  # dataset:https://...
    parts = re.split("[?#]", text, maxsplit=1)[0].rstrip("/").split("/")
    if prefixed:
        if parts[0] in _NO_OWNERS or not {".", ".."}.isdisjoint(parts):
            return None
        parts = [part.split("@")[0] for part in parts[: 1 if _PAGES.intersection(parts[1:2]) else 2]]
    id = "/".join(parts)
    return id if _ID.fullmatch(id) and not _NO_ID.search(id) else None


def _relation(card: dict[str, Any], tags: tuple[str, ...], bases: tuple[str, ...]) -> str:
    if said := _squashed(card.get("base_model_relation")):
        return next((name for start, name in _RELATIONS.items() if said.startswith(start)), said)
    if tagged := next(filter(None, map(_RELATION_TAG.match, tags)), None):
        return tagged[1]
    inferred = "finetune" if len(bases) == 1 else "merge"  # several are merged, as a rule
    return next((_SIGNS[tag] for tag in tags if tag in _SIGNS), inferred)


def _licence(card: dict[str, Any], tags: tuple[str, ...]) -> str | None:
    named = _texts(card.get("license"), "entries")
    named = named or tuple(tag.removeprefix("license:") for tag in tags if tag.startswith("license:"))
    return ", ".join(_distinct(name.casefold() for name in named[: _MOST["entries"]])) or None


def _results(index: object) -> list[dict[str, Any]]:
    return [
        result for entry in _dicts(index, "entries") for result in _dicts(entry.get("results"), "results")
    ]


def _data_set_of(result: dict[str, Any]) -> str | None:
    data_set = _dict(result.get("dataset"))
    name = _text(data_set.get("name")) or ""  # free text as a rule, such as "CIFAR-10 (test)"
    return normalised_data_set(data_set.get("type")) or (normalised_data_set(name) if "/" in name else None)


def _accuracies(results: list[dict[str, Any]]) -> tuple[tuple[str, float], ...]:
    """The accuracy on each data set, of images that are not said to be of its training split."""
    by_data_set: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        data_set = _data_set_of(result)
        if data_set is not None and _is_of_images(result) and _held_out(result):
            by_data_set.setdefault(data_set.casefold(), []).append(result)
    found = ((_data_set_of(group[0]), _accuracy(group, ())) for group in by_data_set.values())
    named = ((id, accuracy) for id, accuracy in found if id is not None and accuracy is not None)
    return tuple(islice(named, _MOST["datasets"]))


def _is_of_images(result: dict[str, Any]) -> bool:
    task = _dict(result.get("task"))
    return "imageclassification" in (_squashed(task.get("type")), _squashed(task.get("name")))


def _held_out(result: dict[str, Any]) -> int:
    """2 where its split is a test split by its name, 0 where it is a training split, else 1."""
    split = _squashed(_dict(result.get("dataset")).get("split"))
    return 2 if split.startswith(("test", "val", "eval", "dev")) else int("train" not in split)


def _accuracy(results: list[dict[str, Any]], training: tuple[str, ...]) -> float | None:
    """The first accuracy of the best kind: on the training data's test split, of images, verified."""
    best, best_kind = None, (-1, -1, -1, -1)
    folded = {id.casefold() for id in training}
    for result in results:
        data_set = _data_set_of(result)
        own = 1 if data_set is None else 2 * (data_set.casefold() in folded)
        held_out, images = _held_out(result), int(_is_of_images(result))
        for metric in _dicts(result.get("metrics"), "metrics"):
            names = [name for key in ("type", "name") if (name := _squashed(metric.get(key)))]
            named = any(map(_ACCURACY.fullmatch, names)) and not any(map(_OTHER_METRIC.search, names))
            value, kind = _share(metric.get("value")), (own, held_out, images, metric.get("verified") is True)
            if named and value is not None and kind > best_kind:
                best, best_kind = value, kind
    return best


def _share(value: object) -> float | None:
    """A share in [0, 1] of what may be a percentage, a text, or wrapped in a list or a dict."""
    if isinstance(value, dict):  # what `evaluate` returns
        value = value.get("accuracy", value.get("value"))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    percent = False
    if isinstance(value, str) and (match := _NUMBER.fullmatch(_text(value) or "")):
        value, percent = float(match[1]), bool(match[2])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value / 100 if percent or value > 1 else value)


def _squashed(value: object) -> str:
    return _FILLERS.sub("", _text(value) or "").casefold()


def _is_filler(id: str) -> bool:
    return _NO_DATA_SET.fullmatch(_squashed(id)) is not None


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    """The texts in their order, each once, whatever its case."""
    seen: dict[str, str] = {}
    for value in filter(None, values):
        seen.setdefault(value.casefold(), value)
    return tuple(seen.values())


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) and len(value) <= _LONGEST else ""
    return text if text and text.isprintable() else None  # no control characters, no lone surrogates


def _items(value: object, what: str) -> list[object]:
    return value[: _MOST[what]] if isinstance(value, list) else [value]


def _texts(value: object, what: str) -> tuple[str, ...]:
    return tuple(text for item in _items(value, what) if (text := _text(item)))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object, what: str) -> list[dict[str, Any]]:
    return [item for item in _items(value, what) if isinstance(item, dict)]


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None
