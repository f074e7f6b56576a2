"""Who answers which request."""

from collections.abc import Callable
from urllib.parse import quote

from t2v_hub.testing.loopback import accounts, discussions, reading, writing
from t2v_hub.testing.loopback.objects import Kind
from t2v_hub.testing.loopback.replies import Call, RefusalError, Reply, Visit
from t2v_hub.testing.loopback.store import Repository

_KINDS: dict[str, Kind] = {"models": "model", "datasets": "dataset"}
_LFS_BATCH = ["info", "lfs", "objects", "batch"]

_ABOUT_HUB: dict[tuple[str, ...], Callable[[Call], Reply]] = {
    ("GET", "whoami-v2"): accounts.who_am_i,
    ("POST", "validate-yaml"): writing.validate_yaml,
    ("POST", "repos", "create"): accounts.create,
    ("DELETE", "repos", "delete"): accounts.delete,
    ("POST", "repos", "move"): accounts.move,
}

# Verb after the id, method, how many parts of the path follow at least: who answers.
_ABOUT_REPOSITORY: dict[tuple[str, str], tuple[int, Callable[[Visit], Reply]]] = {
    ("GET", ""): (0, reading.info),
    ("GET", "revision"): (1, reading.info),
    ("GET", "auth-check"): (0, reading.access),
    ("GET", "tree"): (1, reading.tree),
    ("POST", "paths-info"): (1, reading.paths_info),
    ("GET", "refs"): (0, reading.refs),
    ("GET", "commits"): (1, reading.commits),
    ("PUT", "settings"): (0, accounts.change_settings),
    ("POST", "branch"): (1, accounts.add_ref),
    ("DELETE", "branch"): (1, accounts.delete_ref),
    ("POST", "tag"): (1, accounts.add_ref),
    ("DELETE", "tag"): (1, accounts.delete_ref),
    ("POST", "preupload"): (1, writing.preupload),
    ("POST", "commit"): (1, writing.commit),
    ("GET", "discussions"): (0, discussions.listed),
    ("POST", "discussions"): (0, discussions.created),
    ("GET", "discussion"): (1, discussions.details),
    ("POST", "discussion"): (2, discussions.changed),
    ("GET", "resolve"): (2, reading.resolve),
    ("POST", "lfs"): (0, writing.lfs_batch),
}
_VERBS = {verb for _, verb in _ABOUT_REPOSITORY} - {"", "discussion", "lfs"}


def is_commit(call: Call) -> bool:
    """Whether the request commits to a repository."""
    return call.method == "POST" and call.segments[:1] == ["api"] and "commit" in call.segments[2:5]


def route(call: Call) -> Reply:
    """The answer. Call it while holding the store's lock.

    Raises:
        RefusalError: The request is refused.
    """
    match call.segments:
        case ["api", kinds, *rest] if kinds in _KINDS:
            kind = _KINDS[kinds]
            if not rest and call.method == "GET":
                return reading.listing(call, kind)
            return _visit(call, kind, 2, *_split(rest))
        case ["api", *rest] if answer := _ABOUT_HUB.get((call.method, *rest)):
            return answer(call)
        case ["lfs", oid] if call.method == "PUT":
            return writing.lfs_upload(call, oid)
        case ["lfs", oid, "verify"] if call.method == "POST":
            return writing.lfs_verify(call, oid)
        case ["datasets", *rest]:
            return _files(call, "dataset", 1, rest)
        case [_, *_]:
            return _files(call, "model", 0, call.segments)
    raise RefusalError(404, "Not Found")


def _split(parts: list[str]) -> tuple[list[str], str, list[str]]:
    """Id, verb and what follows; an id has one part or two."""
    size = 1 if len(parts) == 1 or parts[1] in _VERBS else 2
    named, verb, rest = parts[:size], "".join(parts[size : size + 1]), parts[size + 1 :]
    return (named, "discussion", rest) if verb == "discussions" and rest else (named, verb, rest)


def _files(call: Call, kind: Kind, before: int, parts: list[str]) -> Reply:
    for size in (1, 2):
        if parts[size : size + 1] == ["resolve"]:
            return _visit(call, kind, before, parts[:size], "resolve", parts[size + 1 :])
        if parts[size:] == _LFS_BATCH and parts[size - 1].endswith(".git"):
            named = [*parts[: size - 1], parts[size - 1].removesuffix(".git")]
            return _visit(call, kind, before, named, "lfs", [])
    raise RefusalError(404, "Not Found")


def _visit(call: Call, kind: Kind, before: int, named: list[str], verb: str, rest: list[str]) -> Reply:
    """Answers what is about one repository.

    Args:
        call: The request.
        kind: Of the repository.
        before: How many parts of the path stand before its id.
        named: The parts of its id.
        verb: What is asked of it.
        rest: The parts of the path after the verb.
    """
    repo_id = "/".join(named)
    repository = call.store.repositories.get((kind, repo_id))
    if repository is None and (new_id := call.store.renamed.get((kind, repo_id))):
        target = call.store.repositories[kind, new_id]
        if call.store.may_read(call.user, target):
            return _moved(call, before, len(named), new_id)
    entered = enter(call, repository, kind)
    needed, answer = _ABOUT_REPOSITORY.get((call.method, verb), (0, None))
    if rest and verb in ("resolve", "tree", "paths-info", "revision", "commits") and rest[0] == "refs":
        rest = ["/".join(rest[:3]), *rest[3:]]  # sent without escaping the slashes
    if answer is None or len(rest) < needed:
        raise RefusalError(404, "Not Found")
    return answer(Visit(call, entered, rest))


def enter(call: Call, repository: Repository | None, kind: Kind) -> Repository:
    """The repository, if there is one and the user may know of it.

    Raises:
        RefusalError: There is none, or none for this user, or it is disabled.
    """
    if repository is None or not call.store.may_read(call.user, repository):
        if call.user is None:
            raise RefusalError(401, "Invalid username or password.", code="RepoNotFound")
        raise RefusalError(404, f"{kind.capitalize()} repository not found", code="RepoNotFound")
    if repository.disabled:
        raise RefusalError(403, "Access to this resource is disabled.", code="DisabledRepo")
    return repository


def _moved(call: Call, before: int, size: int, new_id: str) -> Reply:
    parts = call.path.split("/")[1:]
    git = ".git" if parts[before + size - 1].endswith(".git") else ""
    kept = parts[:before], [quote(new_id) + git], parts[before + size :]
    raw = "/".join(part for group in kept for part in group)
    query = call.target.partition("?")[2]
    location = f"/{raw}" + (f"?{query}" if query else "")
    return Reply.of({"error": f"Moved to {new_id}"}, status=307, headers={"Location": location})
