"""What the Hub derives from files: card metadata, tags, library, task, number of parameters."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from t2v_hub.testing.loopback.cards import front_matter, metadata
from t2v_hub.testing.loopback.objects import Blob, Kind, Tree

_DATA_SET_KEYS = (
    "annotations_creators",
    "language_creators",
    "language",
    "license",
    "multilinguality",
    "size_categories",
    "source_datasets",
    "task_categories",
    "task_ids",
)


@dataclass(frozen=True)
class Facts:
    """Derived from one commit.

    Attributes:
        card: ``cardData`` as JSON; None where the card has none, or none that parses.
        tags: The card's own and the derived ones.
        library_name: From the card, else from ``config.json``.
        pipeline_tag: From the card, else from ``config.json``.
        parameters: Counted in the headers of ``.safetensors`` files; None without one.
    """

    card: bytes | None
    tags: tuple[str, ...]
    library_name: str | None
    pipeline_tag: str | None
    parameters: int | None


def facts(tree: Tree, kind: Kind, *, library_name: str | None, pipeline_tag: str | None) -> Facts:
    """What the Hub says about a repository with these files.

    Args:
        tree: Contents by path.
        kind: Of the repository.
        library_name: Takes the place of the derived one.
        pipeline_tag: Takes the place of the derived one.
    """
    card = _card(tree.get("README.md"))
    said = card or {}
    config = _config(tree.get("config.json")) if kind == "model" else {}
    if kind == "model":
        library_name = library_name or _text(said.get("library_name"))
        if library_name is None and ("model_type" in config or "transformers_version" in config):
            library_name = "transformers"
        pipeline_tag = pipeline_tag or _text(said.get("pipeline_tag")) or _task(config)
        tags = _model_tags(said, config, tree, library_name, pipeline_tag)
    else:
        tags = _data_set_tags(said)
    return Facts(
        card=None if card is None else json.dumps(card, ensure_ascii=False).encode("utf-8", "replace"),
        tags=tuple(dict.fromkeys(tags)),
        library_name=library_name,
        pipeline_tag=pipeline_tag,
        parameters=_parameters(tree),
    )


def _card(readme: Blob | None) -> dict[str, object] | None:
    front = None if readme is None else front_matter(readme.data.decode("utf-8", "replace"))
    if front is None:
        return None
    try:
        return metadata(front)
    except ValueError:
        return None


def _config(blob: Blob | None) -> dict[str, object]:
    try:
        config = {} if blob is None else json.loads(blob.data)
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _task(config: Mapping[str, object]) -> str | None:
    names = _texts(config.get("architectures"))
    return "image-classification" if any(name.endswith("ForImageClassification") for name in names) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, str) and item]


def _model_tags(
    card: Mapping[str, object], config: Mapping[str, object], files: Iterable[str], *names: str | None
) -> Iterator[str]:
    yield from filter(None, names)
    if any(path.endswith(".safetensors") for path in files):
        yield "safetensors"
    yield from _texts(config.get("model_type"))
    yield from _texts(card.get("tags"))
    if "model-index" in card:
        yield "model-index"
    yield from (f"dataset:{name}" for name in _texts(card.get("datasets")))
    yield from _texts(card.get("language"))
    relation = _text(card.get("base_model_relation")) or "finetune"
    for name in _texts(card.get("base_model")):
        yield f"base_model:{name}"
        yield f"base_model:{relation}:{name}"
    yield from (f"license:{name}" for name in _texts(card.get("license")))
    yield "region:us"


def _data_set_tags(card: Mapping[str, object]) -> Iterator[str]:
    for key in _DATA_SET_KEYS:
        yield from (f"{key}:{value}" for value in _texts(card.get(key)))
    yield from _texts(card.get("tags"))
    yield "region:us"


def _parameters(tree: Tree) -> int | None:
    counts = [_count(blob.data) for path, blob in tree.items() if path.endswith(".safetensors")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(data: bytes) -> int | None:
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        return None
    try:
        header = json.loads(data[8 : 8 + length])
        return sum(int(prod(entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
