"""From a command's options to a `Task2Vec`: by its own settings, or in the space of a catalog."""

from typing import TYPE_CHECKING, Any

from t2v_hub.cli.output import Output
from t2v_hub.errors import EmbeddingMismatchError, ProbeNotFoundError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog
    from t2v_hub.cli.options import HeadName
    from t2v_hub.embedding import Json, TaskEmbedding
    from t2v_hub.task2vec import Task2Vec


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
) -> dict[str, Any]:
    """Those settings of `Task2Vec` that make a space of their own, where they were given."""
    settings = given(image_size=image_size, normalisation=normalisation, sampling=sampling)
    if filters:
        settings["filters"] = _filters(filters)
    if head is not None or head_strength is not None:
        from t2v_hub.head import HeadRecipe

        settings["head"] = HeadRecipe(**given(kind=head, strength=head_strength))
    return settings


def task2vec(output: Output, probe: str | None, *, no_cache: bool, **settings: Any) -> "Task2Vec":
    """A `Task2Vec` with these settings; says what is being loaded, since that takes seconds."""
    from t2v_hub.probe import DEFAULT_PROBE
    from t2v_hub.task2vec import Task2Vec

    output.note(f"loading the probe {probe or DEFAULT_PROBE}")
    return Task2Vec(probe, progress=output.progress, cache=False if no_cache else None, **settings)


def task2vec_of(
    catalog: "Catalog", output: Output, probe: str | None, *, no_cache: bool, **settings: Any
) -> "Task2Vec":
    """A `Task2Vec` that measures in a space of the catalog: the most common one, or that of the probe.

    Raises:
        EmptyCatalogError: No candidate has an embedding.
        ProbeNotFoundError: The space's probe is not at hand.
        EmbeddingMismatchError: The given probe is that of none of the catalog's spaces.
    """
    from t2v_hub.selector.selector import most_common_space

    space = most_common_space(catalog)  # before torch is imported
    from t2v_hub.probe import ProbeNetwork
    from t2v_hub.task2vec import Task2Vec

    network = None
    if probe is not None:
        output.note(f"loading the probe {probe}")
        network = ProbeNetwork.load(probe)
        fitting = [space for space in catalog.spaces() if space.probe_digest == network.digest]
        if not fitting:
            known = ", ".join(sorted({repr(space.probe) for space in catalog.spaces()}))
            raise EmbeddingMismatchError(
                f"No embedding in {str(catalog.path)!r} was measured with the weights of {probe!r}; its "
                f"probes are {known}. Leave --probe out, or name one of those."
            )
        space = fitting[0]
    else:
        output.note(f"loading the probe {space.probe}")
    output.note(f"measuring in space {space.id} of the catalog")
    cache = False if no_cache else None
    try:
        return Task2Vec.for_space(space, probe=network, progress=output.progress, cache=cache, **settings)
    except ProbeNotFoundError as error:
        if network is not None:
            raise
        raise ProbeNotFoundError(
            f"The catalog's embeddings were measured with {space.probe!r}, which is not at hand: {error} Say "
            f"with --probe where the same weights lie."
        ) from error


def summary(embedding: "TaskEmbedding") -> dict[str, "Json"]:
    """What was measured, as plain values."""
    task, how = embedding.task, embedding.measurement
    return {
        "task": task.id,
        "config": task.config,
        "split": task.split,
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
