"""From a data set and whatever chooses for it to the best candidate that loads."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from t2v_hub import AutoSelector, Catalog, ModelSelector, RankedCandidate, Ranking
from t2v_hub.errors import CheckpointError, ProbeOutputError, SkippedCheckpointsWarning
from t2v_hub_integrations.candidates import Candidates

if TYPE_CHECKING:
    import datasets

    from t2v_hub.data import ImageTask

T = TypeVar("T")

Ready = Ranking | ModelSelector | Candidates
Selection = Ready | Catalog | Path | str | Callable[[object], Ready] | None
"""What chooses: a catalog or its folder, None for the candidates on the Hub; a selector, a ranking or
candidates; or a function that makes one of these three from a data set."""


def ready_for(data: object, selection: Selection, *, settings: Mapping[str, Any] | None = None) -> Ready:
    """A selector for a data set, or whatever chooses for it already.

    Args:
        data: Labelled images, anything that `t2v_hub.data.load` takes.
        selection: What chooses. A ranking, or a selector that is bound to a task, is taken as it is,
            whichever data it was made for.
        settings: Arguments of `AutoSelector.from_task`, where the data is embedded here.

    Raises:
        EmptyCatalogError: There is no candidate.
    """
    if selection is None or isinstance(selection, Catalog | Path | str):
        return AutoSelector.from_task(data, catalog=selection, **(settings or {}))
    return selection(data) if callable(selection) else selection


def candidates_for(data: object, selection: Ready, **options: Any) -> Candidates:
    """The candidates for a data set, best first.

    Args:
        data: For a selector that is not bound to a task.
        selection: From `ready_for`.
        **options: Arguments of `ModelSelector.rank`; None and 0 are left out.

    Raises:
        EmptyCatalogError: There is no candidate.
        SettingsError: Something else than a selection, or options for a ranking that is made already.
    """
    options = {name: value for name, value in options.items() if value not in (None, 0)}
    if isinstance(selection, ModelSelector) and selection.task is None:
        options["task"] = data
    return Candidates.of(selection, **options)


def codes_of(data: "datasets.Dataset", task: "ImageTask") -> dict[object, int]:
    """Place of each label of a column among the outputs of a network: classes that do not occur have none.

    Args:
        data: With the column.
        task: The same, as `t2v_hub.data.load` read it; one label each.
    """
    column = str(task.info.label_column)
    values = data.with_format(None).select_columns([column])[:][column]
    found = zip(task.positions.tolist(), task.labels.tolist(), strict=True)
    return {values[position]: int(code) for position, code in found}


@dataclass(frozen=True)
class FirstLoaded(Generic[T]):
    """The best candidate that loads, and those before it that do not.

    Attributes:
        item: The candidate.
        loaded: What was made of it.
        failures: Why a candidate before it does not load, by its id.
    """

    item: RankedCandidate
    loaded: T
    failures: Mapping[str, str]


def first_that_loads(ranking: Ranking, load: Callable[[RankedCandidate], T]) -> FirstLoaded[T]:
    """The first candidate of a ranking that can be loaded.

    Args:
        ranking: Best first.
        load: What makes something of a candidate.

    Raises:
        CheckpointError: None loads; the message says why of the first ones.

    Warns:
        SkippedCheckpointsWarning: Some were passed over.
    """
    failures: dict[str, str] = {}
    for item in ranking:
        try:
            loaded = load(item)
        except (CheckpointError, ProbeOutputError) as error:
            failures[item.candidate.id] = str(error)
            continue
        if failures:
            warnings.warn(
                f"Candidates that stand before {item.candidate.id!r} do not load and were passed over: "
                f"{_listed(failures)}.",
                SkippedCheckpointsWarning,
                stacklevel=3,
            )
        return FirstLoaded(item, loaded, failures)
    raise CheckpointError(
        f"None of the {len(ranking)} candidates loads: {_listed(failures)}. Repair them, take them out of "
        f"the catalog (t2v catalog remove), or add others."
    )


def _listed(failures: Mapping[str, str], *, named: int = 3) -> str:
    first = [f"{id!r}: {reason.rstrip('.')}" for id, reason in list(failures.items())[:named]]
    more = len(failures) - named
    return "; ".join(first) + (f"; and {more} more" if more > 0 else "")
