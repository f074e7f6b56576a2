"""`Patience`: when a run gives up on a Hub that is out of reach."""

from t2v_hub.errors import HubUnreachableError

_FAILURES = 5


class Patience:
    """Counts how often in a row the Hub was out of reach; any answer of it, a refusal too, begins anew."""

    def __init__(self) -> None:
        self._failures = 0

    def answered(self) -> None:
        """The Hub answered."""
        self._failures = 0

    def out_of_reach(self, error: HubUnreachableError) -> None:
        """The Hub was out of reach, after all tries of one request.

        Raises:
            HubUnreachableError: It was so five times in a row: what follows would fare no better.
        """
        self._failures += 1
        if self._failures >= _FAILURES:
            raise error
