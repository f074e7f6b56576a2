"""The task of a ranking: from an embedding file, from images, or from the card of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2v_hub.cli.measuring import check_probe, images, task2vec, task2vec_of
from t2v_hub.cli.output import Output
from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog
    from t2v_hub.data.task import ImageTask
    from t2v_hub.embedding import TaskEmbedding
    from t2v_hub.model2vec import Model2Vec
    from t2v_hub.selector import Origin


@dataclass(frozen=True)
class Target:
    """What is to be ranked for.

    Attributes:
        embedding: Of the task.
        images: Of the task; None where there is only an embedding.
        origin: Where the candidates come from; None where a catalog was given.
    """

    embedding: "TaskEmbedding"
    images: "ImageTask | None"
    origin: "Origin | None"


def target(
    output: Output,
    catalog: "Catalog",
    task: str,
    data_options: dict[str, Any],
    settings: dict[str, Any],
    *,
    fit: "Model2Vec | None",
    from_hub: bool,
    with_images: bool,
    endpoint: str | None,
) -> Target:
    """The embedding in the file, or of the images measured in a space of the catalog; and its origin.

    Args:
        output: Where to say what is done.
        catalog: The candidates.
        task: What the user named.
        data_options: Options of `t2v_hub.data.load` that were given.
        settings: Options of `Task2Vec` that were given.
        fit: A learned distance, in whose space the task is then measured.
        from_hub: Whether the catalog is first brought up to date with the Hub.
        with_images: Whether the images are needed even where their embedding is known.
        endpoint: Address of another Hub.

    Raises:
        SettingsError: Options that do not go with an embedding.
        EmptyCatalogError: No candidate has a distance.
    """
    from t2v_hub.selector.origin import names_data_set, own_space, stored_task, up_to_date
    from t2v_hub.selector.spaces import most_common_space, require_distances, require_learned

    learned = () if fit is None else fit.candidates
    if Path(task).suffix != ".safetensors":
        if fit is not None and not from_hub:
            require_distances(catalog, fit)
        elif not from_hub:
            most_common_space(catalog)  # a catalog without any embedding is named before the data is loaded
        check_probe(settings.get("probe"))
        on_hub = names_data_set(task) and not data_options  # its card may hold its embedding
        found = None if on_hub else images(output, task, seed=settings.get("seed"), **data_options)
        probe, no_cache = settings.pop("probe", None), bool(settings.pop("no_cache", False))
        if fit is not None or not from_hub or own_space(catalog) is not None:
            space = None if fit is None else fit.space
            embedder = task2vec_of(
                catalog, output, probe, no_cache=no_cache, own=from_hub, space=space, **settings
            )
        else:
            embedder = task2vec(output, probe, no_cache=no_cache, **settings)
        stored = stored_task(task, embedder, settings, endpoint=endpoint, token=None) if on_hub else None
        if stored is not None and not with_images:
            output.note(f"the card of {task} holds its embedding; no image is read")
        elif found is None:
            found = images(output, task, seed=settings.get("seed"))
        multi_label = found is not None and found.info.multi_label
        space = embedder.space(multi_label=multi_label) if stored is None else stored.space
        origin = None
        if from_hub:
            origin = up_to_date(catalog, space, endpoint=endpoint, token=None, learned=learned)
        return Target(stored or embedder.embed(found), found, origin)  # measured last: that takes minutes
    names = {"revision": "data-revision"}
    unused = [f"--{names.get(key, key).replace('_', '-')}" for key in (*data_options, *settings)]
    if unused:
        raise SettingsError(
            f"{task!r} is an embedding already; {', '.join(unused)} cannot change how it was measured. Leave "
            f"that out, or give the images."
        )
    from t2v_hub.embedding import TaskEmbedding

    embedding = TaskEmbedding.load(task)
    if fit is not None:
        require_learned(fit, embedding.space, f"task {embedding.task.id!r}")
    origin = None
    if from_hub:
        origin = up_to_date(catalog, embedding.space, endpoint=endpoint, token=None, learned=learned)
    return Target(embedding, None, origin)
