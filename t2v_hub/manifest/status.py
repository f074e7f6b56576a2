"""`manifest_status`: how much of a manifest is done, by whichever processes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t2v_hub.errors import StorageError
from t2v_hub.manifest.failures import Failure, failure_files, read_failures
from t2v_hub.manifest.manifest import Manifest, ManifestRow
from t2v_hub.manifest.standing import standing


@dataclass(frozen=True)
class ManifestStatus:
    """How much of a manifest is done.

    Attributes:
        n_rows: Rows of the manifest.
        done: Rows whose embedding is there.
        failed: The last failure of each row that was tried and is not done.
        missing: Rows that are neither.
        spaces: Ids of the spaces of what is there, and how many are in each, the most common first.
        problems: Files that are not those of their rows, in words.
    """

    n_rows: int
    done: tuple[ManifestRow, ...]
    failed: tuple[Failure, ...]
    missing: tuple[ManifestRow, ...]
    spaces: Mapping[str, int]
    problems: tuple[str, ...]


def manifest_status(manifest: Manifest, folder: Path | str) -> ManifestStatus:
    """How much of a manifest is in a folder; loads no probe.

    A row is done where its file holds an embedding of its task, measured from the data that it names now; in
    which space, is counted.

    Args:
        manifest: The tasks.
        folder: Folder of the embeddings.
    """
    folder = Path(folder)
    last: dict[str, Failure] = {}
    for path in failure_files(folder):
        for failure in read_failures(path):
            if failure.file not in last or last[failure.file].time <= failure.time:
                last[failure.file] = failure
    done: list[ManifestRow] = []
    failed: list[Failure] = []
    missing: list[ManifestRow] = []
    problems: list[str] = []
    spaces: Counter[str] = Counter()
    for row in manifest.rows:
        try:
            state, found = standing(folder, row)
        except StorageError as error:
            problems.append(f"row {row.number}: {error}")
            state, found = "absent", None
        if state == "done" and found is not None:
            done.append(row)
            spaces[found.space.id] += 1
        elif row.file_name in last:
            failed.append(last[row.file_name])
        else:
            missing.append(row)
    return ManifestStatus(
        n_rows=len(manifest),
        done=tuple(done),
        failed=tuple(failed),
        missing=tuple(missing),
        spaces=dict(spaces.most_common()),
        problems=tuple(problems),
    )
