"""Images that could not be decoded: counted, named, and refused when they are too many."""

import warnings

from t2v_hub.data.images import failure
from t2v_hub.errors import ImageError, SettingsError, SkippedImagesWarning

_NAMED = 3


class Skips:
    """Which of ``n`` images were left out so far.

    Args:
        n: Images that will be tried.
        max_skipped: Share of them that may be left out, in ``[0, 1]``. Above 0, one image may
            be left out from 20 on.
    """

    def __init__(self, n: int, *, max_skipped: float = 0.05) -> None:
        if not 0 <= max_skipped <= 1:
            raise SettingsError(f"max_skipped must be a share from 0 to 1; got {max_skipped!r}.")
        self._n = n
        # The small number keeps 0.05 * 20 from falling to 0 by rounding.
        self._allowed = int(max_skipped * n + 1e-9)
        if max_skipped > 0 and n >= 20:
            self._allowed = max(1, self._allowed)
        self.names: list[str] = []

    def add(self, position: int, error: Exception) -> None:
        """Count the image at ``position`` of the data as left out.

        Raises:
            ImageError: That makes too many; the message names the first ones.
        """
        self.names.append(f"image {position}: {failure(error)}")
        if len(self.names) > self._allowed:
            raise ImageError(
                f"Too many images cannot be decoded: {len(self.names)} so far, and at most {self._allowed} "
                f"of {self._n} may be left out. The first: {self._first()}. Repair or remove them."
            ) from error

    def warn(self, stacklevel: int = 3) -> None:
        """Say how many were left out, if any."""
        if self.names:
            warnings.warn(
                f"{len(self.names)} of {self._n} images could not be decoded and were left out: "
                f"{self._first()}.",
                SkippedImagesWarning,
                stacklevel=stacklevel,
            )

    def _first(self) -> str:
        more = len(self.names) - _NAMED
        return "; ".join(self.names[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
