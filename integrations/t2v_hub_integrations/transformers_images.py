"""`ImageCollator`: rows of a labelled data set as a batch for one checkpoint, prepared as it wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import datasets
import numpy as np
import torch
from transformers import EvalPrediction

from t2v_hub import Preprocessing
from t2v_hub.data import DECODE_FAILURES, load, open_image
from t2v_hub.errors import ColumnError, DataError, ImageError, LabelError, SettingsError
from t2v_hub_integrations.choosing import codes_of

_ROWS = (
    "Pass remove_unused_columns=False to TrainingArguments, and leave images as they are: no "
    "set_transform, no map to pixel_values."
)


@dataclass(frozen=True)
class ImageCollator:
    """Makes a batch of rows: ``pixel_values`` and, where rows have them, ``labels``; for `Trainer`.

    Images are decoded here, row by row, which is in the workers of the loader where it has some. They are
    resized and cropped as for evaluation, not augmented.

    Attributes:
        image_column: Column of the images.
        label_column: Column of the labels.
        codes: Place of each label among the outputs of a network.
        class_names: Names of the classes by those places.
        preprocessing: The network's recipe.
    """

    image_column: str
    label_column: str
    codes: Mapping[object, int]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def of(
        cls,
        data: datasets.Dataset,
        *,
        preprocessing: Preprocessing,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> Self:
        """For rows of the data set that a network is trained on, and others with the same columns.

        Args:
            data: Labelled images, one label each. Classes that do not occur get no output.
            preprocessing: The network's recipe, of `TrainableCheckpoint.preprocessing`.
            image_column: Column of the images, where it is not evident.
            label_column: Column of the labels, where it is not evident.

        Raises:
            SettingsError: Something else than a `datasets.Dataset`.
            LabelError: Images have several labels each.
            DataError: It has no images with labels; subclasses say why.
        """
        if not isinstance(data, datasets.Dataset):
            raise SettingsError(
                f"Wanted the datasets.Dataset that the Trainer trains on; got {type(data).__name__}. Pass "
                f'one split of it: load_dataset(id, split="train").'
            )
        task = load(data, image_column=image_column, label_column=label_column)
        if task.multi_label:
            raise LabelError(
                f"The images of {task.info.id!r} may have several labels each; wanted one. Train with your "
                f"own collator instead: load_for_trainer gives the network and its preprocessing."
            )
        image_column, label_column = str(task.image_column), str(task.info.label_column)
        return cls(image_column, label_column, codes_of(data, task), task.class_names, preprocessing)

    def prepared_for(self, preprocessing: Preprocessing) -> Self:
        """The same for another network."""
        return replace(self, preprocessing=preprocessing)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch.

        Args:
            rows: Rows of the data set.

        Returns:
            ``pixel_values`` ``(batch, channels, height, width)`` float32, and ``labels`` ``(batch,)`` int64.

        Raises:
            ColumnError: Rows without the column of the images.
            ImageError: An image that cannot be decoded.
            LabelError: A label that the training data does not have.
        """
        pixels = np.stack([self._pixels(row) for row in rows])
        batch = {"pixel_values": self.preprocessing.normalise(torch.from_numpy(pixels))}
        if all(self.label_column in row for row in rows):
            batch["labels"] = torch.tensor([self._code(row[self.label_column]) for row in rows])
        return batch

    def _pixels(self, row: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if self.image_column not in row:
            raise ColumnError(
                f"A row has the columns {sorted(map(str, row))}, and images were "
                f"in {self.image_column!r}. {_ROWS}"
            )
        try:
            return self.preprocessing.prepare(open_image(row[self.image_column]))
        except DataError:
            raise
        except DECODE_FAILURES as error:
            raise ImageError(
                f"An image of label {row.get(self.label_column)!r} cannot be decoded ({error}). Leave it out "
                f"of the data set that is trained on."
            ) from error

    def _code(self, label: object) -> int:
        code = self.codes.get(label)
        if code is None:
            raise LabelError(
                f"The label {label!r} in {self.label_column!r} is none of the {len(self.class_names)} "
                f"classes that the network was made for. Leave such rows out, or make it for data that has "
                f"them."
            )
        return code


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of images whose largest logit is the right one, as ``compute_metrics`` of a `Trainer`."""
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    return {"accuracy": float((np.asarray(logits).argmax(axis=-1) == prediction.label_ids).mean())}
