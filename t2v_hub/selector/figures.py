"""Numbers of a ranking as text."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2v_hub.selector.ranked import RankedCandidate


def gap_in_words(gap: float, error: float | None) -> str:
    """A difference, with its standard error where that is known."""
    digits = _digits_for([gap, *([] if error is None else [error])])
    return number(gap, digits) + ("" if error is None else f" ± {number(error, digits)}")


def digits_of(items: Iterable["RankedCandidate"]) -> int:
    """Decimals for the distances of some candidates and their errors."""
    values = [value for item in items for value in (item.distance, item.standard_error) if value is not None]
    return _digits_for(values)


def _digits_for(values: Iterable[float]) -> int:
    """Decimals that show two digits of the smallest value, at least 3 and at most 6."""
    sizes = [abs(value) for value in values if math.isfinite(value) and abs(value) > 1e-9]
    if not sizes:
        return 3
    return min(6, max(3, 1 - math.floor(math.log10(min(sizes)))))


def number(value: float, digits: int) -> str:
    """A number to so many decimals, but in short where it is huge or infinite."""
    if not math.isfinite(value) or abs(value) >= 1e4:
        return f"{value:.4g}"
    return f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """A count to the thousand, million or billion; a dash where it is not known."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)
