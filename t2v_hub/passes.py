"""Passes of one shape through a probe, and smaller ones where memory runs out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from t2v_hub.blocks import BLOCK_SIZE, BlockLayout
from t2v_hub.errors import InsufficientMemoryError, SmallerBatchWarning
from t2v_hub.fisher.squares import casting
from t2v_hub.probe import ProbeNetwork
from t2v_hub.processes import Processes

T = TypeVar("T")
Places = TypeVar("Places", range, NDArray[np.int64])

_CPU_PASS = 8  # larger passes are not faster on a CPU, and one size for all keeps the bits


class Passes:
    """Runs images of a sample through a probe, as many at a time as its device likes and bears.

    Args:
        probe: The probe, placed where it is to run.
        images: ``(n, 3, h, w)`` uint8.
        batch_size: Images per pass on an accelerator.
        autocast: Type of the passes; None for the probe's own.

    Attributes:
        size: Images per pass; every pass has exactly that many, the last one of a run repeated.
    """

    def __init__(
        self,
        probe: ProbeNetwork,
        images: NDArray[np.uint8],
        *,
        batch_size: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.probe = probe
        self.images = images
        self.autocast = autocast
        self.size = _CPU_PASS if probe.device.type == "cpu" else min(batch_size, BLOCK_SIZE)

    def chosen(self, places: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """The probe's inputs for some images."""
        pixels = torch.from_numpy(self.images[np.asarray(places, np.int64)]).to(self.probe.device)
        return self.probe.preprocessing.normalise(pixels).to(next(self.probe.module.parameters()).dtype)

    def inputs(self, places: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """The inputs of one pass: some images, the last repeated until the pass is full."""
        filled = np.append(places, [places[-1]] * (self.size - len(places)))
        return self.chosen(filled.astype(np.int64))

    def features(self, places: range) -> NDArray[np.float64]:
        """Features of consecutive images, ``(len(places), n_features)``.

        Raises:
            InsufficientMemoryError: Not even one image fits into memory.
        """

        def work(part: range) -> NDArray[np.float64]:
            with torch.no_grad(), casting(self.probe.device, self.autocast):
                features = self.probe.features(self.inputs(part))[: len(part)]
            result: NDArray[np.float64] = features.double().cpu().numpy()
            return result

        return np.concatenate([rows for _, rows in self.over(places, work)])

    def all_features(self, processes: Processes, bar: "tqdm[Any]") -> NDArray[np.float64]:
        """Features of all images, ``(n, n_features)``; several processes share the work.

        Raises:
            InsufficientMemoryError: Not even one image fits into memory.
        """
        layout = BlockLayout(len(self.images))

        def features_of(index: int) -> NDArray[np.float64]:
            rows = self.features(layout.block(index))
            bar.update(len(rows) * processes.count)
            return rows

        return np.concatenate(processes.share_out(range(layout.n_blocks), features_of))

    def over(self, places: Places, work: Callable[[Places], T]) -> Iterator[tuple[Places, T]]:
        """What ``work`` returns for the images of each pass, and which these are, in order.

        Raises:
            InsufficientMemoryError: Not even one image fits into memory.
        """
        start = 0
        while start < len(places):
            part = places[start : start + self.size]
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)
                continue
            yield part, result
            start += len(part)

    def _shrink(self, error: BaseException) -> None:
        """Halve the pass after running out of memory; anything else is raised again."""
        if not out_of_memory(error):
            raise error
        if self.size == 1:
            raise InsufficientMemoryError(
                f"One image of {self.images.shape[1:]} does not fit into the memory of "
                f"{self.probe.device} with {self.probe.name!r}. Use a smaller image_size, fewer filters, or "
                f"a smaller probe."
            ) from error
        self.size //= 2
        if self.probe.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"Out of memory: going on with {self.size} images per pass. Results differ by rounding.",
            SmallerBatchWarning,
            stacklevel=2,
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of its accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
