r"""Symmetric distances of float16 rows to vectors, in float32.

Ranking reads every candidate's row once, so what counts is the number of passes over memory. float16
becomes float32 by moving its bits, which NumPy does with whole registers; its own conversion takes longer
than all the rest. A few rows at a time are worked on in buffers that stay in cache, and of the two shares
u and v only one is made: :math:`\sum uv = \sum v - \sum v^2` and :math:`\sum u^2 = n - 2\sum v + \sum v^2`.
The last would cancel where nearly all v are 1. So the share is made of what seems to be smaller, row or
vector, and where that was wrong the other one.

float32 is enough for values that are themselves rounded by :math:`2^{-11}`: shares are rounded by about
:math:`2^{-23}`, at most 1,024 of them are summed in float32, and these sums in float64.
Rows of which float32 might lose a part are left to the caller: such with a value that is no number
:math:`\ge 0`, and such whose scale or sums are so large or small that squares overflow or vanish.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.threads import in_threads
from t2v_hub.embedding.half import POWERS

Rows = NDArray[np.float64]
Singles = NDArray[np.float32]

_IN_CACHE = 3 << 15  # values of one buffer, 384 KiB; there are two
_AT_ONCE = 512  # rows that a thread takes, one after the other as they lie in the file
_SUMMED = 1024  # shares that are summed in float32 at most
_LEAST_SUMS = 8  # of a row: when each is rounded to float32, errors cancel
_LINE = 16  # float32 values of a cache line, on which rows begin
_NOT_FINITE = 0x7C00  # the bits of infinity; above are NaN and whatever has a sign
_BIAS = 112  # by how many powers of two moved bits are too small
_LARGEST = 16  # the power of two above all of float16
_NORMAL = (2.0**-126, 2.0**127)
# Where vectors lie between these, a value of a row that is beyond float32's range has, or leaves, a share of
# at most 1e-38/1e-26 or 1e15/1e38; where squares of shares sum to more than _SAFE_SUM, that is nothing.
_SAFE_VECTOR = (1e-26, 1e15)
_SAFE_SUM = 1e-18
_SAFE_MEAN = 1e-30  # of values whose largest could be 1
_USUAL_MAXIMUM = 6e4  # of a stored row
_WELL_BELOW = 4.0
_MOST = 0.65  # a mean share above which one minus the share is summed instead


@dataclass(frozen=True, eq=False)
class HalfDistances:
    """What float32 gave; NaN where it will not do.

    Attributes:
        values: ``(n_vectors, n)`` in [0, 1], to 1e-6, mostly to 1e-7.
        scale: ``(n,)``, with what each row was taken.
    """

    values: Rows
    scale: Rows


def half_distances(
    rows: StoredRows,
    *vectors: Rows,
    gain: float = 1.0,
    offset: Rows | None = None,
    level: float | None = None,
    about: Rows | None = None,
) -> HalfDistances:
    """Symmetric distances of the rows ``gain * row + offset`` to vectors.

    What comes out for a row and a vector has the same bits whatever other rows and vectors there are,
    where ``about`` is the same.

    Args:
        rows: Stored as float16.
        vectors: ``(n_filters,)`` each, not negative.
        gain: Positive.
        offset: ``(n_filters,)``, positive.
        level: The mean to which each row is brought by its scale; None leaves scales as they are.
        about: The vector about which float32's range is laid; None for the first.
    """
    n = len(rows)
    result = HalfDistances(np.full((len(vectors), n), np.nan), np.full(n, np.nan))
    plan = _plan(rows, vectors, gain, offset, level, vectors[0] if about is None else about)
    if plan is not None:

        def work(start: int) -> None:
            part = slice(start, min(start + _AT_ONCE, n))
            worker = _Worker(plan, part)
            result.scale[part] = worker.scale
            result.values[:, part] = worker.distances()

        in_threads(work, range(0, n, _AT_ONCE))
    return result


@dataclass(frozen=True, eq=False)
class _Vector:
    """One vector, divided by what all are divided by.

    Attributes:
        values: ``(n_filters,)``.
        sum: With the offset.
        zeros: Filters that are zero.
    """

    values: Singles
    sum: Singles
    zeros: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What all threads share: the rows, what is done to them, and vectors, None where float32 will not do."""

    rows: StoredRows
    gain: float
    offset: Singles | None
    level: float | None
    largest: float  # value of the first vector, less the offset
    vectors: tuple[_Vector | None, ...]


