"""What changes a repository's files: checking a card, uploading, committing."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from itertools import islice

from t2v_hub.testing.loopback.cards import MAX_METADATA, front_matter, metadata
from t2v_hub.testing.loopback.discussions import open_pull_request, pushed
from t2v_hub.testing.loopback.objects import LARGE_FILE, Blob, Commit, is_lfs
from t2v_hub.testing.loopback.reading import commit_of
from t2v_hub.testing.loopback.replies import Call, RefusalError, Reply, Visit, flag
from t2v_hub.testing.loopback.store import User

_PULL_REQUESTS = "refs/pr/"


def validate_yaml(call: Call) -> Reply:
    """``POST /api/validate-yaml``: errors and warnings about a card's metadata."""
    content = call.json().get("content")
    if not isinstance(content, str):
        raise RefusalError(400, '"content" must be a string')
    front = front_matter(content)
    if front is not None and len(front.encode("utf-8", "replace")) > MAX_METADATA:
        raise RefusalError(413, "Payload Too Large: the metadata is larger than 4 MB")
    errors = _card_errors(content)
    warnings = [] if front and front.strip() else ["empty or missing yaml metadata in repo card"]
    said = {"errors": [{"message": each} for each in errors], "warnings": [{"message": w} for w in warnings]}
    return Reply.of(said, status=400 if errors else 200)


def _card_errors(text: str) -> list[str]:
    front = front_matter(text)
    if front is None:
        return []
    try:
        said = metadata(front)
    except ValueError as error:
        return [str(error)]
    tags = said.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return ['"tags" must be an array of strings']
    return []


