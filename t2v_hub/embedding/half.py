"""`HalfVector`: non-negative numbers as float16, where a scale and a root make them fit.

float16 has few powers of ten. A vector is therefore divided by a scale that puts its maximum at 6e4,
and where one of its other values would still fall below the smallest normal float16, its square root is
stored instead, or the fourth or eighth root: each doubles the powers of ten that fit, 9 for the value
itself, and the largest relative rounding error, 2^-11 for the value itself. A zero stays a zero. A
logarithm would need no choice, but rounds worse: log2 of a value 2^-20 of the maximum is off by 2^-7 in
float16, the value itself by half a per cent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POWERS = (1, 2, 4, 8)
_MAXIMUM = 6e4  # below float16's largest number, 65504
_SMALLEST_NORMAL = 2.0**-14


@dataclass(frozen=True, eq=False)
class HalfVector:
    """Numbers ``values**power * scale``.

    Attributes:
        values: ``(n,)`` float16, finite, not negative.
        scale: Finite, positive.
        power: 1, 2, 4 or 8.
    """

    values: NDArray[np.float16]
    scale: float
    power: int

    @classmethod
    def encode(cls, vector: NDArray[np.float32]) -> "HalfVector":
        """The vector, finite and not negative, with the smallest power that keeps every value normal."""
        row = vector.astype(np.float64)
        maximum = float(row.max(initial=0.0))
        if maximum == 0:
            return cls(np.zeros(len(row), np.float16), 1.0, 1)
        share = row / maximum
        for power in POWERS:
            stored = (share ** (1 / power) * _MAXIMUM).astype(np.float16)
            if not (stored[share > 0] < _SMALLEST_NORMAL).any():
                break
        return cls(stored, maximum / _MAXIMUM**power, power)

    def decode(self) -> NDArray[np.float64]:
        """The numbers, ``(n,)``."""
        result: NDArray[np.float64] = self.values.astype(np.float64) ** self.power * self.scale
        return result
