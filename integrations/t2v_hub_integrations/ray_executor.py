"""`RayExecutor`: bulk work of t2v_hub on the processes of a Ray cluster, or of this machine."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pickle import PicklingError
from typing import Any, TypeVar

from t2v_hub.errors import SettingsError, WorkerError
from t2v_hub_integrations.dependency import missing

try:
    import ray
except ModuleNotFoundError as error:
    raise missing(error, "ray") from error

from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

Item = TypeVar("Item")
Result = TypeVar("Result")

_NOT_PICKLABLE = (PicklingError, TypeError, AttributeError, ValueError, RuntimeError, OSError)
_WAITING = 16
"""Pieces of work that are handed to Ray at least: an autoscaler sees that more workers are wanted."""


class RayExecutor:
    """Calls a function for many items in Ray's workers: what ``executor="ray"`` makes.

    Where Ray runs already (``ray.init``), it is used as it is; else Ray starts by its own rules: it joins the
    cluster that ``RAY_ADDRESS`` names, or makes this machine one. A piece of work whose worker or machine
    dies is tried again by another.

    Workers need t2v_hub, and read the Hub's address, tokens and caches from their own environment.

    Args:
        num_cpus: Processors for each piece of work, and so threads of torch.
        num_gpus: Accelerators for each; 0 for work on processors.
        max_retries: How often a piece of work is tried again whose worker died, whatever it died of.
        **options: Further options of Ray's tasks, such as ``memory`` or ``resources``.

    Raises:
        SettingsError: Options that Ray does not take.
    """

    def __init__(
        self, *, num_cpus: float = 1, num_gpus: float = 0, max_retries: int = 3, **options: Any
    ) -> None:
        self.num_cpus, self.num_gpus, self.max_retries = num_cpus, num_gpus, max_retries
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise SettingsError(f"max_retries must be a whole number >= 0, not {max_retries!r}.")
        given = {"num_cpus": num_cpus, "num_gpus": num_gpus, **options}
        try:
            # Ray itself would try again for ever what it kills because memory runs out.
            self._remote = ray.remote(**given, max_retries=0)(_call)
        except (ValueError, TypeError) as error:
            raise SettingsError(
                f"Ray takes no tasks with {given}: {error} Pass options of ray.remote."
            ) from error

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[int, Result | WorkerError], None, None]:
        """What the function returns for each item, each once, as soon as it is there.

        Args:
            function: Sent once; a worker keeps it for all of its items.
            items: Taken in order when there is room: some more than the cluster can work on at a time.

        Yields:
            The item's number, and the result, or why there is none: the item cannot be sent to a worker, or
            its workers died, one after the other.

        Raises:
            SettingsError: The function cannot be sent to workers.
            Exception: What the function raised, with the worker's traceback.
        """
        try:
            shared = ray.put(cloudpickle.dumps(function))
        except _NOT_PICKLABLE as error:
            raise SettingsError(
                f"The settings cannot be sent to other processes ({_reason(error)}). Name the probe, or give "
                f"its path, instead of a network in memory; or leave executor=None."
            ) from error
        pending: dict[ray.ObjectRef[Any], _Piece] = {}
        source = enumerate(items)
        following = next(source, None)
        try:
            while following is not None or pending:
                while following is not None and len(pending) < self._room():
                    number, item = following
                    try:
                        piece = _Piece(number, ray.put(cloudpickle.dumps(item)))
                    except _NOT_PICKLABLE as error:
                        yield number, _cannot_travel("cannot be sent to another process", error)
                    else:
                        pending[self._begun(shared, piece)] = piece
                    following = next(source, None)
                for done in ray.wait(list(pending), num_returns=1)[0] if pending else ():
                    piece = pending.pop(done)
                    try:
                        result = ray.get(done)
                    except RayTaskError:
                        raise
                    except RayError as error:
                        if piece.n_lost < self.max_retries:
                            again = replace(piece, n_lost=piece.n_lost + 1)
                            pending[self._begun(shared, again)] = again
                            continue
                        result = _lost(error, n_tries=piece.n_lost + 1)
                    yield piece.number, result
        finally:
            for left in pending:
                ray.cancel(left)

    def _begun(self, shared: "ray.ObjectRef[bytes]", piece: "_Piece") -> "ray.ObjectRef[Any]":
        done: ray.ObjectRef[Any] = self._remote.remote([shared], piece.packed, max(1, int(self.num_cpus)))
        return done

    def _room(self) -> int:
        """How many pieces of work may be at Ray: twice what the cluster, as it is now, can do at a time."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        there = ray.cluster_resources()
        slots = min((there.get(kind, 0.0) / count for kind, count in wanted.items() if count), default=0.0)
        return max(_WAITING, int(2 * slots))


@dataclass(frozen=True)
class _Piece:
    """An item at Ray."""

    number: int
    packed: "ray.ObjectRef[bytes]"
    n_lost: int = 0


_kept: dict[str, Any] = {}  # in a worker: the last function that it was sent


def _call(shared: "list[ray.ObjectRef[bytes]]", packed: bytes, threads: int) -> Any:
    """Call the function that everybody shares for one item; in a worker."""
    import torch

    [reference] = shared
    if reference.hex() not in _kept:
        _kept.clear()
        _kept[reference.hex()] = cloudpickle.loads(ray.get(reference))
    try:
        item = cloudpickle.loads(packed)
    except (*_NOT_PICKLABLE, ImportError, LookupError, EOFError) as error:
        return _cannot_travel("cannot be read in another process", error)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _kept[reference.hex()](item)
    finally:
        torch.set_num_threads(before)  # the worker may be given other work of the user's


def _lost(error: RayError, *, n_tries: int) -> WorkerError:
    tries = "its worker" if n_tries == 1 else f"its workers, {n_tries} times"
    return WorkerError(
        f"The work was lost with {tries} ({_reason(error)}). Look into Ray's log of that worker; if "
        f"memory ran out, ask for more of it (RayExecutor(memory=...)), or lower batch_size or max_samples."
    )


def _cannot_travel(what: str, error: Exception) -> WorkerError:
    return WorkerError(
        f"The data {what} ({_reason(error)}). Give an id of the Hub, or a path that all workers can read; or "
        f"leave executor=None."
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
