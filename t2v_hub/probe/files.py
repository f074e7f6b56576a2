"""From a name to a folder of weights: local paths, Hub repositories and timm's names."""

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from t2v_hub.errors import ProbeError, ProbeNotFoundError, ProbeUnreachableError

Library = Literal["timm", "transformers"]

_ADDRESS = re.compile(r"https?://[^/?#\s]+[^?#\s]*")
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
_PATTERNS = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]


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

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments that timm makes the architecture with; older files have the pooling beside them."""
        arguments = dict(self.config.get("model_args") or {})
        if self.config.get("global_pool"):
            arguments.setdefault("global_pool", self.config["global_pool"])
        return arguments


def find_model(
    location: str | Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> ModelFiles:
    """The files of a network, fetched from the Hub where they are not on this machine.

    Args:
        location: A folder (``save_pretrained`` or timm's ``save_for_hf``), a ``.safetensors`` file with
            a ``.json`` of the same name beside it (or that JSON), a Hub repository (``org/name`` or
            ``hf-hub:org/name``), or one of timm's names (``resnet18``, ``resnet18.a1_in1k``).
        revision: Branch, tag or commit of a Hub repository.
        endpoint: Address of another Hub.
        token: Access token, where it is not the one that ``hf auth login`` left.
        cache_dir: Where to keep what is fetched, in place of the Hugging Face cache.

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
    return _from_hub(text, revision, endpoint=endpoint, token=token, cache_dir=cache_dir)


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


def _from_hub(
    repository: str,
    revision: str | None,
    *,
    endpoint: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
) -> ModelFiles:
    import huggingface_hub
    from huggingface_hub import errors

    if endpoint is not None and not _ADDRESS.fullmatch(endpoint):
        raise ProbeError(f"endpoint must be an address such as https://huggingface.co, not {endpoint!r}.")
    # The HTTP library's own base error; which library that is changed from version to version.
    http = tuple(cast("type[Exception]", base) for base in errors.HfHubHTTPError.__bases__)
    failures: tuple[type[Exception], ...] = (
        *http,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    )
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_PATTERNS,
            endpoint=endpoint,
            token=token,
            cache_dir=cache_dir,
        )
    except failures as error:
        # Not raised from the original: a server may have echoed the token into its text.
        raise _refused(error, repository, revision, endpoint) from None
    return _in_folder(Path(folder), repository, Path(folder).name)


def _refused(error: Exception, repository: str, revision: str | None, endpoint: str | None) -> ProbeError:
    """What the client raised when it fetched a repository, as our error."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why it could not be fetched either
    ours = endpoint is None or endpoint.rstrip("/") == constants.ENDPOINT.rstrip("/")
    hub = "the Hub" if ours else f"the Hub at {endpoint}"
    login = "log in with `hf auth login`" if ours else "pass a token for it (token=)"
    if isinstance(error, errors.HFValidationError):
        return ProbeNotFoundError(
            f"{repository!r} is no folder on this machine and no name of a Hub repository (org/name)."
        )
    if isinstance(error, errors.GatedRepoError):
        return ProbeNotFoundError(f"{repository!r} is gated: accept its terms on {hub} and {login}.")
    if isinstance(error, errors.DisabledRepoError):
        return ProbeNotFoundError(f"{repository!r} was disabled by {hub}. Take another checkpoint.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ProbeNotFoundError(
            f"{hub[0].upper()}{hub[1:]} has no repository {repository!r} that you may read: it is misspelt, "
            f"private, or was deleted. Check the name; for a private one {login}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ProbeNotFoundError(
            f"{repository!r} has no revision {revision!r}: it is misspelt, or the history was rewritten. "
            f"revision='main' is the newest."
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
        return ProbeNotFoundError(
            f"{hub[0].upper()}{hub[1:]} does not let you read {repository!r}: the token is missing, not "
            f"valid, or lacks the right. To read it, {login}."
        )
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return ProbeError(
            f"{repository!r} cannot be kept on this machine: {error.strerror}. Free space there, or choose "
            f"another place with HF_HOME."
        )
    name = type(error).__name__ + (f", {status}" if isinstance(status, int) else "")
    address = "" if ours else f" at {endpoint}"
    return ProbeUnreachableError(
        f"{repository!r} is not on this machine and the Hub{address} did not answer ({name}). "
        f"Check the connection, unset HF_HUB_OFFLINE, or give a local folder."
    )


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
