"""`StoredRows`: Fisher vectors as a catalog holds them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
