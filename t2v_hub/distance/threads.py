"""`in_threads`: work on many parts in as many threads as there are cores; NumPy lets go of the lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def n_threads() -> int:
    """``OMP_NUM_THREADS``, as for the libraries below NumPy; else as many as cores that we may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[T], None], parts: Sequence[T]) -> None:
    """Call ``work`` with each part, begun in their order; the first exception ends it."""
    n = min(n_threads(), len(parts))
    if n <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(work, part) for part in parts]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
