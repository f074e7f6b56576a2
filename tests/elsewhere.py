"""An executor for tests, in this process."""

import pickle
from collections.abc import Callable, Generator, Iterable

from t2v_hub.errors import WorkerError


class Elsewhere:
    """What another process would do: everything is pickled, and the last item comes first.

    Args:
        lost: Numbers of items whose workers die.

    Attributes:
        sent: The function and the items, as they went.
        closed: Whether nobody asks for more.
    """

    def __init__(self, *, lost: Iterable[int] = ()) -> None:
        self.lost = set(lost)
        self.closed = False
        self.sent: list[bytes] = []

    def map(
        self, function: Callable[[object], object], items: Iterable[object]
    ) -> Generator[tuple[int, object]]:
        try:
            sent, *packed = self.sent = [pickle.dumps(function), *map(pickle.dumps, items)]
            for number, item in reversed(list(enumerate(packed))):
                if number in self.lost:
                    yield number, WorkerError("The work was lost with its worker.")
                else:
                    done = pickle.dumps(pickle.loads(sent)(pickle.loads(item)))
                    yield number, pickle.loads(done)
        finally:
            self.closed = True
