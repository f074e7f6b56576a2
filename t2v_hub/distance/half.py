r"""Symmetric distances of float16 rows to a vector, in float32.

Ranking reads every candidate's row once, so what counts is the number of passes over memory. float16
becomes float32 by moving its bits, which NumPy does with whole registers; its own conversion takes longer
than all the rest. A few rows at a time are worked on in buffers that stay in cache.

float32 is enough for values that are themselves rounded by :math:`2^{-11}`: shares are rounded by about
:math:`2^{-23}`, some two thousand of their products are summed in float32, and these sums in float64.
Rows of which float32 might lose a part are left to the caller: such with a value that is no number
:math:`\ge 0`, and such whose scale or sums are so large or small that squares overflow or vanish.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.threads import in_threads

Rows = NDArray[np.float64]
Singles = NDArray[np.float32]

_IN_CACHE = 3 << 15  # values of one buffer, 384 KiB; there are two, or three
_AT_ONCE = 512  # rows that a thread takes, one after the other as they lie in the file
_SUMMED = 2048  # products that are summed in float32
_LINE = 16  # float32 values of a cache line, on which rows begin
_NOT_FINITE = 0x7C00  # the bits of infinity; above are NaN and whatever has a sign
_BIAS = 112  # by how many powers of two moved bits are too small
_CENTRE = {1: 1, 2: 1, 4: 1, 8: 2}  # halvings of a value that centre its power in float32's range
_SAFE = 1e19  # squares of numbers up to this, and from its inverse, are normal numbers
_SMALLEST = 2.0**-126  # of the normal numbers
_SAFE_RATIO = 1e30  # numbers from its inverse on keep their digits when they are multiplied by quotients
_SAFE_SUM = 1e25  # from its inverse on, squares that vanished (below 1e-38 each) do not count


def half_distances(
    rows: StoredRows, *vectors: Rows, gain: float = 1.0, offset: Rows | None = None
) -> NDArray[np.float64]:
    r"""Symmetric distances of the rows ``gain * row + offset`` to vectors, ``(n_vectors, n)``.

    With x = row/vector, the shares are :math:`u = x/(x + 1)` and :math:`v = 1/(x + 1)`, so there is one
    division. Where there is no offset, a row's scale enters as :math:`c` in
    :math:`u = x/(x + c)`, :math:`v = c/(x + c)`, and a factor of all v changes no cosine.

    Args:
        rows: Stored as float16.
        vectors: ``(n_filters,)`` each, not negative.
        gain: Positive.
        offset: ``(n_filters,)``, positive.

    Returns:
        Numbers in ``[0, 1]``, to 1e-6, mostly to 1e-7; NaN where float32 will not do.
    """
    result = np.full((len(vectors), len(rows)), np.nan)
    plan = _plan(rows, vectors, gain, offset)
    if plan is not None:

        def work(start: int) -> None:
            part = slice(start, min(start + _AT_ONCE, len(rows)))
            result[:, part] = _Worker(plan).distances(part)

        in_threads(work, range(0, len(rows), _AT_ONCE))
    return result


@dataclass(frozen=True, eq=False)
class _Plan:
    """What all threads share.

    Attributes:
        rows: The rows.
        ratio: ``(n_filters,)``, what a row's values are multiplied by.
        lifted: Together with what moved bits lack, where that can be a float32; for powers of 1.
        scale: ``(n,)``, what they are then multiplied by, where there is an offset.
        offset: ``(n_filters,)``, what is then added, or None.
        constant: ``(n,)``, c.
        further: For each further vector, the quotient of the one before and it, ``(n_filters,)``.
        zeros: Filters that are zero in the vector.
    """

    rows: StoredRows
    ratio: Singles
    lifted: Singles | None
    scale: Singles
    offset: Singles | None
    constant: Rows
    further: tuple[Singles, ...]
    zeros: NDArray[np.int64]


def _plan(rows: StoredRows, vectors: tuple[Rows, ...], gain: float, offset: Rows | None) -> _Plan | None:
    """None where float32 will do for no row."""
    first = vectors[0]
    zeros = np.flatnonzero(first == 0)
    if len(zeros) == len(first) or (len(zeros) and offset is not None):
        return None
    if len(vectors) > 1 and (offset is None or (offset / first).min() < 1 / _SAFE_RATIO):
        return None
    halvings = np.zeros(len(rows), np.int64)
    for power, times in _CENTRE.items():
        halvings[rows.power == power] = power * times
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        scale = np.ldexp(rows.scale * gain, halvings)
        scale[~(np.isfinite(scale) & (scale > 0) & (halvings > 0))] = np.nan
        if np.isnan(scale).all():
            return None
        middle = np.exp(np.log(first[first > 0]).mean())  # for ratios and constants to be about 1
        if offset is not None:
            middle = np.exp(np.nanmean(np.log(scale)))
        ratio = np.divide(middle, first, out=np.zeros_like(first), where=first > 0)
        if not ratio[first > 0].min() >= _SMALLEST:
            return None
        lifted = (ratio * 2.0 ** (_BIAS - _CENTRE[1])).astype(np.float32)
        return _Plan(
            rows,
            ratio=ratio.astype(np.float32),
            lifted=lifted if np.isfinite(lifted).all() else None,
            scale=_safe(scale / middle).astype(np.float32),
            offset=None if offset is None else (offset / first).astype(np.float32),
            constant=_safe(middle / scale) if offset is None else np.ones(len(rows)),
            further=tuple((a / b).astype(np.float32) for a, b in pairwise(vectors)),
            zeros=zeros,
        )


def _safe(numbers: Rows) -> Rows:
    """The numbers, NaN where their squares might overflow or vanish."""
    return np.where((numbers > 1 / _SAFE) & (numbers < _SAFE), numbers, np.nan)


def _parts(n_filters: int) -> tuple[int, int]:
    """How many sums a row is split into, and of how many terms: whole cache lines, best with none over."""
    least = -(-n_filters // _SUMMED)
    for n_sums in range(least, 4 * least):
        if n_filters % (n_sums * _LINE) == 0:
            return n_sums, n_filters // n_sums
    return least, -(-n_filters // (least * _LINE)) * _LINE


class _Worker:
    """Buffers of one thread. Rows may be wider than filters, by zeros, so that all parts are equal."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        n_filters = len(plan.ratio)
        n_sums, self.terms = _parts(n_filters)
        self.step = max(1, _IN_CACHE // (n_sums * self.terms))
        self.buffers = np.zeros((3 if plan.further else 2, self.step, n_sums * self.terms), np.float32)
        self.sums = np.empty((1 + len(plan.further), 3, _AT_ONCE, n_sums, 1, 1), np.float32)
        self.usable = np.empty(_AT_ONCE, np.bool_)
        self.equal = np.zeros(_AT_ONCE, np.int64)  # filters that are zero in both

    def distances(self, part: slice) -> Rows:
        """Of consecutive rows, ``(n_vectors, n)``."""
        plan = self.plan
        bits = np.asarray(plan.rows.values)[part].view(np.uint16)
        powers, scale, constant = plan.rows.power[part], plan.scale[part, None], plan.constant[part]
        c = constant[:, None].astype(np.float32)
        lifted = plan.lifted if (powers == 1).all() else None
        n = len(bits)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            for start in range(0, n, self.step):
                some = slice(start, min(start + self.step, n))
                x = self._moved(bits[some], some)
                if lifted is None:
                    _to_powers(x, powers[some])
                    np.multiply(x, plan.ratio, out=x)
                else:
                    np.multiply(x, lifted, out=x)
                if plan.offset is not None:
                    np.multiply(x, scale[some], out=x)
                    np.add(x, plan.offset, out=x)
                self._add_up(x, c[some], some)
            return self._cosine_distances(n, constant)

    def _moved(self, bits: NDArray[np.uint16], some: slice) -> Singles:
        """The first buffer with exponents and fractions of float16 where float32 has them."""
        x: Singles = self.buffers[0, : len(bits), : bits.shape[1]]
        moved = x.view(np.uint32)
        self.usable[some] = bits.max() < _NOT_FINITE or bits.max(axis=1) < _NOT_FINITE
        np.copyto(moved, bits)
        if len(self.plan.zeros):
            np.sum(moved[:, self.plan.zeros] == 0, axis=1, out=self.equal[some])
        np.left_shift(moved, 13, out=moved)
        return x

    def _add_up(self, x: Singles, c: Singles, some: slice) -> None:
        """The sums of u², uv and v², for each vector."""
        n, n_filters = x.shape
        w = self.buffers[1, :n, :n_filters]
        for place in range(len(self.sums)):
            if place:
                np.multiply(x, self.plan.further[place - 1], out=x)
            target = 0 if place == len(self.sums) - 1 else 2  # the last may replace x
            np.add(x, c, out=w)
            np.divide(np.float32(1), w, out=w)
            np.multiply(x, w, out=self.buffers[target, :n, :n_filters])
            if len(self.plan.zeros):
                w[:, self.plan.zeros] = 0
            u, v = (self.buffers[i, :n].reshape(n, -1, 1, self.terms) for i in (target, 1))
            for kind, (a, b) in enumerate(((u, u), (u, v), (v, v))):
                np.matmul(a, b.swapaxes(2, 3), out=self.sums[place, kind, some])

    def _cosine_distances(self, n: int, constant: Rows) -> Rows:
        # (n_vectors, 3, n, n_sums, 1, 1) -> (3, n_vectors, n)
        sums = self.sums[:, :, :n].sum(axis=(3, 4, 5), dtype=np.float64).swapaxes(0, 1)
        safe = ((sums[::2] > 1 / _SAFE_SUM) & (sums[::2] < _SAFE_SUM)).all(axis=0)
        safe &= self.usable[:n]
        n_zeros = len(self.plan.zeros)
        if n_zeros:  # where both are zero, both shares are a half; where the vector alone is, the row has all
            equal = self.equal[:n]
            sums += 0.25 * np.stack([equal, equal / constant, equal / constant**2])[:, None]
            sums[0] += n_zeros - equal
        uu, uv, vv = sums
        return np.where(safe, np.clip(1.0 - uv / np.sqrt(uu * vv), 0.0, 1.0), np.nan)


def _to_powers(x: Singles, powers: NDArray[np.int64]) -> None:
    """Moved bits to their values, halved a few times, and these to their powers."""
    exponents = [_BIAS - _CENTRE.get(power, 0) for power in powers.tolist()]
    np.multiply(x, np.ldexp(np.float32(1), exponents)[:, None], out=x)
    for place in np.flatnonzero(powers > 1):
        for _ in range(int(powers[place]).bit_length() - 1):
            np.square(x[place], out=x[place])
