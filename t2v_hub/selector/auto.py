"""`AutoSelector`: from a data set to a selector, in one call."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2v_hub.catalog import Catalog
from t2v_hub.catalog.plugged import plugged_catalog
from t2v_hub.distance import DistanceName
from t2v_hub.embedding import SPACE_SETTINGS, Space, TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.selector.loading import Loading
from t2v_hub.selector.origin import Origin, own_space, stored_task, up_to_date
from t2v_hub.selector.selector import ModelSelector
from t2v_hub.selector.spaces import most_common_space, require_distances, require_learned

if TYPE_CHECKING:
    from torch import nn

    from t2v_hub.model2vec import Model2Vec
    from t2v_hub.probe import ProbeNetwork
    from t2v_hub.task2vec import Task2Vec


class AutoSelector:
    """Makes a `ModelSelector` that is bound to a task; has no instances, as ``AutoModel`` has none."""

    def __init__(self) -> None:
        raise SettingsError("AutoSelector has no instances; use AutoSelector.from_task(data).")

    @classmethod
    def from_task(
        cls,
        task: object,
        *,
        catalog: Catalog | Path | str | None = None,
        probe: "ProbeNetwork | nn.Module | Path | str | None" = None,
        distance: "DistanceName | Model2Vec" = "relative",
        alpha: float | None = None,
        endpoint: str | None = None,
        token: str | bool | None = None,
        **settings: Any,
    ) -> ModelSelector:
        """A selector whose `rank` needs no task; the task is embedded once, here.

        The images stay at hand for `rank`'s second stage (``refine``).

        Without ``catalog``, candidates are those on the Hub with an embedding in the task's space, and
        those that were added on this machine: ``T2V_HOME/catalog`` is brought up to date first, and used as
        it is where the Hub is out of reach. `ModelSelector.origin` and the ranking's first lines say which.

        Args:
            task: Labelled images, anything that `t2v_hub.data.load` takes, or an embedding. The id of a data
                set on the Hub whose card holds its embedding in this space needs no images.
            catalog: The candidates, their folder, or ``NAME:LOCATION`` for what the plug-in NAME opens; the
                Hub is then not searched.
            probe: What to embed with. By default the probe and the settings of the space in which the most
                candidates have an embedding; without ``catalog``, one that was added on this machine (a probe
                that only cards name is not fetched), or `Task2Vec`'s where there is none.
            distance: Which distance to rank by, as of `ModelSelector`; a `Model2Vec` decides on the space,
                too.
            alpha: Weight of the complexity term of ``relative`` and ``asymmetric``.
            endpoint: Address of another Hub for cards; images of a data set that is given by its id come
                from the one that ``HF_ENDPOINT`` names.
            token: Access token, where it is not the one that ``hf auth login`` left.
            **settings: Further arguments of `t2v_hub.task2vec.Task2Vec`, such as ``max_samples``.

        Raises:
            EmptyCatalogError: No candidate has a distance, here or on the Hub.
            EmbeddingMismatchError: The embedding's space is none of the catalog's, or not that of the
                learned distance.
            SettingsError: A setting cannot work, or one for embedding goes with an embedding.
        """
        if task is None:
            raise SettingsError("from_task needs a task: labelled images or an embedding, not None.")
        plugged = plugged_catalog(catalog)
        catalog = catalog if plugged is None else plugged
        candidates = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
        fit = ModelSelector(candidates, distance=distance, alpha=alpha).learned  # before images are looked at
        if catalog is not None and fit is None:
            most_common_space(candidates)
        elif catalog is not None and fit is not None:
            require_distances(candidates, fit)
        learned = () if fit is None else fit.candidates
        origin: Origin | None = None
        images: object = None
        if isinstance(task, TaskEmbedding):
            given = [*(["probe"] if probe is not None else []), *sorted(settings)]
            if given:
                raise SettingsError(
                    f"The task is an embedding already; {', '.join(given)} cannot change how it was "
                    f"measured. Pass the data instead, or leave the setting out."
                )
            if fit is not None:
                require_learned(fit, task.space, f"task {task.task.id!r}")
            if catalog is None:
                origin = up_to_date(candidates, task.space, endpoint=endpoint, token=token, learned=learned)
            embedding = task
        else:
            known = own_space(candidates) if catalog is None else next(iter(candidates.spaces()), None)
            if fit is not None:
                known = fit.space
            if probe is not None or settings.keys() & SPACE_SETTINGS:
                known = None
            task2vec = _task2vec(known, probe, settings)
            if fit is not None:
                _require_fit(fit, task2vec)
            found = stored_task(task, task2vec, settings, endpoint=endpoint, token=token)
            if catalog is None:
                space, task = _space(task2vec, task) if found is None else (found.space, task)
                origin = up_to_date(candidates, space, endpoint=endpoint, token=token, learned=learned)
            embedding = task2vec.embed(task) if found is None else found
            images = task
        return ModelSelector(
            candidates,
            distance=distance,
            alpha=alpha,
            task=embedding,
            images=images,
            origin=origin,
            loading=_loading(settings, endpoint, token),
        )


def _loading(settings: dict[str, Any], endpoint: str | None, token: str | bool | None) -> Loading:
    """Candidates are loaded with the settings that the task was measured with."""
    cache = settings.get("cache")
    shared = {key: settings[key] for key in ("device", "batch_size", "progress") if key in settings}
    folder = cache if cache is None or cache is False else Path(cache) / "features"
    return Loading(cache=folder, endpoint=endpoint, token=token, **shared)


def _require_fit(fit: "Model2Vec", task2vec: "Task2Vec") -> None:
    """Return when a task that is measured so may be in the space that a distance was learned in."""
    spaces = [task2vec.space(multi_label=multi_label) for multi_label in (False, True)]
    if fit.space not in spaces:
        require_learned(fit, spaces[0], "a task measured with these settings")


def _task2vec(space: Space | None, probe: Any, settings: dict[str, Any]) -> "Task2Vec":
    from t2v_hub.task2vec import Task2Vec

    return Task2Vec(probe=probe, **settings) if space is None else Task2Vec.for_space(space, **settings)


def _space(task2vec: "Task2Vec", task: object) -> tuple[Space, object]:
    """The space that the task falls into, and its images, none of them decoded yet."""
    from t2v_hub.data import load

    images = load(task, seed=task2vec.seed, progress=task2vec.progress)
    return task2vec.space(multi_label=images.info.multi_label), images
