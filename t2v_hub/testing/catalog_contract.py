"""`check_catalog`: what a catalog that a plug-in opens must do."""

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.catalog.candidate import records_of
from t2v_hub.catalog.plugged import Opener, opened
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.selector import ModelSelector
from t2v_hub.testing.contracts import no_error, randomness_kept, require


def check_catalog(open_catalog: Opener, location: str) -> None:
    """Return when what a plug-in opens can be ranked, and is the same each time.

    It has candidates, of different ids by which each is found, and the same ones when it is opened again; all
    their embeddings can be read; and a ranking for one of these, the same each time, knows a distance of
    every candidate that has one in its space. Opening leaves the state of random numbers as it was.

    Args:
        open_catalog: The entry point's function.
        location: One at which there are candidates, one of them with an embedding or more.

    Raises:
        AssertionError: It cannot; the message says what was wanted and what came.
    """
    with randomness_kept(f"Opening {location!r}"), no_error(f"{location!r} gives no catalog"):
        catalog, again = (opened(open_catalog, location, name=location) for _ in range(2))
    candidates = list(catalog)
    require(bool(candidates), f"{location!r} has no candidate. Check it at a location that has some.")
    strange = [item for item in candidates if not isinstance(item, Candidate)]
    require(not strange, f"{location!r} holds {strange[:1]}, which is no Candidate.")
    ids = [candidate.id for candidate in candidates]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    require(not twice, f"{location!r} has more than one candidate of the ids {twice[:3]}.")
    require(
        len(catalog) == len(ids),
        f"len() of {location!r} is {len(catalog)}, and it holds {len(ids)} candidates.",
    )
    for candidate in candidates:
        with no_error(f"{location!r} does not find {candidate.id!r} by its id"):
            found = catalog[candidate.id]
        require(candidate.id in catalog, f"{location!r} holds {candidate.id!r}, and `in` denies it.")
        require(found == candidate, f"{location!r} holds {candidate.id!r}, and finds {found} by that id.")
    changed = sorted({c.id for c in candidates} ^ {c.id for c in again}) or [
        one.id for one, other in zip(candidates, again, strict=False) if one != other
    ]
    require(not changed, f"{location!r} had other candidates when it was opened again: {changed[:3]}.")
    embeddings = [e for candidate in candidates for e in _embeddings(candidate, location)]
    require(
        bool(embeddings),
        f"No candidate of {location!r} has an embedding, so none has a distance. Check it at a location "
        f"where one has.",
    )
    for embedding in {e.space.id: e for e in embeddings}.values():
        _check_ranking(catalog, embedding, location)


def _embeddings(candidate: Candidate, location: str) -> list[TaskEmbedding]:
    with no_error(f"An embedding of {candidate.id!r} in {location!r} cannot be read"):
        return [candidate.embeddings[index] for index in range(len(candidate.embeddings))]


def _check_ranking(catalog: Catalog, task: TaskEmbedding, location: str) -> None:
    with no_error(f"{location!r} cannot be ranked for {task.task.id!r}"):
        rankings = [ModelSelector(catalog, task=task).rank() for _ in range(2)]
    require(
        rankings[0].to_dict() == rankings[1].to_dict(),
        f"Two rankings of {location!r} for {task.task.id!r} differ. The catalog must stay as it was opened.",
    )
    measured = {c.id for c in catalog if any(r.space == task.space.id for r in records_of(c.embeddings))}
    placed = {item.candidate.id for item in rankings[0] if item.distance is not None}
    require(
        placed == measured,
        f"{sorted(placed ^ measured)[:3]} of {location!r} have an embedding in space {task.space.id} and no "
        f"distance, or the other way round.",
    )
