"""What is read from a repository: its description, its files and their history."""

import json
import mimetypes
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, urlencode

from t2v_hub.testing.loopback.listing import expanded, info_fields, page
from t2v_hub.testing.loopback.objects import Blob, Commit, Kind, git_id
from t2v_hub.testing.loopback.replies import Call, RefusalError, Reply, Visit, flag, number

_TREE_PAGE = 1000
_TREE_PAGE_EXPANDED = 50
_OPEN_TO_ALL = ("README.md", ".gitattributes")  # of a gated repository


def listing(call: Call, kind: Kind) -> Reply:
    """``GET /api/models`` or ``/api/datasets``."""
    rows = call.faults.frozen_rows()
    if rows is None:
        rows = call.store.rows(kind)
    body, cursor = page(rows, kind, call.query, call.name)
    return Reply(body=body, headers=_next(call, cursor=cursor))


def _next(call: Call, **changed: str | None) -> dict[str, str]:
    if None in changed.values():
        return {}
    query = {**call.query, **{name: [value] for name, value in changed.items() if value is not None}}
    return {"Link": f'<{call.endpoint}{call.path}?{urlencode(query, doseq=True)}>; rel="next"'}


def commit_of(visit: Visit, revision: str) -> Commit:
    """The commit that a revision names.

    Raises:
        RefusalError: There is none.
    """
    commit = visit.repository.find(revision)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    return commit


def info(visit: Visit) -> Reply:
    """``GET /api/models/{id}`` and ``…/revision/{rev}``."""
    row = visit.store.row(visit.repository)
    fields = expanded(visit.call.query) or info_fields(visit.repository.kind)
    commit = commit_of(visit, visit.rest[0] if visit.rest else "main")
    if commit is not row.commit:
        row = visit.repository.describe(commit, row.readers)
    if not flag(visit.call.query, "blobs"):
        return Reply(body=row.to_json(fields), headers={"X-Repo-Commit": commit.sha})
    described = json.loads(row.to_json(fields))
    described["siblings"] = [_sibling(path, blob) for path, blob in sorted(commit.tree.items())]
    return Reply.of(described, headers={"X-Repo-Commit": commit.sha})


