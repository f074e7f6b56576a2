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

    def scale_of_mean(self, level: float, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The scales that bring some rows to a mean, ``(m,)``; their own for rows of zeros."""
        factor = np.ones(len(rows))
        step = max(1, _AT_ONCE // max(1, self.values.shape[1]))

        def work(start: int) -> None:
            part = slice(start, start + step)
            means = self.decode(rows[part]).mean(axis=1)
            np.divide(level, means, out=factor[part], where=means != 0)

        in_threads(work, range(0, len(rows), step))
        return self.scale[rows] * factor

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
