"""Discussions and pull requests."""

import difflib
from collections.abc import Iterator

from t2v_hub.testing.loopback.objects import Blob, Commit, Discussion
from t2v_hub.testing.loopback.replies import RefusalError, Reply, Visit, number
from t2v_hub.testing.loopback.store import Repository, Store, User

_PAGE = 50
_STATUSES = {"open": ("open", "draft"), "closed": ("closed", "merged")}


def open_pull_request(
    store: Store,
    repository: Repository,
    user: User,
    title: str,
    description: str,
    *,
    base: str | None,
    head: str | None,
    status: str = "open",
) -> Discussion:
    """A new discussion; a pull request where ``base`` and ``head`` are commits."""
    now = store.now()
    discussion = Discussion(
        number=len(repository.discussions) + 1,
        title=title,
        author=user.name,
        status=status,
        created=now,
        base=base,
        head=head,
    )
    repository.discussions[discussion.number] = discussion
    _happened(discussion, "comment", user.name, now, **_comment(description))
    if head is not None and head != base:
        _happened(discussion, "commit", user.name, now, subject=title, oid=head)
    return discussion


def pushed(store: Store, repository: Repository, which: int, user: User, commit: Commit) -> None:
    """Adds a commit to a pull request."""
    discussion = repository.discussions[which]
    if discussion.status not in ("open", "draft"):
        raise RefusalError(403, f"Pull request {which} is {discussion.status}: nothing can be pushed to it")
    discussion.head = commit.sha
    _happened(discussion, "commit", user.name, store.now(), subject=commit.title, oid=commit.sha)


def _comment(text: str) -> dict[str, object]:
    return {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}, "history": []}


def _happened(discussion: Discussion, kind: str, author: str, date: str, **data: object) -> dict[str, object]:
    event: dict[str, object] = {
        "id": f"{discussion.number:012x}{len(discussion.events):012x}",
        "type": kind,
        "author": {"name": author, "type": "user"},
        "createdAt": date,
        "data": data,
    }
    discussion.events.append(event)
    return event


def listed(visit: Visit) -> Reply:
    """``GET …/discussions``: newest first, filtered by ``type``, ``status`` and ``author``."""
    query = visit.call.query
    kind, status = query.get("type", ["all"])[0], query.get("status", ["all"])[0]
    author = query.get("author", [None])[0]
    found = [
        each
        for each in reversed(visit.repository.discussions.values())
        if (kind == "all" or (kind == "pull_request") == (each.base is not None))
        and (status == "all" or each.status in _STATUSES.get(status, ()))
        and author in (None, each.author)
    ]
    start = number(query, "p", 0) * _PAGE
    shown = [_described(visit, each) for each in found[start : start + _PAGE]]
    return Reply.of({"discussions": shown, "count": len(found), "start": start})


def _described(visit: Visit, discussion: Discussion) -> dict[str, object]:
    return {
        "num": discussion.number,
        "title": discussion.title,
        "author": {"name": discussion.author, "type": "user"},
        "status": discussion.status,
        "createdAt": discussion.created,
        "isPullRequest": discussion.base is not None,
        "repo": {"name": visit.repository.id, "type": visit.repository.kind},
        "numComments": sum(event["type"] == "comment" for event in discussion.events),
    }


def created(visit: Visit) -> Reply:
    """``POST …/discussions``: a discussion, or a draft of a pull request."""
    user = _speaker(visit)
    body = visit.call.json()
    title, is_pull_request = body.get("title"), body.get("pullRequest") is True
    if not isinstance(title, str) or len(title) < 3:
        raise RefusalError(400, '"title" must have at least 3 characters')
    base = visit.repository.head.sha if is_pull_request else None
    opened = open_pull_request(
        visit.store,
        visit.repository,
        user,
        title,
        str(body.get("description") or ""),
        base=base,
        head=base,
        status="draft" if is_pull_request else "open",
    )
    return Reply.of({"num": opened.number, "pullRequest": is_pull_request})


def _speaker(visit: Visit) -> User:
    user = visit.call.signed_in()
    if not user.can_discuss and not visit.store.may_write(user, visit.repository):
        raise RefusalError(403, f"Forbidden: the token of {user.name} may not take part in discussions")
    return user


def _found(visit: Visit) -> Discussion:
    text = visit.rest[0]
    discussion = visit.repository.discussions.get(int(text)) if text.isdecimal() else None
    if discussion is None:
        raise RefusalError(404, f"There is no discussion {text}")
    return discussion


