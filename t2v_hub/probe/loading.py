"""From a folder of weights to a network in memory, through timm or transformers."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t2v_hub.errors import CheckpointError, ProbeError, WeightsError
from t2v_hub.probe.files import Library, ModelFiles, find_model
from t2v_hub.probe.preprocessing import Preprocessing

OUTPUT = "output"
"""Name of the head of a network without one: its output is the features."""

_WRAPPER = "timm_model."  # before each key where transformers' wrapper saved a timm network


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, and what its configuration says of it.

    Attributes:
        module: The network in evaluation mode, float32, on the CPU.
        head: Name of its classification head, `OUTPUT` where it has none, None where unknown.
        preprocessing: Its images' recipe.
        trained_head: Whether the files hold the head's weights; False where it was drawn afresh.
    """

    module: nn.Module
    head: str | None
    preprocessing: Preprocessing
    trained_head: bool = True


def load_network(files: ModelFiles, *, trust_remote_code: bool = False) -> LoadedNetwork:
    """The network in these files, its weights checked.

    Raises:
        WeightsError: Keys or shapes do not fit the architecture, or a value is not finite.
        ProbeError: The architecture is not known.
    """
    with torch.random.fork_rng(devices=[]):  # building a network draws weights that are replaced at once
        if files.library == "timm":
            loaded = _timm_network(files)
        else:
            loaded = _transformers_network(files, trust_remote_code=trust_remote_code)
    check_finite(loaded.module, files.name)
    return loaded


