"""In which space a catalog's candidates and a task are compared."""

from typing import TYPE_CHECKING

from t2v_hub.catalog import Catalog
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import EmbeddingMismatchError, EmptyCatalogError

if TYPE_CHECKING:
    from t2v_hub.model2vec import Model2Vec


def require_space(catalog: Catalog, target: TaskEmbedding, fit: "Model2Vec | None") -> Space:
    """The target's space, where candidates have distances in it.

    Raises:
        EmptyCatalogError: The catalog has no candidate, or none with a distance.
        EmbeddingMismatchError: No candidate has an embedding in it, or the distance was learned in another.
    """
    if fit is not None:
        require_learned(fit, target.space, f"task {target.task.id!r}")
        require_distances(catalog, fit)
        return target.space
    spaces = list(catalog.spaces())
    if target.space in spaces:
        return target.space
    most_common = most_common_space(catalog)
    closest = min(spaces, key=lambda space: (len(target.space.differences(space)), space != most_common))
    raise EmbeddingMismatchError(
        f"No candidate in {str(catalog.path)!r} has an embedding in space {target.space.id}, that "
        f"of task {target.task.id!r}. The closest of the {len(spaces)} there, {closest.id}, differs: "
        f"{'; '.join(target.space.differences(closest))}. Embed the task in a space of the catalog: "
        f"ModelSelector(catalog).rank(data) does, or Task2Vec.for_space(space).embed(data)."
    )


def most_common_space(catalog: Catalog) -> Space:
    """The space in which the most candidates have an embedding.

    Raises:
        EmptyCatalogError: The catalog has no candidate, or none with an embedding.
    """
    spaces = list(catalog.spaces())
    if spaces:
        return spaces[0]
    lack = f"None of the {len(catalog)} candidates in {str(catalog.path)!r} has an embedding"
    if len(catalog) == 0:
        lack = f"There is no candidate in {str(catalog.path)!r}"
    raise EmptyCatalogError(
        f"{lack}, so there is nothing to rank by. Embed the data that a checkpoint was trained on and add "
        f"both: `t2v embed`, then `t2v catalog add`; or Catalog(path).add(Candidate(id), embedding=...)."
    )


def require_learned(fit: "Model2Vec", space: Space, of: str) -> None:
    """Return when a learned distance can be used in a space.

    Raises:
        EmbeddingMismatchError: It was learned in another one.
    """
    if fit.space != space:
        raise EmbeddingMismatchError(
            f"The distance was learned in space {fit.space.id} (probe {fit.space.probe}), and {of} is in "
            f"space {space.id}; they differ: {'; '.join(fit.space.differences(space))}. Embed the task with "
            f"Task2Vec.for_space(fit.space), pass the images, or learn from embeddings of that space "
            f"(Model2Vec.fit)."
        )


def require_distances(catalog: Catalog, fit: "Model2Vec") -> None:
    """Return when some candidate of a catalog has a distance with a fit.

    Raises:
        EmptyCatalogError: None has.
    """
    if fit.space in catalog.spaces() or any(id in catalog for id in fit.candidates):
        return
    if len(catalog) == 0:
        most_common_space(catalog)  # raises
    raise EmptyCatalogError(
        f"None of the {len(catalog)} candidates in {str(catalog.path)!r} is among the {len(fit.candidates)} "
        f"that the distance was learned for, and none has an embedding in its space {fit.space.id} (probe "
        f"{fit.space.probe}). Learn from errors of these candidates (Model2Vec.fit), or rank without it."
    )
