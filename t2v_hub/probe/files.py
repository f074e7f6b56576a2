"""From a name to a folder of weights: local paths, Hub repositories and timm's names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from t2v_hub.errors import ProbeError, ProbeNotFoundError

Library = Literal["timm", "transformers"]


@dataclass(frozen=True)
class ModelFiles:
    """Where a network's configuration and weights lie on this machine.

    Attributes:
        name: The absolute path, or the repository; either finds it again.
        library: Which library reads it.
        config: Content of its ``config.json``.
        folder: The folder that holds the files.
        weights: The safetensors file, where there is just one.
        revision: Commit of the repository, where it came from the Hub.
    """

    name: str
    library: Library
    config: Mapping[str, Any]
    folder: Path
    weights: Path
    revision: str | None = None


def find_model(location: str | Path, *, revision: str | None = None) -> ModelFiles:
    """The files of a network, fetched from the Hub where they are not on this machine.

    Args:
        location: A folder (``save_pretrained`` or timm's ``save_for_hf``), a ``.safetensors`` file with
            a ``.json`` of the same name beside it (or that JSON), a Hub repository (``org/name`` or
            ``hf-hub:org/name``), or one of timm's names (``resnet18``, ``resnet18.a1_in1k``).
        revision: Branch, tag or commit of a Hub repository.

    Raises:
        ProbeNotFoundError: There is no such thing, or the Hub is out of reach.
        ProbeError: The files are not those of a network.
    """
    path = Path(location).expanduser()
    if path.is_dir():
        return _in_folder(path, str(path.resolve()), None)
    if path.is_file() and path.suffix in (".safetensors", ".json"):
        return _pair(path)
    text = str(location).removeprefix("hf-hub:").removeprefix("hf_hub:")
    if path.exists() or isinstance(location, Path) or text.startswith((".", "/", "~")):
        raise ProbeNotFoundError(
            f"There is no network at {str(location)!r}: wanted a folder with config.json and "
            f"model.safetensors, or a .safetensors file with a .json beside it."
        )
    if "@" in text and revision is None:  # timm's spelling of a revision
        text, revision = text.split("@", 1)
    if "/" not in text:
        text = timm_repository(text)
    return _from_hub(text, revision)


def _in_folder(folder: Path, name: str, revision: str | None) -> ModelFiles:
    config = _read_json(folder / "config.json")
    if "architecture" in config:  # timm's, also where transformers' wrapper wrote a model_type beside
        library: Library = "timm"
    elif "model_type" in config:
        library = "transformers"
    else:
        raise ProbeError(
            f"{str(folder / 'config.json')!r} names neither a timm 'architecture' nor a transformers "
            f"'model_type'. Save the network with save_pretrained, or with timm.models.save_for_hf."
        )
    weights = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if not weights.exists() and not (library == "transformers" and index.exists()):
        raise ProbeNotFoundError(
            f"There is no model.safetensors in {name!r}. Only safetensors weights are read; convert "
            f"others with save_pretrained(..., safe_serialization=True)."
        )
    return ModelFiles(name, library, config, folder, weights, revision)


def _pair(path: Path) -> ModelFiles:
    weights, description = path.with_suffix(".safetensors"), path.with_suffix(".json")
    for file in (weights, description):
        if not file.exists():
            raise ProbeNotFoundError(
                f"{str(path)!r} has no {file.name!r} beside it; weights and their description come in pairs."
            )
    config = _read_json(description)
    if "architecture" not in config:
        raise ProbeError(f"{str(description)!r} does not name a timm 'architecture'.")
    return ModelFiles(str(weights.resolve()), "timm", config, weights.parent, weights)


def timm_repository(name: str) -> str:
    """The Hub repository of one of timm's pretrained networks; nothing is fetched.

    Raises:
        ProbeNotFoundError: timm knows no such network, or has no weights of it on the Hub.
    """
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise ProbeNotFoundError(
            f"{name!r} is no folder, no Hub repository (org/name) and no timm model. "
            f"timm.list_models('*{name.split('.', 1)[0][:6]}*') lists like names."
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None or not config.hf_hub_id:
        known = ", ".join(timm.list_pretrained(f"{name.split('.', 1)[0]}.*")[:5]) or "none"
        raise ProbeNotFoundError(f"timm has no pretrained weights {name!r} on the Hub. It has: {known}.")
    repository = str(config.hf_hub_id)
    return repository if not repository.endswith("/") else repository + name


def _from_hub(repository: str, revision: str | None) -> ModelFiles:
    import huggingface_hub
    from huggingface_hub import errors

    patterns = [
        "config.json",
        "preprocessor_config.json",
        "model*.safetensors",
        "model.safetensors.index.json",
    ]
    try:
        folder = huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except errors.GatedRepoError as error:
        raise ProbeNotFoundError(
            f"{repository!r} is gated: accept its terms on the Hub and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ProbeNotFoundError(
            f"The Hub has no repository {repository!r} that you may read. Check the name; for a private "
            f"one log in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ProbeNotFoundError(f"{repository!r} has no revision {revision!r}.") from error
    except errors.HFValidationError as error:
        raise ProbeNotFoundError(
            f"{repository!r} is no folder on this machine and no name of a Hub repository (org/name)."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise ProbeNotFoundError(
            f"{repository!r} is not on this machine and the Hub did not answer ({type(error).__name__}). "
            f"Check the connection, unset HF_HUB_OFFLINE, or give a local folder."
        ) from error
    return _in_folder(Path(folder), repository, Path(folder).name)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProbeNotFoundError(
            f"There is no {path.name!r} in {str(path.parent)!r}; wanted a folder that save_pretrained or "
            f"timm.models.save_for_hf wrote."
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise ProbeError(f"{str(path)!r} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ProbeError(f"{str(path)!r} holds no JSON object.")
    return content