def _plan(
    rows: StoredRows,
    vectors: tuple[Rows, ...],
    gain: float,
    offset: Rows | None,
    level: float | None,
    about: Rows,
) -> _Plan | None:
    """None where float32 will do for no row."""
    if not about.any():
        return None
    about = np.log(about[about > 0])
    middle = np.exp((about.min() + about.max()) / 2) / np.sqrt(_SAFE_VECTOR[0] * _SAFE_VECTOR[1])

    def vector_of(values: Rows) -> _Vector | None:
        total = values if offset is None else values + offset
        smallest = values[values > 0].min(initial=np.inf)
        if not (smallest / middle >= _SAFE_VECTOR[0] and total.max() / middle <= _SAFE_VECTOR[1]):
            return None
        return _Vector(_single(values / middle), _single(total / middle), np.flatnonzero(values == 0))

    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        return _Plan(
            rows,
            gain=float(gain / middle),
            offset=None if offset is None else _single(offset / middle),
            level=level,
            largest=float((vectors[0] if offset is None else vectors[0] - offset).max() / middle),
            vectors=tuple(map(vector_of, vectors)),
        )


def _single(numbers: Rows) -> Singles:
    result: Singles = numbers.astype(np.float32)
    return result


def _parts(n_filters: int) -> tuple[int, int]:
    """How many sums a row is split into, and of how many terms: whole cache lines, best with none over."""
    least = max(_LEAST_SUMS, -(-n_filters // _SUMMED))
    for n_sums in range(least, 4 * least):
        if n_filters % (n_sums * _LINE) == 0:
            return n_sums, n_filters // n_sums
    return least, -(-n_filters // (least * _LINE)) * _LINE


class _Worker:
    """Consecutive rows. Buffers may be wider than filters, by zeros, so that all parts are equal."""

    def __init__(self, plan: _Plan, part: slice) -> None:
        self.plan = plan
        self.bits = np.asarray(plan.rows.values)[part].view(np.uint16)
        self.powers = plan.rows.power[part]
        n, self.n_filters = self.bits.shape
        self.n_sums, self.terms = _parts(self.n_filters)
        self.step = max(1, _IN_CACHE // (self.n_sums * self.terms))
        self.buffers = np.zeros((2, self.step, self.n_sums * self.terms), np.float32)
        self.ones = np.ones((self.n_sums, self.terms, 1), np.float32)
        self.usable = np.empty(n, np.bool_)  # whose values are all numbers >= 0
        self.power = int(self.powers[0]) if (self.powers == self.powers[0]).all() else None
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            self.scale = plan.rows.scale[part] if plan.level is None else self._level(plan.level, part)
            roots = np.where(self.scale > 0, self.scale * plan.gain, np.nan) ** (1 / self.powers)
            factors = np.ldexp(roots, _BIAS)
            usable = (factors > _NORMAL[0]) & (factors < _NORMAL[1]) & np.isin(self.powers, POWERS)
            self.factors = np.where(usable, factors, np.nan).astype(np.float32)
            largest = self.scale * plan.gain * _USUAL_MAXIMUM**self.powers
            # Rows that seem to be below the first vector; well below it, where their share takes a pass more.
            self.smaller = largest < plan.largest / (1 if plan.offset is None else _WELL_BELOW)

    def distances(self) -> Rows:
        """``(n_vectors, n)``."""
        vectors = [(place, vector) for place, vector in enumerate(self.plan.vectors) if vector is not None]
        sums = self._empty(len(self.plan.vectors), 2, len(self.bits))
        sums[:] = np.nan
        neither = np.zeros(len(self.bits), np.bool_)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            for some in self._steps(len(self.bits)):
                bits = self._checked(some)
                x = self._values(bits, self.powers[some], self.factors[some])
                for place, vector in reversed(vectors):  # the first may change x
                    smaller = self.smaller[some] if place == 0 else neither[some]
                    self._divide(x, bits, vector, smaller)
                    self._add_up(len(bits), sums[place, :, some])
            totals = sums.sum(axis=(3, 4, 5), dtype=np.float64)  # (n_vectors, 2, n)
            totals[:, :, ~self.usable] = np.nan
            for place, vector in vectors:
                wrong = np.flatnonzero(totals[place, 0] > _MOST * self.n_filters)
                if len(wrong):
                    smaller = self.smaller if place == 0 else neither
                    totals[place][:, wrong] = self._sums_of_other(wrong, vector, ~smaller[wrong])
            first, squares = totals.swapaxes(0, 1)
            products, others = first - squares, self.n_filters - 2 * first + squares
            found = np.clip(1.0 - products / np.sqrt(squares * others), 0.0, 1.0)
        return np.where(squares > _SAFE_SUM, found, np.nan)

    def _level(self, level: float, part: slice) -> Rows:
        """What brings each row to that mean."""
        sums = self._empty(len(self.bits))
        factor = np.full(len(self.bits), 2.0 ** (_BIAS - _LARGEST), np.float32)
        for some in self._steps(len(self.bits)):
            x = self._values(self._checked(some), self.powers[some], factor[some])
            np.matmul(self._split(0, len(x)), self.ones, out=sums[some])
        means = sums.sum(axis=(1, 2, 3), dtype=np.float64) / self.n_filters
        scale = np.ldexp(level / means, -_LARGEST * self.powers)
        given = self.plan.rows.scale[part]
        usable = self.usable & np.isin(self.powers, POWERS) & (means > _SAFE_MEAN)
        usable &= (given > _NORMAL[0]) & (given < _NORMAL[1])
        return np.where(usable, scale, np.nan)

    def _sums_of_other(self, chosen: NDArray[np.int64], vector: _Vector, smaller: NDArray[np.bool_]) -> Rows:
        """Sums of shares of some rows and of their squares, ``(2, n)``."""
        sums = self._empty(2, len(chosen))
        for some in self._steps(len(chosen)):
            rows = chosen[some]
            bits = self.bits[rows]
            x = self._values(bits, self.powers[rows], self.factors[rows])
            self._divide(x, bits, vector, smaller[some])
            self._add_up(len(bits), sums[:, some])
        result: Rows = sums.sum(axis=(2, 3, 4), dtype=np.float64)
        return result

    def _divide(
        self, x: Singles, bits: NDArray[np.uint16], vector: _Vector, smaller: NDArray[np.bool_]
    ) -> None:
        """Shares in the second buffer: of rows that are smaller, whose x may change, else of the vector."""
        shares = np.add(x, vector.sum, out=self._buffer(1, bits))
        if not smaller.any():
            np.divide(vector.values, shares, out=shares)
        else:
            for values, share, of_row in zip(x, shares, smaller.tolist(), strict=True):
                if of_row and self.plan.offset is not None:
                    np.add(values, self.plan.offset, out=values)
                np.divide(values if of_row else vector.values, share, out=share)
        if len(vector.zeros):  # a filter that is zero in both counts as equal
            equal = 0.5 * (bits[:, vector.zeros] == 0)
            shares[:, vector.zeros] = np.where(smaller[:, None], 1 - equal, equal)

    def _values(self, bits: NDArray[np.uint16], powers: NDArray[np.int64], factors: Singles) -> Singles:
        """The powers of moved bits times factors, in the first buffer."""
        x = self._buffer(0, bits)
        moved = x.view(np.uint32)
        np.copyto(moved, bits)
        np.left_shift(moved, 13, out=moved)  # exponents and fractions to where float32 has them
        np.multiply(x, factors[:, None], out=x)
        if self.power is not None:
            _square(x, self.power)
        else:
            for row, power in zip(x, powers.tolist(), strict=True):
                _square(row, power)
        return x

    def _checked(self, some: slice) -> NDArray[np.uint16]:
        bits: NDArray[np.uint16] = self.bits[some]
        self.usable[some] = bits.max() < _NOT_FINITE or bits.max(axis=1) < _NOT_FINITE
        return bits

    def _add_up(self, n: int, out: Singles) -> None:
        """Sums of the second buffer and of its squares, ``(2, n, n_sums, 1, 1)``."""
        shares = self._split(1, n)
        np.matmul(shares, self.ones, out=out[0])
        np.matmul(shares, shares.swapaxes(2, 3), out=out[1])

    def _steps(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.step, n)) for start in range(0, n, self.step)]

    def _buffer(self, which: int, bits: NDArray[np.uint16]) -> Singles:
        result: Singles = self.buffers[which, : len(bits), : self.n_filters]
        return result

    def _split(self, which: int, n: int) -> Singles:
        result: Singles = self.buffers[which, :n].reshape(n, self.n_sums, 1, self.terms)
        return result

    def _empty(self, *shape: int) -> Singles:
        """For sums of parts of rows."""
        return np.empty((*shape, self.n_sums, 1, 1), np.float32)


def _square(x: Singles, power: int) -> None:
    for _ in range(power.bit_length() - 1):
        np.square(x, out=x)
