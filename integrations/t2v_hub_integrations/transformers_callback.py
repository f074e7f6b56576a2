"""`Task2VecCallback`: the embedding of what a `Trainer` trains on, in the card of the model."""

import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from t2v_hub import ProbeNetwork, Task2Vec, TaskEmbedding
from t2v_hub.card import TAG, Readme, entry_values, replaces, space_tag
from t2v_hub.errors import CardWarning, T2VError
from t2v_hub.storage import write_atomically

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer

EMBEDDING_FILE = "_task2vec.safetensors"
"""Beside the model. It names classes, so it must stay here: `Trainer` uploads no file that begins so."""

# What reading someone's data set, measuring on a full device and writing to a full disk may raise.
_FAILURES = (
    T2VError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
    RuntimeError,
)


class Task2VecCallback(TrainerCallback):
    """Embeds the training set once, and writes the embedding into the model's card whenever that is made.

    ``trainer.add_callback(Task2VecCallback(trainer))``; nothing else changes, and training stays the same to
    the bit. No event follows a push, and the push writes the card anew. So what it hangs on is
    ``Trainer.create_model_card``, which every `Trainer.push_to_hub` calls before it uploads the folder: the
    embedding is in the same commit as the model, whichever the token, branch, and whether it waits or not.
    Without a push ``trainer.create_model_card()`` writes it into the card in ``output_dir``. The embedding
    itself is saved there as ``_task2vec.safetensors``, which is not uploaded.

    A failure never ends the training: one warning says what to run by hand.

    Args:
        trainer: The trainer. Its training set is what is embedded.
        probe: What to embed with, as of `Task2Vec`.
        data: What to embed instead, anything that `t2v_hub.data.load` takes; needed where the training set
            yields tensors that are prepared already.
        embedding: The embedding, where it was measured before (`ModelSelector.task`).
        publish_names: Whether names of classes, and the name and fingerprint of data that is not on the Hub,
            may be written into the card's entry. The model's own ``config.json`` names its classes either
            way, as every model of transformers does.
        data_options: Options of `t2v_hub.data.load`, such as ``label_column``.
        **settings: Further arguments of `Task2Vec`, such as ``max_samples``.
    """

    def __init__(
        self,
        trainer: "Trainer",
        *,
        probe: "ProbeNetwork | nn.Module | Path | str | None" = None,
        data: object = None,
        embedding: TaskEmbedding | None = None,
        publish_names: bool = False,
        data_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.trainer = trainer
        self.embedding = embedding
        self.publish_names = publish_names
        self._probe = probe
        self._data = data
        self._data_options = dict(data_options or {})
        self._settings = settings
        self._is_settled = embedding is not None
        make_card = trainer.create_model_card

        @functools.wraps(make_card)
        def create_model_card(*arguments: Any, **options: Any) -> None:
            make_card(*arguments, **options)
            if self in trainer.callback_handler.callbacks and trainer.is_world_process_zero():
                self._write_card()

        trainer.create_model_card = create_model_card  # type: ignore[method-assign]  # of this one trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Embed the training set, in all processes together; not for the trials of a search."""
        if not state.is_hyper_param_search:
            self._settle()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the embedding beside the model."""
        if self.embedding is None or state.is_hyper_param_search or not state.is_world_process_zero:
            return
        try:
            self.embedding.save(self._file)
        except _FAILURES as error:
            self._warn(f"The embedding cannot be saved as {str(self._file)!r} ({error}).")

    @property
    def _file(self) -> Path:
        return Path(str(self.trainer.args.output_dir)) / EMBEDDING_FILE

    def _settle(self) -> None:
        """Measure the embedding unless that was tried before."""
        if self._is_settled:
            return
        self._is_settled = True
        data = self.trainer.train_dataset if self._data is None else self._data
        try:
            task2vec = Task2Vec(self._probe, **self._settings)
            self.embedding = task2vec.embed(data, **self._data_options)
        except _FAILURES as error:
            self._warn(
                f"The training set cannot be embedded, so the model's card will not tell what it was "
                f"trained on ({type(error).__name__}: {error}). Afterwards, run: t2v embed DATA -o "
                f"task.safetensors && t2v push {self._repository} task.safetensors"
            )

    def _write_card(self) -> None:
        """Put the embedding into the card that was just written."""
        if self.trainer.args.world_size == 1:  # else all processes would have to measure, and this is one
            self._settle()
        if self.embedding is None:
            return
        path = Path(str(self.trainer.args.output_dir)) / "README.md"
        try:
            values = entry_values(self.embedding, role="finetune", publish_names=self.publish_names)
            readme = Readme.parse(path.read_bytes())
            places = [place for place, item in enumerate(readme.items) if replaces(values, item)]
            content = readme.changed(
                replace=dict.fromkeys(places),
                append=[values],
                add_tags=[TAG, space_tag(self.embedding.space.id)],
            )
            write_atomically(path, content)
            if not self._file.exists():  # after a search, whose trials save none
                self.embedding.save(self._file)
        except _FAILURES as error:
            self._warn(
                f"The embedding cannot be written into {str(path)!r} ({type(error).__name__}: {error}). "
                f"After the push, run: t2v push {self._repository} {self._file}"
            )

    @property
    def _repository(self) -> str:
        arguments = self.trainer.args
        return str(getattr(self.trainer, "hub_model_id", None) or arguments.hub_model_id or "REPOSITORY")

    def _warn(self, message: str) -> None:
        if self.trainer.is_world_process_zero():
            warnings.warn(message, CardWarning, stacklevel=3)
