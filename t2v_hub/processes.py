"""The processes that share the work: one, or those that ``accelerate launch`` or ``torchrun`` started."""

import atexit
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Processes:
    """This process among those that share the work.

    Attributes:
        index: Number of this process, from 0; process 0 writes.
        count: How many there are.
    """

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if launched or (torch.distributed.is_available() and torch.distributed.is_initialized()):
            from accelerate import PartialState

            if not torch.distributed.is_initialized():
                # Its threads would else be torn down with the interpreter, which now and then aborts.
                atexit.register(_leave)
            state = PartialState(cpu=not torch.accelerator.is_available())
            self.index, self.count = state.process_index, state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and shows progress."""
        return self.index == 0

    def share(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` returns in each process, in their order; all of them must call this.

        Raises:
            Exception: ``work`` failed in one of the processes; all of them raise, and none waits for ever.
        """
        if self.count == 1:
            return [work()]
        from accelerate.utils import gather_object

        value: T | None = None
        failure: Exception | None = None
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - told to all processes, and raised again below
            failure = error
        results: list[tuple[Any, Exception | None]] = gather_object([(value, failure)])
        for reason in (failure, *(other for _, other in results)):  # its own first
            if reason is not None:
                raise reason
        return [result for result, _ in results]

    def share_out(
        self,
        indices: Sequence[int],
        work: Callable[[int], T],
        *,
        cost: Callable[[int], float] = lambda _: 1.0,
    ) -> list[T]:
        """What ``work`` returns for each index, in order; each process does a share of equal cost.

        Args:
            indices: Of the pieces of work; the same in all processes, as their costs.
            work: Does a piece.
            cost: What a piece costs, in any unit.

        Raises:
            Exception: As `share`.
        """
        own = self._own(indices, cost)
        done: dict[int, T] = {}
        for part in self.share(lambda: {index: work(index) for index in own}):
            done |= part
        return [done[index] for index in indices]

    def _own(self, indices: Sequence[int], cost: Callable[[int], float]) -> list[int]:
        """This process's pieces in order: the dearest first, each to whoever has least to do."""
        loads = [0.0] * self.count
        own = []
        for index in sorted(indices, key=lambda index: (-cost(index), index)):
            process = loads.index(min(loads))
            loads[process] += cost(index)
            if process == self.index:
                own.append(index)
        return sorted(own)


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
