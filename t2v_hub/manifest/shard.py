"""`Shard`: which rows of a manifest one of several processes takes."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from t2v_hub.errors import SettingsError

_FORM = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the work.

    Parts are counted from 0, as job arrays and ranks of processes are:
    ``--shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT`` with ``--array=0-7``.

    Attributes:
        index: Which part, from 0 to ``count - 1``.
        count: How many parts there are.

    Raises:
        SettingsError: There is no such part.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"A shard is one of at least 1 part; got {self.index}/{self.count}.")
        if not 0 <= self.index < self.count:
            hint = " They are counted from 0." if self.index == self.count else ""
            raise SettingsError(
                f"There is no shard {self.index}/{self.count}; of {self.count} there are 0/{self.count} to "
                f"{self.count - 1}/{self.count}.{hint}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that ``"i/n"`` names.

        Raises:
            SettingsError: It names none.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise SettingsError(f"{text!r} is no shard; wanted i/n, such as 0/4 for the first of four parts.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def places(self, names: Iterable[str]) -> list[int]:
        """Places of this shard's names; those of all shards are all places, each once.

        Of every ``count`` consecutive names each shard gets one, which one hangs on the names themselves. So
        shards differ by one name at most, a pattern in the list (each second row a large data set) does not
        make one shard slow, and names that are appended move no others.

        Args:
            names: Distinct, in the order of the rows.
        """
        found = []
        free: list[int] = []
        for place, name in enumerate(names):
            free = free or list(range(self.count))
            digest = hashlib.sha256(name.encode()).digest()
            if free.pop(int.from_bytes(digest[:8], "big") % len(free)) == self.index:
                found.append(place)
        return found
