"""Where a `datasets` object that the caller loaded came from."""

import re
from pathlib import PurePath
from typing import Any

# .../<owner>___<name>/<config>/<version>/<commit>/<file>.arrow
_CACHE_FOLDER = re.compile(r"[/\\]([\w.-]+?)___([\w.-]+?)[/\\]")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def id_of(source: Any) -> str:
    """Repository or name of a `datasets` object."""
    for name in _files(source):
        repository = _CACHE_FOLDER.search(name)
        if repository:
            return "/".join(repository.groups())  # the name alone lacks the namespace
    return str(source.info.dataset_name or "unnamed")


def commit_of(source: Any, split: str | None) -> str | None:
    """Commit of the Hub repository whose whole split a table is; None where it is a part, or was changed.

    `datasets` keeps the files of a commit in a folder of that name. What was selected, filtered, mapped or
    put together from it is no longer what the commit holds.
    """
    files = _files(source)
    folders = {PurePath(name).parent for name in files}
    if len(folders) != 1 or len(set(files)) != len(files) or source._indices is not None:
        return None
    if any(PurePath(name).name.startswith("cache-") for name in files):
        return None
    whole = (source.info.splits or {}).get(split)
    if whole is None or whole.num_examples != len(source):
        return None
    folder = next(iter(folders))
    known = _COMMIT.fullmatch(folder.name) and _CACHE_FOLDER.search(f"{folder}/")
    return folder.name if known else None


def _files(source: Any) -> list[str]:
    return [str(file.get("filename", "")) for file in getattr(source, "cache_files", None) or ()]
