"""`load_for_trainer`: a ranked candidate of either library as a model that `Trainer` trains and saves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessor,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
)

from t2v_hub import Preprocessing, RankedCandidate, Ranking
from t2v_hub.selector import checkpoint_of
from t2v_hub_integrations.choosing import first_that_loads

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

# What is right for a fine-tuned network, too; the rest tells where the weights once came from.
_TIMM_RECIPE = (
    "input_size",
    "fixed_input_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "mean",
    "std",
    "first_conv",
    "classifier",
)
_RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


@dataclass(frozen=True)
class TrainableCheckpoint:
    """A checkpoint with a fresh head, and what goes with it.

    Attributes:
        id: Of the candidate.
        model: Takes ``pixel_values`` and ``labels`` and returns loss and logits; a timm network stands in
            transformers' own wrapper. `Trainer.save_model` writes what ``from_pretrained`` reads.
        image_processor: For ``pipeline`` and for `Trainer`'s ``processing_class``.
        preprocessing: The same recipe, for `ImageCollator`.
    """

    id: str
    model: PreTrainedModel
    image_processor: "BaseImageProcessor"
    preprocessing: Preprocessing


def load_for_trainer(item: RankedCandidate | Ranking, data: object) -> TrainableCheckpoint:
    """A candidate as a model that `Trainer` takes, with one output per class of the data.

    Args:
        item: A candidate, such as ``ranking[0]``; or a ranking, for the first that loads.
        data: Labelled images, anything that `t2v_hub.data.load` takes.

    Raises:
        CheckpointError: It does not load, or none does; the message says why.
        DataError: The data has no labelled images; subclasses say why.

    Warns:
        SkippedCheckpointsWarning: Candidates of the ranking did not load and were passed over.
    """
    if isinstance(item, Ranking):
        return first_that_loads(item, lambda one: load_for_trainer(one, data)).loaded
    checkpoint = checkpoint_of(item.candidate)
    files = checkpoint.files()
    network = item.load(data)
    preprocessing = checkpoint.preprocessing(network, files)
    if isinstance(network, PreTrainedModel):
        model, processor = network, _processor(files.folder, preprocessing)
    else:
        model = _wrapped(network, str(files.config["architecture"]), files.model_args)
        processor = TimmWrapperImageProcessor(
            pretrained_cfg=model.config.pretrained_cfg, architecture=model.config.architecture
        )
    # From here the card says what it was fine-tuned from, unless it is a folder.
    model.config._name_or_path = str(files.folder) if checkpoint.is_local else item.candidate.id
    # A Trainer asks its first model whether `forward` takes the number of items, and then passes it to all
    # others of a search; timm's take none, and the mean loss over a batch of images needs none.
    model.accepts_loss_kwargs = False  # type: ignore[assignment]  # torch's stub knows modules only
    return TrainableCheckpoint(item.candidate.id, model, processor, preprocessing)


def _wrapped(network: torch.nn.Module, architecture: str, model_args: Mapping[str, Any]) -> PreTrainedModel:
    """A timm network inside transformers' wrapper.

    Its ``from_pretrained`` cannot read what timm 1.0.31 exports, whose ``model_args`` have ``num_classes``.
    """
    own: Any = network.pretrained_cfg
    arguments = {key: value for key, value in model_args.items() if key != "num_classes"}
    n_classes = int(own["num_classes"])
    names = list(own.get("label_names") or (f"LABEL_{code}" for code in range(n_classes)))
    wrapper = TimmWrapperForImageClassification(
        TimmWrapperConfig(  # type: ignore[call-arg]  # its base class takes these
            architecture=architecture,
            model_args=arguments,
            pretrained_cfg={key: own[key] for key in _TIMM_RECIPE if own.get(key) is not None},
            num_labels=n_classes,
            id2label=dict(enumerate(names)),
            label2id={name: code for code, name in enumerate(names)},
        )
    )
    wrapper.timm_model = network
    wrapper.train()
    return wrapper


def _processor(folder: Path, preprocessing: Preprocessing) -> "BaseImageProcessor":
    if (folder / "preprocessor_config.json").exists():
        # Pillow's backend, with which the preprocessing was read: others resize a little differently.
        return AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-any-return]
    resize, (height, width) = preprocessing.resize, preprocessing.size
    return CLIPImageProcessor(  # resizes, crops, scales and normalises, and nothing else
        size={"shortest_edge": resize}
        if isinstance(resize, int)
        else {"height": resize[0], "width": resize[1]},
        crop_size={"height": height, "width": width},
        resample=_RESAMPLING[preprocessing.interpolation],
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
        rescale_factor=preprocessing.scale,
    )
