"""Which candidates are worth loading, and in which order."""

from collections.abc import Sequence
from itertools import zip_longest


def shortlist(by_distance: Sequence[str], by_prior: Sequence[str], k: int) -> tuple[str, ...]:
    """The k candidates to load: the nearest, the one of the highest prior, the next nearest, and so on.

    Distance says what fits the task, the prior which checkpoint is good; either alone misses what the other
    sees. With k >= 2 the highest prior is always among them, so that the two can be compared.

    Args:
        by_distance: Ids, the nearest first.
        by_prior: Ids, the highest prior first; without those of which none is known.
        k: How many.

    Returns:
        At most k different ids, in the order in which they are to be loaded.
    """
    turns = (id for pair in zip_longest(by_distance, by_prior) for id in pair if id is not None)
    return tuple(dict.fromkeys(turns))[:k]
