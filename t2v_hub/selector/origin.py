"""Where the candidates of a ranking come from, and how old what is known of them is."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from t2v_hub.catalog import Catalog, SyncReport
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import EmptyCatalogError, HubError, StorageError

if TYPE_CHECKING:
    from t2v_hub.task2vec import Task2Vec

_PATIENCE_S = 60.0  # nobody who ranks wants to wait through a window of the Hub's limits
_LEAST_IMAGES = 100  # in a card, for it to save one's own measurement
_HARMLESS = {"max_samples", "batch_size", "device", "cache", "progress", "no_cache"}
_DATA_SET = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Origin:
    """Where candidates come from.

    Attributes:
        path: Folder of the catalog.
        report: When cards were last read into it, and from which Hub; None where that never happened.
        failure: Why the Hub could not be asked now, in words; None where it was.
    """

    path: str
    report: SyncReport | None
    failure: str | None = None

    def __str__(self) -> str:
        if self.report is None:
            read = "what was added on this machine"
        else:
            read = f"cards on {self.report.endpoint}, read {self.report.age} ({self.report.synced_at})"
        text = f"{self.path}: {read}"
        return text if self.failure is None else f"{text}; not brought up to date now: {self.failure}"


def up_to_date(
    catalog: Catalog,
    space: Space,
    *,
    endpoint: str | None,
    token: str | bool | None,
    learned: Collection[str] = (),
) -> Origin:
    """Bring a catalog up to date with the Hub, where that can be reached.

    Args:
        catalog: The catalog.
        space: Of which embeddings are wanted.
        endpoint: Address of another Hub.
        token: Access token.
        learned: Candidates that have a distance without any embedding.

    Raises:
        EmptyCatalogError: No candidate has an embedding in that space, or a learned distance.
    """
    from t2v_hub.hub import Connection

    connection = Connection(endpoint=endpoint, token=token, patience_s=_PATIENCE_S, tries=2)
    failure: HubError | StorageError | None = None
    everything = any(report.space is None and not report.filters for report in catalog.synced())
    try:
        catalog.sync(space=None if everything else space, connection=connection)
    except (HubError, StorageError) as error:  # a catalog that one may only read can still be ranked
        failure = error
    latest = next(iter(catalog.synced(space=space)), None)
    if space not in catalog.spaces() and not any(id in catalog for id in learned):
        raise EmptyCatalogError(_nothing(catalog, space, connection.endpoint, failure)) from failure
    return Origin(str(catalog.path), latest, None if failure is None else str(failure))


def own_space(catalog: Catalog) -> Space | None:
    """The space in which the most candidates that were added on this machine have an embedding.

    What a space's probe is called, a stranger's card can claim; nobody's network is fetched for that.
    """
    return next(iter(catalog.own_spaces()), None)


def names_data_set(task: object) -> TypeGuard[str]:
    """Whether a task is given as the id of a data set on the Hub."""
    return isinstance(task, str) and bool(_DATA_SET.fullmatch(task)) and not Path(task).expanduser().exists()


def stored_task(
    task: object,
    task2vec: "Task2Vec",
    settings: Mapping[str, object],
    *,
    endpoint: str | None,
    token: str | bool | None,
) -> TaskEmbedding | None:
    """The embedding in the card of a data set on the Hub, where it is what measuring now would give.

    Args:
        task: The data set; anything but its id has no card.
        task2vec: What would measure it.
        settings: Arguments of ``task2vec`` that were given: of the number of images, the card's must not have
            fewer; with others, such as a seed, the data set is measured.
        endpoint: Address of another Hub.
        token: Access token.
    """
    if not names_data_set(task) or settings.keys() - _HARMLESS:
        return None
    from t2v_hub.hub import Connection
    from t2v_hub.hub.datasets import stored_embedding

    least = task2vec.max_samples if "max_samples" in settings else _LEAST_IMAGES
    connection = Connection(endpoint=endpoint, token=token, patience_s=_PATIENCE_S, tries=2)
    spaces = [task2vec.space(multi_label=multi_label) for multi_label in (False, True)]
    try:
        return stored_embedding(task, spaces, least_images=least, connection=connection)
    except HubError:
        return None  # the data itself may be cached; where it is not, loading it says what is wrong


def _nothing(catalog: Catalog, space: Space, endpoint: str, failure: HubError | StorageError | None) -> str:
    add = (
        "Read data sets and checkpoints of your own into it (`t2v catalog add CHECKPOINT --data IMAGES`), or "
        "enrich checkpoints of others (`t2v enrich --filter image-classification --catalog-only`)."
    )
    here = f"nor does {str(catalog.path)!r} hold one"
    others = ", ".join(f"{other.id} (probe {other.probe}): {n:,}" for other, n in catalog.spaces().items())
    if others:
        here += f"; its embeddings are in other spaces ({others})"
    if failure is not None:
        return (
            f"The Hub's cards could not be read for checkpoints with an embedding in space {space.id} (probe "
            f"{space.probe}), {here}. {failure} {add}"
        )
    return (
        f"No checkpoint on {endpoint} has an embedding in space {space.id} (probe {space.probe}) in its "
        f"card, {here}. {add}"
    )