def _sibling(path: str, blob: Blob) -> dict[str, object]:
    said: dict[str, object] = {"rfilename": path, "size": len(blob.data), "blobId": blob.oid}
    if blob.lfs:
        said["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return said


def access(visit: Visit) -> Reply:
    """``GET …/auth-check``: an answer where files may be read."""
    _require_opening(visit)
    return Reply.of({})


def _require_opening(visit: Visit) -> None:
    if not visit.store.may_open(visit.call.user, visit.repository):
        signed_in = visit.call.user is not None
        raise RefusalError(
            403 if signed_in else 401,
            f"Access to {visit.repository.kind} {visit.repository.id} is restricted and you are not in the "
            "authorized list."
            + ("" if signed_in else " You must have access to it and be authenticated to access it."),
            code="GatedRepo",
        )


def tree(visit: Visit) -> Reply:
    """``GET …/tree/{rev}/{folder}``."""
    commit = commit_of(visit, visit.rest[0] if visit.rest else "main")
    folder = "/".join(visit.rest[1:]).strip("/")
    inside = f"{folder}/" if folder else ""
    paths = [path for path in commit.tree if path.startswith(inside)]
    if folder and not paths:
        raise RefusalError(404, f"{folder} does not exist on {visit.rest[0]}", code="EntryNotFound")
    found = {*paths, *_folders(paths)}
    if flag(visit.call.query, "recursive"):
        shown = sorted(path for path in found if path.startswith(inside) and path != folder)
    else:
        shown = sorted({inside + path.removeprefix(inside).partition("/")[0] for path in paths})
    more = flag(visit.call.query, "expand")
    size = _TREE_PAGE_EXPANDED if more else _TREE_PAGE
    after = visit.call.query.get("cursor", [""])[0]
    rest = [path for path in shown if path > after]
    entries = [entry(visit, commit, path, more) for path in rest[:size]]
    cursor = rest[size - 1] if len(rest) > size else None
    headers = {"X-Repo-Commit": commit.sha, **_next(visit.call, cursor=cursor)}
    return Reply.of(entries, headers=headers)


def paths_info(visit: Visit) -> Reply:
    """``POST …/paths-info/{rev}``: those of the paths that exist."""
    call = visit.call
    if "json" in call.headers.get("Content-Type", ""):
        body = call.json()
        asked, more = body.get("paths"), body.get("expand") is True
    else:
        form = parse_qs(call.body.decode("utf-8", "replace"))
        asked, more = form.get("paths", []), flag(form, "expand")
    commit = commit_of(visit, visit.rest[0] if visit.rest else "main")
    known = {*commit.tree, *_folders(commit.tree)}
    wanted = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []
    paths = [path.strip("/") for path in wanted if isinstance(path, str)]
    return Reply.of([entry(visit, commit, path, more) for path in paths if path in known])


def _folders(paths: Iterable[str]) -> set[str]:
    return {str(folder) for path in paths for folder in PurePosixPath(path).parents if str(folder) != "."}


def entry(visit: Visit, commit: Commit, path: str, more: bool) -> dict[str, object]:
    """How a tree describes a file or folder; ``more`` adds the commit that last changed it."""
    blob = commit.tree.get(path)
    if blob is None:
        inside = "\n".join(_under(commit, path))
        said = {"type": "directory", "oid": git_id("tree", inside.encode()), "size": 0, "path": path}
    else:
        said = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
        if blob.lfs:
            said["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    if more:
        last = _last_change(visit, commit, path)
        said["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
    return said


def _under(commit: Commit, path: str) -> list[str]:
    found = sorted(commit.tree.items())
    return [f"{blob.oid} {each}" for each, blob in found if each == path or each.startswith(f"{path}/")]


def _last_change(visit: Visit, commit: Commit, path: str) -> Commit:
    now = _under(commit, path)
    for step in visit.repository.history(commit):
        if _under(step, path) != now:
            break
        commit = step
    return commit


def refs(visit: Visit) -> Reply:
    """``GET …/refs``."""
    repository = visit.repository
    said: dict[str, list[dict[str, object]]] = {
        "branches": [_ref(name, f"refs/heads/{name}", sha) for name, sha in repository.branches.items()],
        "converts": [],
        "tags": [_ref(name, f"refs/tags/{name}", sha) for name, sha in repository.tags.items()],
    }
    if flag(visit.call.query, "include_prs"):
        said["pullRequests"] = [
            _ref(str(each.number), f"refs/pr/{each.number}", each.head)
            for each in repository.discussions.values()
            if each.head is not None
        ]
    return Reply.of(said)


def _ref(name: str, ref: str, sha: str) -> dict[str, object]:
    return {"name": name, "ref": ref, "targetCommit": sha}


def commits(visit: Visit) -> Reply:
    """``GET …/commits/{rev}``: newest first."""
    query = visit.call.query
    steps = list(visit.repository.history(commit_of(visit, visit.rest[0] if visit.rest else "main")))
    start, size = number(query, "p", 0), number(query, "limit", 50, least=1)
    said = [
        {
            "id": step.sha,
            "title": step.title,
            "message": step.description,
            "authors": [{"user": step.author}],
            "date": step.date,
        }
        for step in steps[start * size : (start + 1) * size]
    ]
    more = (start + 1) * size < len(steps)
    return Reply.of(said, headers=_next(visit.call, p=str(start + 1) if more else None))


def resolve(visit: Visit) -> Reply:
    """``GET /{id}/resolve/{rev}/{path}``: a file, or the part of it that ``Range`` asks for."""
    commit = commit_of(visit, visit.rest[0])
    path = "/".join(visit.rest[1:])
    blob = commit.tree.get(path)
    named = {"X-Repo-Commit": commit.sha}
    if blob is None:
        raise RefusalError(404, "Entry not found", code="EntryNotFound", headers=named)
    if path not in _OPEN_TO_ALL:
        _require_opening(visit)
    headers = {
        **named,
        "ETag": f'"{blob.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(PurePosixPath(path).name)}",
    }
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
    content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if content_type.startswith("text/") or content_type == "application/json":
        content_type = "text/plain; charset=utf-8"
    part = _range(visit.call.headers.get("Range"), len(blob.data))
    if part is None:
        return Reply(200, blob.data, content_type, headers)
    start, end = part
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(blob.data)}"
    return Reply(206, blob.data[start:end], content_type, headers)


def _range(asked: str | None, size: int) -> tuple[int, int] | None:
    match = re.fullmatch(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", asked or "")
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    if start >= end:
        raise RefusalError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return start, end
