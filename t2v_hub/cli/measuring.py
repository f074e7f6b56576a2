"""From a command's options to a `Task2Vec`: by its own settings, or in the space of a catalog."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2v_hub.cli.output import Output
from t2v_hub.errors import DataNotFoundError, EmbeddingMismatchError, ProbeNotFoundError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog
    from t2v_hub.cli.options import HeadName
    from t2v_hub.data.task import ImageTask
    from t2v_hub.embedding import Json, Space, TaskEmbedding
    from t2v_hub.task2vec import Task2Vec

_LOCAL_STARTS = ("./", "../", "/", "~")
_LOCAL_ENDS = (".json", ".safetensors", ".parquet")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; for the others the library's defaults hold."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def space_settings(
    *,
    image_size: int | None,
    filters: list[str] | None,
    normalisation: bool,
    sampling: str | None,
    head: "HeadName | None",
    head_strength: float | None,
    within: "Space | None" = None,
) -> dict[str, Any]:
    """Those settings of `Task2Vec` that make a space of their own, where they were given.

    What is not said of the head is as in the space ``within``, or the library's default.
    """
    settings = given(image_size=image_size, normalisation=normalisation, sampling=sampling)
    if filters:
        settings["filters"] = _filters(filters)
    if head is not None or head_strength is not None:
        from t2v_hub.head import HeadRecipe

        known: Mapping[str, Any] = {} if within is None else within.head
        settings["head"] = HeadRecipe.from_dict({**known, **given(kind=head, strength=head_strength)})
    return settings


def images(output: Output, data: str, *, seed: int | None, **data_options: Any) -> "ImageTask":
    """The labelled images that a command names, none of them decoded yet.

    To be had before the probe is loaded, so that a wrong path needs neither network nor patience.

    Raises:
        DataError: They cannot be used; subclasses say why.
    """
    if absent(data):
        raise DataNotFoundError(
            f"No such file or folder: {data!r}. Check the path; data sets on the Hub are named like "
            f"'owner/name'."
        )
    from t2v_hub.data import load

    return load(data, progress=output.progress, **given(seed=seed), **data_options)


def check_probe(probe: str | None) -> None:
    """Return when the probe is no path, or one at which something is.

    Raises:
        ProbeNotFoundError: Nothing is there.
    """
    from t2v_hub.plugins import address

    if probe is not None and address(probe) is None and absent(probe):
        raise ProbeNotFoundError(
            f"No such file or folder: {probe!r}. Check the path; wanted a folder with config.json and "
            f"model.safetensors, a .safetensors file with a .json beside it, or the name of a network."
        )


def absent(text: str) -> bool:
    """Whether a text can only be meant as a path, and nothing is there."""
    local = text.startswith(_LOCAL_STARTS) or ("://" not in text and text.endswith(_LOCAL_ENDS))
    return local and not Path(text).expanduser().exists()


def task2vec(output: Output, probe: str | None, *, no_cache: bool, **settings: Any) -> "Task2Vec":
    """A `Task2Vec` with these settings; says what is being loaded, since that takes seconds."""
    from t2v_hub.probe import DEFAULT_PROBE
    from t2v_hub.task2vec import Task2Vec

    output.note(f"loading the probe {probe or DEFAULT_PROBE}")
    return Task2Vec(probe, progress=output.progress, cache=False if no_cache else None, **settings)


def task2vec_of(
    catalog: "Catalog",
    output: Output,
    probe: str | None,
    *,
    no_cache: bool,
    own: bool = False,
    space: "Space | None" = None,
    **settings: Any,
) -> "Task2Vec":
    """A `Task2Vec` that measures in a space of the catalog: the most common one, or that of the probe.

    Args:
        catalog: The catalog.
        output: Where to say what is being loaded.
        probe: The probe, where it was given.
        no_cache: Whether to keep nothing.
        own: Only spaces of embeddings that were added on this machine.
        space: The space, where it is settled already.
        **settings: What does not belong to a space.

    Raises:
        EmptyCatalogError: No candidate has an embedding.
        ProbeNotFoundError: The space's probe is not at hand.
        EmbeddingMismatchError: The given probe is that of none of the catalog's spaces.
    """
    from t2v_hub.selector.spaces import most_common_space

    spaces = [space] if space is not None else list(catalog.own_spaces() if own else catalog.spaces())
    settled = space is not None
    space = spaces[0] if spaces else most_common_space(catalog)  # before torch is imported
    from t2v_hub.probe import ProbeNetwork
    from t2v_hub.task2vec import Task2Vec

    check_probe(probe)
    if probe is None:
        output.note(f"loading the probe {space.probe}")
        embedder = _for_space(space, output, no_cache=no_cache, **settings)
    else:
        output.note(f"loading the probe {probe}")
        network = ProbeNetwork.load(probe)
        fitting = [space for space in spaces if space.probe_digest == network.digest]
        if not fitting:
            known = ", ".join(sorted({repr(space.probe) for space in spaces}))
            if settled:
                raise EmbeddingMismatchError(
                    f"The distance was learned in a space of {known}, whose weights are not those of "
                    f"{probe!r}. Leave --probe out, or say where the same weights lie."
                )
            raise EmbeddingMismatchError(
                f"No embedding in {str(catalog.path)!r} was measured with the weights of {probe!r}; its "
                f"probes are {known}. Leave --probe out, or name one of those."
            )
        space = fitting[0]
        cache = False if no_cache else None
        embedder = Task2Vec.for_space(space, probe=network, progress=output.progress, cache=cache, **settings)
    output.note(f"measuring in space {space.id} of the {'learned distance' if settled else 'catalog'}")
    return embedder


def _for_space(space: "Space", output: Output, *, no_cache: bool, **settings: Any) -> "Task2Vec":
    from t2v_hub.task2vec import Task2Vec

    try:
        return Task2Vec.for_space(
            space, progress=output.progress, cache=False if no_cache else None, **settings
        )
    except ProbeNotFoundError as error:
        raise ProbeNotFoundError(
            f"The catalog's embeddings were measured with {space.probe!r}, which is not at hand: {error} Say "
            f"with --probe where the same weights lie."
        ) from error


def task2vec_beside(
    catalog: "Catalog", output: Output, *, no_cache: bool, changes: dict[str, Any], **settings: Any
) -> "Task2Vec":
    """A `Task2Vec` with the probe and settings of the catalog's most common space, but for some changes.

    Args:
        catalog: The catalog, with at least one embedding.
        output: Where to say what is being loaded.
        no_cache: Whether to keep nothing.
        changes: From `space_settings`.
        **settings: What does not belong to a space.
    """
    space = next(iter(catalog.spaces()))
    output.note(f"loading the probe {space.probe}")
    own = _for_space(space, output, no_cache=no_cache, **settings)
    from t2v_hub.probe import ProbeNetwork
    from t2v_hub.task2vec import Task2Vec

    probe, filters = own.probe, changes.get("filters")
    if filters is not None:  # `own.probe` has the space's filters only
        probe = ProbeNetwork.load(space.probe, filters=filters, preprocessing=probe.preprocessing)
    return Task2Vec(
        probe,
        image_size=changes.get("image_size"),
        head=changes.get("head", own.head),
        sampling=own.sampling,
        beta=own.beta,
        estimator=own.estimator,
        progress=output.progress,
        cache=False if no_cache else None,
        **settings,
    )


def note_other_space(output: Output, catalog: "Catalog", id: str, space: "Space") -> None:
    """Say so when other candidates have embeddings, but none in this space."""
    from t2v_hub.catalog.candidate import records_of

    others = {record.space for item in catalog if item.id != id for record in records_of(item.embeddings)}
    if not others or space.id in others:
        return
    nearest = next(other for other in catalog.spaces() if other.id in others)
    output.note(
        f"This opens another space, {space.id}: {id} will not rank beside the other candidates, whose "
        f"embeddings differ ({'; '.join(space.differences(nearest))})."
    )


def summary(embedding: "TaskEmbedding") -> dict[str, "Json"]:
    """What was measured, as plain values."""
    task, how = embedding.task, embedding.measurement
    return {
        "task": task.id,
        "config": task.config,
        "split": task.split,
        "label_column": task.label_column,
        "revision": task.revision,
        "n_samples": task.n_samples,
        "n_classes": task.n_classes,
        "multi_label": task.multi_label,
        "probe": embedding.space.probe,
        "space": embedding.space.id,
        "n_filters": embedding.space.n_filters,
        "estimator": how.estimator,
        "n_measured": how.n_samples,
        "n_skipped": how.n_skipped,
        "tolerance": how.tolerance,
        "seed": how.seed,
        "norm": embedding.norm,
        "standard_error": how.standard_error,
        "median_standard_error": how.median_standard_error,
        "distance_standard_error": how.distance_standard_error,
        "mean_confidence": how.mean_confidence,
        "digest": embedding.digest,
    }


def _filters(values: list[str]) -> float | list[str]:
    if len(values) == 1:
        try:
            return float(values[0])
        except ValueError:
            pass
    return values
