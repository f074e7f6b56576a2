"""`Trials`: which checkpoint is trained now, in this process, and what became of the others."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from t2v_hub import Preprocessing
from t2v_hub.data import ImageTask
from t2v_hub.errors import CheckpointError, ProbeUnreachableError, SettingsError
from t2v_hub_integrations.candidates import Candidates, unranked
from t2v_hub_integrations.transformers_images import ImageCollator
from t2v_hub_integrations.transformers_models import load_for_trainer

if TYPE_CHECKING:
    from transformers import BaseImageProcessor


@dataclass(eq=False)
class Trials:
    """Loads the checkpoints of a search, one at a time, and makes batches for the one that was loaded last.

    Attributes:
        candidates: What is searched among.
        data: What they are trained on, as `t2v_hub.data.load` read it.
        rows: Makes batches, for any of them.
        failures: Why checkpoints did not load, by id.
        failed_elsewhere: Why trials of others failed in other processes, by id.
        current: The one that was loaded last.
    """

    candidates: Candidates
    data: ImageTask
    rows: ImageCollator
    failures: dict[str, str] = field(default_factory=dict)
    failed_elsewhere: dict[str, str] = field(default_factory=dict)
    current: str | None = None
    _chosen: str | None = None
    _known: "dict[str, tuple[Preprocessing, BaseImageProcessor]]" = field(default_factory=dict)
    _started: dict[int, float] = field(default_factory=dict)
    _generation: int = 0  # of `rows`; and the newest one, in memory that workers of a loader share
    _newest: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64).share_memory_())

    def start(self, number: int) -> None:
        """Remember when a trial began."""
        self._started[number] = time.time()

    def started(self, number: int) -> float | None:
        """When the trial of that number began here, in seconds since 1970; None where it did not."""
        return self._started.get(number)

    def load(self, id: str) -> PreTrainedModel:
        """A checkpoint with a fresh head; from now on batches are made for it.

        Raises:
            CheckpointError: It does not load, now or when it was tried before; or none of all does. One that
                could not be fetched is tried again.
        """
        if id in self.failures:
            raise CheckpointError(self.failures[id])
        ranked = {item.candidate.id: item for item in self.candidates.ranking}
        item = ranked.get(id) or unranked(id, n_before=len(self.candidates))
        try:
            found = load_for_trainer(item, self.data)
        except CheckpointError as error:
            if not isinstance(error.__cause__, ProbeUnreachableError):
                self.failures[id] = str(error)
            raise
        self._known[id] = (found.preprocessing, found.image_processor)
        self._turn_to(id)
        return found.model

    def first(self) -> PreTrainedModel:
        """The best that loads, or the one that `use` chose.

        Raises:
            CheckpointError: None loads.
        """
        if self._chosen is not None:
            return self.load(self._chosen)
        reasons = {}
        for id in self.candidates.ranked:
            try:
                return self.load(id)
            except CheckpointError as error:
                reasons[id] = str(error)
        told = "; ".join(f"{id!r}: {reason}" for id, reason in list(reasons.items())[:3])
        raise CheckpointError(
            f"None of the {len(self.candidates)} candidates loads: {told} Repair them, or take more "
            f"candidates (top_k)."
        )

    def use(self, id: str) -> "BaseImageProcessor":
        """Take this one from now on where there is no trial; and its image processor."""
        self._chosen = id
        if id not in self._known:  # it was loaded in another process
            self.load(id)
        self._turn_to(id)
        return self._known[id][1]

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch for the current checkpoint.

        Raises:
            SettingsError: No checkpoint was loaded, or this is a worker of an earlier one's loader.
        """
        if self.current is None:
            raise SettingsError(
                "No checkpoint was loaded yet, so it is not known how images are to be prepared. Pass this "
                "search's model_init to the Trainer, too."
            )
        if self._generation != int(self._newest):
            raise SettingsError(
                f"This worker prepares images for {self.current!r}, an earlier trial's checkpoint. Pass "
                f"dataloader_persistent_workers=False to TrainingArguments."
            )
        return self.rows(rows)

    def _turn_to(self, id: str) -> None:
        self.current = id
        self.rows = self.rows.prepared_for(self._known[id][0])
        self._generation += 1
        self._newest += 1