def preupload(visit: Visit) -> Reply:
    """``POST …/preupload/{rev}``: how each file is to be sent."""
    revision = visit.rest[0]
    _committer(visit, revision)
    known = commit_of(visit, revision).tree
    files = visit.call.json().get("files")
    said = []
    for file in files if isinstance(files, list) else []:
        path, size = (file.get("path"), file.get("size")) if isinstance(file, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(size, int):
            raise RefusalError(400, '"files" must hold objects with "path" and "size"')
        answer = {
            "path": path,
            "uploadMode": "lfs" if is_lfs(path, size) else "regular",
            "shouldIgnore": False,
        }
        if path in known:
            answer["oid"] = known[path].etag
        said.append(answer)
    return Reply.of({"files": said})


def _committer(visit: Visit, revision: str) -> User:
    """Who commits there.

    Raises:
        RefusalError: They may not.
    """
    user = visit.call.signed_in()
    if visit.store.may_write(user, visit.repository):
        return user
    if user.can_discuss and flag(visit.call.query, "create_pr"):
        return user
    if user.can_discuss and revision.startswith(_PULL_REQUESTS):
        number = revision.removeprefix(_PULL_REQUESTS)
        found = visit.repository.discussions.get(int(number)) if number.isdecimal() else None
        if found is not None and found.author == user.name:
            return user
    return visit.require_writing()


def commit(visit: Visit) -> Reply:
    """``POST …/commit/{rev}``: lines of JSON, a header and then what changes."""
    repository, store = visit.repository, visit.store
    revision = visit.rest[0]
    user = _committer(visit, revision)
    head = commit_of(visit, revision)
    lines = _lines(visit.call.body)
    header = lines[0][1] if lines and lines[0][0] == "header" else None
    if header is None or not isinstance(header.get("summary"), str) or not header["summary"]:
        raise RefusalError(400, "The first line must be a header with a summary")
    parent = header.get("parentCommit")
    if parent is not None and parent != head.sha:
        raise RefusalError(
            412, f"A commit has happened since. Please refresh and try again. The head is {head.sha}."
        )
    changes: dict[str, Blob | None] = {}
    for key, value in islice(lines, 1, None):
        changes |= _changes(visit, head, key, value)
    description = header.get("description") or ""
    new_pull_request = flag(visit.call.query, "create_pr")
    is_branch = revision.removeprefix("refs/heads/") in repository.branches
    if not (new_pull_request or is_branch or revision.startswith(_PULL_REQUESTS)):
        raise RefusalError(400, f"{revision} is no branch: nothing can be committed there")
    made = repository.add(
        changes,
        parent=head,
        author=user.name,
        message=f"{header['summary']}\n\n{description}".strip(),
        date=store.now(),
    )
    address = f"{visit.call.endpoint}/{repository.path}"
    said: dict[str, object] = {
        "success": True,
        "commitUrl": f"{address}/commit/{made.sha}",
        "commitOid": made.sha,
        "hookOutput": "",
    }
    if new_pull_request:
        opened = open_pull_request(
            store, repository, user, made.title, str(description), base=head.sha, head=made.sha
        )
        said["pullRequestUrl"] = f"{address}/discussions/{opened.number}"
    elif revision.startswith(_PULL_REQUESTS):
        pushed(store, repository, int(revision.removeprefix(_PULL_REQUESTS)), user, made)
    else:
        repository.advance(revision.removeprefix("refs/heads/"), made)
    return Reply.of(said)


def _lines(body: bytes) -> list[tuple[str, dict[str, object]]]:
    found = []
    for line in body.splitlines():
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            raise RefusalError(400, "Each line must be a JSON object with a key and a value")
        found.append((str(item.get("key")), item["value"]))
    return found


def _changes(visit: Visit, head: Commit, key: str, value: dict[str, object]) -> dict[str, Blob | None]:
    path = value.get("path")
    if not isinstance(path, str) or not _is_path(path.rstrip("/")):
        raise RefusalError(400, f"Invalid path: {path!r}")
    if key == "file":
        return {path: Blob(_regular(path, value.get("content")), lfs=False)}
    if key == "lfsFile":
        data = visit.store.large_files.get(str(value.get("oid")))
        if data is None:
            raise RefusalError(400, f"LFS pointer pointed to a file that does not exist: {path}")
        return {path: Blob(data, lfs=True)}
    if key == "deletedFolder":
        inside = [each for each in head.tree if each.startswith(f"{path.rstrip('/')}/")]
    elif key == "deletedFile":
        inside = [path] if path in head.tree else []
    else:
        raise RefusalError(400, f"Unknown operation: {key!r}")
    if not inside:
        raise RefusalError(404, f"{path} does not exist", code="EntryNotFound")
    return dict.fromkeys(inside)


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return all(part not in ("", ".", "..", ".git") for part in parts) and "\0" not in path


def _regular(path: str, content: object) -> bytes:
    try:
        data = base64.b64decode(content if isinstance(content, str) else "?", validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusalError(400, f"The content of {path} is not base64") from error
    if len(data) > LARGE_FILE:
        raise RefusalError(400, f"Your push was rejected because {path} is larger than 10 MiB")
    if path == "README.md" and (errors := _card_errors(data.decode("utf-8", "replace"))):
        raise RefusalError(
            400, f"Your push was rejected during YAML metadata verification: {'; '.join(errors)}"
        )
    return data


def lfs_batch(visit: Visit) -> Reply:
    """``POST /{id}.git/info/lfs/objects/batch``: where to send large files."""
    _committer_somewhere(visit)
    asked = visit.call.json().get("objects")
    return Reply.of({"transfer": "basic", "objects": list(_objects(visit, asked))})


def _committer_somewhere(visit: Visit) -> None:
    user = visit.call.signed_in()
    if not user.can_discuss:  # the batch does not say whether the files are for a pull request
        visit.require_writing()


def _objects(visit: Visit, asked: object) -> Iterator[dict[str, object]]:
    for each in asked if isinstance(asked, list) else []:
        oid, size = (each.get("oid"), each.get("size")) if isinstance(each, dict) else (None, None)
        if not isinstance(oid, str) or not isinstance(size, int):
            raise RefusalError(400, '"objects" must hold objects with "oid" and "size"')
        said: dict[str, object] = {"oid": oid, "size": size}
        if oid not in visit.store.large_files:
            address = f"{visit.call.endpoint}/lfs/{oid}"
            said["actions"] = {"upload": {"href": address}, "verify": {"href": f"{address}/verify"}}
        yield said


def lfs_upload(call: Call, oid: str) -> Reply:
    """``PUT /lfs/{oid}``: a large file; the address is what permits it."""
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise RefusalError(400, "The content does not have the announced SHA-256")
    call.store.large_files[oid] = call.body
    return Reply()


def lfs_verify(call: Call, oid: str) -> Reply:
    """``POST /lfs/{oid}/verify``: whether a large file arrived."""
    data = call.store.large_files.get(oid)
    if data is None or call.json().get("size") != len(data):
        raise RefusalError(404, "The file did not arrive")
    return Reply.of({})
