"""`AutoSelector`: from a data set to a selector, in one call."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2v_hub.catalog import Catalog
from t2v_hub.distance import ALPHA, DistanceName
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError
from t2v_hub.selector.selector import ModelSelector, most_common_space

if TYPE_CHECKING:
    from torch import nn

    from t2v_hub.probe import ProbeNetwork


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
        distance: DistanceName = "asymmetric",
        alpha: float = ALPHA,
        **settings: Any,
    ) -> ModelSelector:
        """A selector whose `rank` needs no task; the task is embedded once, here.

        Args:
            task: Labelled images, anything that `t2v_hub.data.load` takes, or an embedding.
            catalog: The candidates, or their folder; ``T2V_HOME/catalog`` by default.
            probe: What to embed with; by default the probe and the settings of the space in which the most
                candidates have an embedding.
            distance: Which distance to rank by.
            alpha: Weight of the complexity term of ``asymmetric``.
            **settings: Further arguments of `t2v_hub.task2vec.Task2Vec`, such as ``max_samples``.

        Raises:
            EmptyCatalogError: The catalog has no candidate, or none with an embedding.
            EmbeddingMismatchError: The embedding's space is none of the catalog's.
            SettingsError: A setting cannot work, or one for embedding goes with an embedding.
        """
        if task is None:
            raise SettingsError("from_task needs a task: labelled images or an embedding, not None.")
        candidates = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
        space = most_common_space(candidates)  # before the images are looked at: measuring takes minutes
        ModelSelector(candidates, distance=distance, alpha=alpha)  # likewise
        if isinstance(task, TaskEmbedding):
            given = [*(["probe"] if probe is not None else []), *sorted(settings)]
            if given:
                raise SettingsError(
                    f"The task is an embedding already; {', '.join(given)} cannot change how it was "
                    f"measured. Pass the data instead, or leave the setting out."
                )
            embedding = task
        else:
            from t2v_hub.task2vec import Task2Vec

            if probe is None:
                task2vec = Task2Vec.for_space(space, **settings)
            else:
                task2vec = Task2Vec(probe=probe, **settings)
            embedding = task2vec.embed(task)
        return ModelSelector(candidates, distance=distance, alpha=alpha, task=embedding)
