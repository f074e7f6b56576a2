"""Which images are drawn from a labelled data set, in which order, with which weights.

Everything here is integers and single IEEE operations on the raw output of PCG64, which NumPy
keeps stable, so a seed means the same sample on every platform and in every version.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t2v_hub.errors import SampleSizeError, SettingsError

How = Literal["natural", "balanced"]

_KEYS, _JITTER = 1, 2  # two streams of random numbers from one seed


@dataclass(frozen=True, eq=False)
class Draw:
    """Which images were drawn.

    Attributes:
        chosen: ``(n,)`` int64, places in the labels that were drawn from.
        weights: ``(n,)`` float64 of mean 1.
    """

    chosen: NDArray[np.int64]
    weights: NDArray[np.float64]


def draw_by_class(
    codes: NDArray[np.int64],
    positions: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    max_samples: int,
    seed: int,
    how: How,
) -> Draw:
    r"""A stratified sample: per class the images with the lowest random keys.

    Each position of the data has a key, a 64-bit integer that hangs on the seed and the position
    only; so leaving some images out does not move the others, and a larger sample holds nearly all
    of a smaller one. Of class c the :math:`n_c` images with the lowest keys are taken, where :math:`n_c` is

    - ``natural``: proportional to the images of the class in the data (largest remainders), but at
      least 2, or 1 where ``max_samples`` does not suffice for that;
    - ``balanced``: equal, as far as the classes reach; what small ones lack goes to the others.

    The weights undo what the allocation distorts, :math:`w_i \propto \pi_c\, n / n_c`
    with :math:`\pi_c = N_c / N` or :math:`1 / K`, so that weighted means over the sample
    estimate, without bias, means over the data or over its classes.

    The order is interleaved: image r of its class (by key) stands at :math:`(r + u) / n_c` with
    u random in [0, 1), so that each run of consecutive images has nearly the classes of the whole.

    Args:
        codes: ``(m,)`` classes of the images at hand.
        positions: ``(m,)`` where they are in the data.
        counts: ``(K,)`` images of each class in the data; more than at hand for a stream.
        max_samples: How many to draw at most; all at hand, each once, where it reaches.
        seed: What the keys hang on.
        how: Whose means to estimate: of the data, or of its classes.
    """
    held = np.bincount(codes, minlength=len(counts)).astype(np.int64)
    n = min(max_samples, len(codes))
    shares = counts if how == "natural" else np.ones_like(counts)
    floor = 2 if how == "natural" and int(np.minimum(held, 2).sum()) <= n else 1
    taken = allocate(n, shares=shares, lower=np.minimum(held, floor), upper=held)

    keys = random_integers(positions, seed, stream=_KEYS)
    order = np.lexsort((positions, keys, codes))  # by class, then by key
    starts = np.cumsum(held) - held
    rank = np.arange(len(codes)) - starts[codes[order]]
    chosen = order[rank < taken[codes[order]]]
    rank = rank[rank < taken[codes[order]]]

    of_class = codes[chosen]
    jitter = (random_integers(positions[chosen], seed, stream=_JITTER) >> np.uint64(11)) * 2.0**-53
    place = (rank + jitter) / taken[of_class]
    chosen = chosen[np.lexsort((positions[chosen], place))]
    of_class = codes[chosen]
    weights = shares[of_class] / taken[of_class]
    return Draw(chosen, weights * (n / weights.sum()))


def draw_plain(positions: NDArray[np.int64], *, max_samples: int, seed: int) -> Draw:
    """A sample where images have no one class: those with the lowest keys, in the order of the keys."""
    keys = random_integers(positions, seed, stream=_KEYS)
    chosen = np.lexsort((positions, keys))[:max_samples]
    return Draw(chosen, np.ones(len(chosen)))


def check_sample(max_samples: int, *, n_classes: int, seed: int, how: str, multi_label: bool) -> None:
    """Return when such a sample can be drawn.

    Raises:
        SampleSizeError: It would be smaller than the number of classes.
        SettingsError: Another setting cannot work.
    """
    if how not in ("natural", "balanced"):
        raise SettingsError(f'The sampling must be "natural" or "balanced"; got {how!r}.')
    if how == "balanced" and multi_label:
        raise SettingsError(
            "Images with several labels each cannot be drawn in equal numbers per class. "
            'Use sampling="natural" for this task.'
        )
    check_count("max_samples", max_samples)
    check_seed(seed)
    if max_samples < n_classes:
        raise SampleSizeError(
            f"max_samples={max_samples} is smaller than the {n_classes} classes, and each needs an image. "
            f"Use max_samples={2 * n_classes} or more."
        )


def check_count(name: str, value: object) -> None:
    """Return when ``value`` is a whole number of at least 1; `SettingsError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"{name} must be a whole number of at least 1; got {value!r}.")


def check_seed(seed: object) -> None:
    """Return when ``seed`` is a whole number of at least 0; `SettingsError` otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SettingsError(f"seed must be a whole number of at least 0; got {seed!r}.")


def key_stream(seed: int) -> np.random.PCG64:
    """The source of the keys: ``random_raw()`` gives that of position 0, then of 1, and so on."""
    return _bits(seed, _KEYS)


def random_integers(positions: NDArray[np.int64], seed: int, *, stream: int = _KEYS) -> NDArray[np.uint64]:
    """Uniform 64-bit integers, of which each hangs on the seed and its position only."""
    if len(positions) == 0:
        return np.zeros(0, np.uint64)
    raw: NDArray[np.uint64] = _bits(seed, stream).random_raw(int(positions.max()) + 1)
    return raw[positions]


def allocate(
    total: int, *, shares: NDArray[np.int64], lower: NDArray[np.int64], upper: NDArray[np.int64]
) -> NDArray[np.int64]:
    """``total`` split in proportion to ``shares``, each part between its bounds, by largest remainders.

    Where a bound binds, the others share what is left in proportion; ties go to the first. Needs
    ``lower.sum() <= total <= upper.sum()`` and positive shares.
    """
    parts = np.zeros(len(shares), np.int64)
    free = np.ones(len(shares), dtype=bool)
    left = total
    while free.any():
        # Python's integers: the products may leave 64 bits.
        weight = int(shares[free].sum())
        quota = [left * int(share) for share in shares[free]]  # in units of 1/weight
        short = np.array(
            [int(low) * weight - q for low, q in zip(lower[free], quota, strict=True)], dtype=object
        )
        over = np.array(
            [q - int(up) * weight for up, q in zip(upper[free], quota, strict=True)], dtype=object
        )
        gap = short[short > 0].sum() - over[over > 0].sum()
        places = np.flatnonzero(free)
        if not (short > 0).any() and not (over > 0).any():
            parts[places] = [q // weight for q in quota]
            remainder = np.array([q % weight for q in quota], dtype=object)
            n_more = left - int(parts[places].sum())
            parts[places[np.argsort(-remainder, kind="stable")[:n_more]]] += 1
            break
        # Fixing the bounds that weigh more keeps the rest feasible; with both equal all may be fixed.
        if gap >= 0:
            at = places[short > 0]
            parts[at] = lower[at]
            free[at] = False
        if gap <= 0:
            at = places[over > 0]
            parts[at] = upper[at]
            free[at] = False
        left = total - int(parts[~free].sum())
    return parts


def _bits(seed: int, stream: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(int(seed), spawn_key=(stream,)))