def load_checkpoint(
    location: str | Path,
    *,
    library: Library | None = None,
    revision: str | None = None,
    class_names: Sequence[str] | None = None,
    n_classes: int | None = None,
    trust_remote_code: bool = False,
    endpoint: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> nn.Module:
    """A checkpoint ready to be fine-tuned: a fresh head of the right size, its classes named.

    Args:
        location: Anything that `ProbeNetwork.load` takes by name.
        library: What it is expected to be; None takes what the files say.
        revision: Branch, tag or commit of a Hub repository.
        class_names: Names of the new classes; transformers models get ``id2label`` and ``label2id``,
            timm models ``label_names`` in ``pretrained_cfg``.
        n_classes: How many classes, where they have no names. Without either the head is kept.
        trust_remote_code: Whether code in the repository may run.
        endpoint: Address of another Hub.
        token: Access token, where it is not the one that ``hf auth login`` left.
        cache_dir: Where to keep what is fetched, in place of the Hugging Face cache.

    Raises:
        CheckpointError: It does not load; the message says why.
    """
    names = [str(name) for name in class_names] if class_names is not None else None
    if names is not None and n_classes is not None and len(names) != n_classes:
        raise CheckpointError(f"Got {len(names)} class names for n_classes={n_classes}; pass one of the two.")
    wanted = len(names) if names is not None else n_classes
    if wanted is not None and wanted < 1:
        raise CheckpointError(f"A head needs at least one class, not {wanted}. Pass None to keep the head.")
    twice = [label for label, count in Counter(names or ()).items() if count > 1]
    if twice:
        raise CheckpointError(f"Class names must differ; more than once: {twice[:5]}.")
    try:
        files = find_model(location, revision=revision, endpoint=endpoint, token=token, cache_dir=cache_dir)
        if library is not None and files.library != library:
            raise CheckpointError(f"{files.name!r} is a {files.library} checkpoint, not one of {library}.")
        if files.library == "timm":
            module = _timm_network(files).module
            if wanted is not None:
                _resize_timm_head(module, wanted, names)
        else:
            module = _transformers_checkpoint(files, wanted, names, trust_remote_code=trust_remote_code)
        check_finite(module, files.name)
    except ProbeError as error:
        raise CheckpointError(f"Cannot load checkpoint {str(location)!r}: {error}") from error
    return module.train()


def preprocessing_of(module: nn.Module, files: ModelFiles) -> Preprocessing:
    """The recipe of the images of a network that was loaded from these files.

    Raises:
        ProbeError: Its image processor cannot be read.
    """
    if files.library == "timm":
        import timm

        resolve: Any = vars(timm.data)["resolve_data_config"]
        return Preprocessing.from_timm(resolve(pretrained_cfg=module.pretrained_cfg))
    return _transformers_preprocessing(files, module.config)


def check_finite(module: nn.Module, name: str) -> None:
    """Return when no weight or buffer is NaN or infinite.

    Raises:
        WeightsError: One is; the message names it.
    """
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(
                f"{bad} of {tensor.numel()} values of {key!r} in {name!r} are NaN or infinite. Take other "
                f"weights: nothing measured with these means anything."
            )


def _timm_network(files: ModelFiles) -> LoadedNetwork:
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = files.config
    pretrained = dict(config.get("pretrained_cfg") or {})
    n_classes = config.get("num_classes", pretrained.get("num_classes", 1000))
    # Newer timm records num_classes among the arguments too; the one at the top is the network's own.
    arguments: dict[str, Any] = {**files.model_args, "num_classes": n_classes}
    # An architecture like hf-hub:org/name, or one of these, makes timm fetch other weights, pickles too.
    foreign = sorted(arguments.keys() & {"pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir"})
    if foreign:
        raise ProbeError(
            f"The model_args of {files.name!r} hold {foreign}, which load other weights than its own. "
            f"Remove them from its JSON."
        )
    if not timm.is_model(str(config["architecture"])):
        raise ProbeError(
            f"timm {timm.__version__} has no architecture {config['architecture']!r}, which {files.name!r} "
            f"names. Check its JSON, or upgrade timm."
        )
    try:
        module = timm.create_model(str(config["architecture"]), **arguments)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ProbeError(
            f"timm cannot build {config['architecture']!r} for {files.name!r}: {error}."
        ) from error
    try:
        state = load_file(files.weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{str(files.weights)!r} is no whole safetensors file ({error}).") from error
    if all(key.startswith(_WRAPPER) for key in state):
        state = {key.removeprefix(_WRAPPER): tensor for key, tensor in state.items()}
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(_misfit(files, module.state_dict(), state)) from error
    own: Any = module.pretrained_cfg
    module.pretrained_cfg = {**dict(own), **pretrained}  # type: ignore[assignment]  # its data configuration
    return LoadedNetwork(module.eval().float(), _timm_head(module), preprocessing_of(module, files))


def _timm_head(module: nn.Module) -> str | None:
    classifier = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
    if isinstance(classifier, tuple | list):  # distilled: two heads on two tokens; the first one's
        classifier = classifier[0]
    if classifier is None or isinstance(classifier, nn.Identity):
        return OUTPUT
    names = [name for name, child in module.named_modules() if child is classifier]
    return names[0] if names else None


def _resize_timm_head(module: nn.Module, n_classes: int, names: Sequence[str] | None) -> None:
    module.reset_classifier(n_classes)  # type: ignore[operator]
    module.pretrained_cfg = {  # type: ignore[assignment]
        **dict(module.pretrained_cfg),  # type: ignore[arg-type]
        "num_classes": n_classes,
        **({"label_names": list(names)} if names is not None else {}),
    }


def _transformers_network(files: ModelFiles, *, trust_remote_code: bool) -> LoadedNetwork:
    from transformers import AutoModel, AutoModelForImageClassification

    config = _transformers_config(files, trust_remote_code)
    # Also for a bare backbone: the classification model of an architecture says which of its
    # outputs are the features, and its head, fresh or not, is replaced by ours.
    known = type(config) in AutoModelForImageClassification._model_mapping
    remote = "AutoModelForImageClassification" in getattr(config, "auto_map", {})
    factory = AutoModelForImageClassification if known or remote else AutoModel
    module, trained_head = _from_pretrained(factory, files, config, trust_remote_code)
    return LoadedNetwork(
        module,
        None if factory is AutoModelForImageClassification else OUTPUT,
        _transformers_preprocessing(files, config),
        trained_head=trained_head,
    )


def _transformers_checkpoint(
    files: ModelFiles, n_classes: int | None, names: Sequence[str] | None, *, trust_remote_code: bool
) -> nn.Module:
    from transformers import AutoModelForImageClassification

    config = _transformers_config(files, trust_remote_code)
    if n_classes is not None:
        labels = list(names) if names is not None else [f"LABEL_{code}" for code in range(n_classes)]
        config.num_labels = n_classes
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: code for code, label in enumerate(labels)}
    return _from_pretrained(AutoModelForImageClassification, files, config, trust_remote_code)[0]


def _transformers_config(files: ModelFiles, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"transformers cannot read the configuration of {files.name!r}: {error}") from error


def _from_pretrained(
    factory: Any, files: ModelFiles, config: Any, trust_remote_code: bool
) -> tuple[nn.Module, bool]:
    """The network, and whether all of its weights, its head's too, are those of the files."""
    from safetensors import SafetensorError

    try:
        with _quiet_transformers():
            module, report = factory.from_pretrained(
                files.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
    except SafetensorError as error:
        raise WeightsError(
            f"The weights of {files.name!r} are no whole safetensors file ({error})."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ProbeError(f"transformers cannot load {files.name!r}: {error}") from error
    prefix = getattr(module, "base_model_prefix", "") + "."
    missing = [str(key) for key in report["missing_keys"]]
    mismatched = [str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]]
    in_backbone = [key for key in [*missing, *mismatched] if key.startswith(prefix) or prefix == "."]
    if in_backbone:
        raise WeightsError(
            f"The weights of {files.name!r} do not fit its configuration: {len(in_backbone)} tensors are "
            f"absent or of another shape ({', '.join(in_backbone[:4])}). Take the weights that belong to it."
        )
    return module.eval(), not (missing or mismatched)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No report on the head, which is replaced anyway; what matters is checked by us."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _transformers_preprocessing(files: ModelFiles, config: Any) -> Preprocessing:
    from transformers import AutoImageProcessor

    if not (files.folder / "preprocessor_config.json").exists():
        default = Preprocessing()
        size = getattr(config, "image_size", None)
        return default.resized(size) if isinstance(size, int) else default
    try:
        processor = AutoImageProcessor.from_pretrained(files.folder, backend="pil")
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ProbeError(
            f"transformers cannot load the image processor of {files.name!r}: {error}"
        ) from error
    return Preprocessing.from_transformers(processor)


def _misfit(files: ModelFiles, wanted: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> str:
    absent = sorted(set(wanted) - set(got))
    surplus = sorted(set(got) - set(wanted))
    shapes = [
        f"{key} {tuple(got[key].shape)} for {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(got))
        if wanted[key].shape != got[key].shape
    ]
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])})"
        for what, keys in (("absent", absent), ("unknown", surplus), ("of another shape", shapes))
        if keys
    ]
    return (
        f"The weights of {files.name!r} do not fit timm's {files.config['architecture']!r}: "
        f"{'; '.join(parts)}. Check the architecture, num_classes and model_args in its JSON."
    )
