"""What users do with repositories as a whole: create, delete, rename, settings, branches and tags."""

from t2v_hub.testing.loopback.objects import Kind
from t2v_hub.testing.loopback.reading import commit_of
from t2v_hub.testing.loopback.replies import Call, RefusalError, Reply, Visit
from t2v_hub.testing.loopback.store import Repository, is_repo_id

_ATTRIBUTES = b"".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for suffix in ("bin", "parquet", "safetensors")
)


def who_am_i(call: Call) -> Reply:
    """``GET /api/whoami-v2``."""
    user = call.signed_in()
    organisations = sorted(
        name for name, members in call.store.members.items() if user.name in members and name != user.name
    )
    role = "write" if user.can_write else "read"
    return Reply.of(
        {
            "type": "user",
            "id": f"user-{user.name}",
            "name": user.name,
            "fullname": user.name,
            "isPro": False,
            "orgs": [
                {"type": "org", "id": f"org-{name}", "name": name, "fullname": name, "roleInOrg": "admin"}
                for name in organisations
            ],
            "auth": {"type": "access_token", "accessToken": {"displayName": user.name, "role": role}},
        }
    )


def _kind(value: object) -> Kind:
    if value in (None, "model"):
        return "model"
    if value == "dataset":
        return "dataset"
    raise RefusalError(400, f"The loopback Hub has models and datasets, no {value!r}")


def _named(call: Call) -> tuple[Kind, str, str]:
    """Kind, namespace and id that a body names."""
    user = call.signed_in()
    body = call.json()
    namespace, name = body.get("organization") or user.name, body.get("name")
    repo_id = f"{namespace}/{name}"
    if not is_repo_id(repo_id):
        raise RefusalError(400, f"Invalid repository name: {repo_id!r}")
    return _kind(body.get("type")), str(namespace), repo_id


def _require_namespace(call: Call, namespace: str) -> str:
    user = call.signed_in()
    if not user.can_write or not call.store.belongs(user, namespace):
        raise RefusalError(
            403, f"Forbidden: {user.name} may not write under the namespace {namespace!r} with this token"
        )
    return user.name


def create(call: Call) -> Reply:
    """``POST /api/repos/create``: 409 where it exists."""
    kind, namespace, repo_id = _named(call)
    user = _require_namespace(call, namespace)
    known = call.store.repositories.get((kind, repo_id))
    if known is not None:
        said = {
            "error": f"You already created this {kind} repo",
            "url": f"{call.endpoint}/{known.path}",
            "name": repo_id,
        }
        return Reply.of(said, status=409)
    body = call.json()
    repository = call.store.create(kind, repo_id, owner=user)
    repository.private = body.get("visibility") == "private" or body.get("private") is True
    first = repository.add(
        {".gitattributes": call.store.blob(".gitattributes", _ATTRIBUTES)},
        parent=None,
        author=user,
        message="initial commit",
        date=repository.created,
    )
    repository.advance("main", first)
    return Reply.of({"url": f"{call.endpoint}/{repository.path}", "name": repo_id, "id": repo_id})


def _owned(call: Call, kind: Kind, repo_id: str) -> Repository:
    repository = call.store.repositories.get((kind, repo_id))
    if repository is None or not call.store.may_read(call.user, repository):
        raise RefusalError(404, f"{kind.capitalize()} repository not found", code="RepoNotFound")
    if not call.store.may_write(call.user, repository):
        raise RefusalError(403, f"Forbidden: you have no write access to {repo_id}")
    return repository


def delete(call: Call) -> Reply:
    """``DELETE /api/repos/delete``."""
    kind, _, repo_id = _named(call)
    call.store.remove(_owned(call, kind, repo_id))
    return Reply.of({})


def move(call: Call) -> Reply:
    """``POST /api/repos/move``: the old name leads to the new one from then on."""
    call.signed_in()
    body = call.json()
    kind, old, new = _kind(body.get("type")), str(body.get("fromRepo")), str(body.get("toRepo"))
    if not is_repo_id(new):
        raise RefusalError(400, f"Invalid repository name: {new!r}")
    repository = _owned(call, kind, old)
    _require_namespace(call, new.partition("/")[0])
    if (kind, new) in call.store.repositories:
        raise RefusalError(409, f"There is already a {kind} {new}")
    call.store.rename(repository, new)
    return Reply.of({})


def change_settings(visit: Visit) -> Reply:
    """``PUT …/settings``: visibility and gating."""
    visit.require_writing()
    body, repository = visit.call.json(), visit.repository
    visibility = body.get("visibility", {True: "private", False: "public"}.get(bool(body.get("private"))))
    if "visibility" in body or "private" in body:
        repository.private = visibility == "private"
    match body.get("gated", repository.gated):
        case "auto":
            repository.gated = "auto"
        case "manual":
            repository.gated = "manual"
        case False:
            repository.gated = False
        case other:
            raise RefusalError(400, f'"gated" must be "auto", "manual" or false, not {other!r}')
    repository.touch()
    return Reply.of({"private": repository.private, "gated": repository.gated})


def _refs(visit: Visit) -> tuple[dict[str, str], str]:
    is_branch = visit.call.segments[-len(visit.rest) - 1] == "branch"
    return (visit.repository.branches if is_branch else visit.repository.tags), "/".join(visit.rest)


def add_ref(visit: Visit) -> Reply:
    """``POST …/branch/{name}`` or ``…/tag/{revision}``: 409 where there is one already."""
    visit.require_writing()
    body = visit.call.json() if visit.call.body else {}
    refs, named = _refs(visit)
    is_tag = refs is visit.repository.tags
    name = str(body.get("tag")) if is_tag else named
    start = commit_of(visit, named if is_tag else str(body.get("startingPoint") or "main"))
    if name in refs:
        raise RefusalError(409, f"Reference already exists: {name}")
    refs[name] = start.sha
    return Reply.of({})


def delete_ref(visit: Visit) -> Reply:
    """``DELETE …/branch/{name}`` or ``…/tag/{name}``."""
    visit.require_writing()
    refs, name = _refs(visit)
    if name not in refs:
        raise RefusalError(404, f"There is no {name}", code="RevisionNotFound")
    if refs is visit.repository.branches and name == "main":
        raise RefusalError(403, "main cannot be deleted")
    del refs[name]
    return Reply.of({})
