"""`StoredRows`: Fisher vectors as a catalog holds them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.threads import in_threads

_AT_ONCE = 1 << 18  # values that are decoded at a time, 2 MiB


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows ``values**power * scale``.

    Attributes:
        values: ``(n, n_filters)`` of any float type; may be memory-mapped.
        scale: ``(n,)`` float64.
        power: ``(n,)``, whole numbers.
    """

    values: NDArray[np.floating[Any]]
    scale: NDArray[np.float64]
    power: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def of_mean(self, level: float) -> "StoredRows":
        """The same rows, each brought to a mean; rows of zeros stay."""
        scale = np.ones(len(self))
        plain = StoredRows(self.values, scale.copy(), self.power)
        step = max(1, _AT_ONCE // max(1, self.values.shape[1]))

        def work(start: int) -> None:
            part = slice(start, start + step)
            means = plain.decode(part).mean(axis=1)
            np.divide(level, means, out=scale[part], where=means != 0)

        in_threads(work, range(0, len(self), step))
        return StoredRows(self.values, scale, self.power)

    def decode(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float64]:
        """Some rows in full, ``(m, n_filters)``."""
        result = self.values[rows].astype(np.float64)
        power = self.power[rows]
        for exponent in np.unique(power):
            if exponent != 1:
                chosen = power == exponent
                result[chosen] **= exponent
        result *= self.scale[rows, None]
        return result