def details(visit: Visit) -> Reply:
    """``GET …/discussions/{number}``: with events, and with changes where it is a pull request."""
    discussion = _found(visit)
    said = {**_described(visit, discussion), "events": discussion.events}
    if discussion.base is not None:
        said |= {
            "changes": {"base": "refs/heads/main", "mergeCommitId": discussion.merged_as},
            "filesWithConflicts": _conflicts(visit.repository, discussion),
            "diff": "".join(_diff(visit.repository, discussion)),
        }
    return Reply.of(said)


def changed(visit: Visit) -> Reply:
    """``POST …/discussions/{number}/merge``, ``…/status``, ``…/comment`` or ``…/title``."""
    discussion = _found(visit)
    match visit.rest[1:]:
        case ["merge"]:
            return _merge(visit, discussion)
        case ["status"]:
            return _set_status(visit, discussion)
        case ["title"]:
            return _set_title(visit, discussion)
        case ["comment"]:
            text = str(visit.call.json().get("comment") or "")
            return Reply.of({"newMessage": _tell(visit, discussion, "comment", **_comment(text))})
    raise RefusalError(404, "Not Found")


def _tell(visit: Visit, discussion: Discussion, kind: str, **data: object) -> dict[str, object]:
    return _happened(discussion, kind, _speaker(visit).name, visit.store.now(), **data)


def _owner_or_author(visit: Visit, discussion: Discussion) -> None:
    if _speaker(visit).name != discussion.author:
        visit.require_writing()


def _set_status(visit: Visit, discussion: Discussion) -> Reply:
    _owner_or_author(visit, discussion)
    status = visit.call.json().get("status")
    if status not in ("open", "closed") or discussion.status == "merged":
        raise RefusalError(400, f"A discussion that is {discussion.status} cannot become {status!r}")
    discussion.status = str(status)
    return Reply.of({"newStatus": _tell(visit, discussion, "status-change", status=status)})


def _set_title(visit: Visit, discussion: Discussion) -> Reply:
    _owner_or_author(visit, discussion)
    title, old = visit.call.json().get("title"), discussion.title
    if not isinstance(title, str) or len(title) < 3:
        raise RefusalError(400, '"title" must have at least 3 characters')
    discussion.title = title
    return Reply.of({"newTitle": _tell(visit, discussion, "title-change", **{"from": old, "to": title})})


def _merge(visit: Visit, discussion: Discussion) -> Reply:
    user = visit.require_writing()
    if discussion.base is None or discussion.status not in ("open", "draft"):
        raise RefusalError(400, f"Discussion {discussion.number} is no open pull request")
    if conflicts := _conflicts(visit.repository, discussion):
        raise RefusalError(409, f"The pull request conflicts with main in {', '.join(conflicts)}")
    repository, store = visit.repository, visit.store
    commit = repository.add(
        _changes(repository, discussion),
        parent=repository.head,
        author=user.name,
        message=f"{discussion.title} (#{discussion.number})",
        date=store.now(),
    )
    repository.advance("main", commit)
    discussion.status, discussion.merged_as = "merged", commit.sha
    return Reply.of({"newStatus": _tell(visit, discussion, "status-change", status="merged")})


def _changes(repository: Repository, discussion: Discussion) -> dict[str, Blob | None]:
    assert discussion.base is not None
    assert discussion.head is not None
    old, new = repository.commits[discussion.base].tree, repository.commits[discussion.head].tree
    return {
        path: new.get(path) for path in sorted({*old, *new}) if _oid(old.get(path)) != _oid(new.get(path))
    }


def _oid(blob: Blob | None) -> str | None:
    return None if blob is None else blob.oid


def _conflicts(repository: Repository, discussion: Discussion) -> list[str]:
    if discussion.base is None or discussion.status == "merged":
        return []
    base, main = repository.commits[discussion.base].tree, repository.head.tree
    return [
        path
        for path, blob in _changes(repository, discussion).items()
        if _oid(main.get(path)) not in (_oid(base.get(path)), _oid(blob))
    ]


def _diff(repository: Repository, discussion: Discussion) -> Iterator[str]:
    assert discussion.base is not None
    base = repository.commits[discussion.base].tree
    for path, blob in _changes(repository, discussion).items():
        old, new = _text_lines(base.get(path)), _text_lines(blob)
        yield f"diff --git a/{path} b/{path}\n"
        yield from difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")


def _text_lines(blob: Blob | None) -> list[str]:
    if blob is None:
        return []
    data = blob.pointer if blob.lfs else blob.data
    return data.decode("utf-8", "replace").splitlines(keepends=True)
