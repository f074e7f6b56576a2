"""The design's layers, enforced."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import t2v_hub

PACKAGE = Path(t2v_hub.__file__).parent

LAYERS = {
    "errors": 1,
    "storage": 1,
    "plugins": 1,
    "executors": 2,
    "embedding": 2,
    "fisher": 3,
    "distance": 3,
    "card": 3,
    "logistic": 3,
    "head": 3,
    "blocks": 3,
    "replication": 3,
    "processes": 3,
    "probe": 4,
    "data": 4,
    "catalog": 4,
    "diagnostics": 4,
    "task2vec": 5,
    "cache": 5,
    "passes": 5,
    "estimate": 5,
    "pool": 5,
    "measuring": 5,
    "precision": 5,
    "hub": 5,
    "settings": 5,
    "scores": 5,
    "features": 5,
    "housekeeping": 5,
    "model2vec": 5,
    "selector": 6,
    "enrich": 6,
    "judging": 6,
    "manifest": 6,
    "plot": 7,
    "cli": 8,
    "demo": 8,
}
EXCEPTIONS = {("catalog", "hub")}  # reading cards into a catalog, lazily
BESIDE = {"testing"}  # only the demo and tests import it
DOORS = {
    "timm": {"probe", "demo"},
    "transformers": {"probe", "demo"},
    "datasets": {"data", "testing", "demo"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "t2v_hub":
                names = [alias.name for alias in node.names]
                yield from (
                    f"t2v_hub.{n}" for n in names if (PACKAGE / n).is_dir() or (PACKAGE / f"{n}.py").exists()
                )


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    """A room that imports upwards cannot be read, or tested, without what stands above it."""
    own = room(path)

    for module in imports(path):
        parts = module.split(".")
        assert parts[0] != "t2v_hub_integrations"
        if parts[0] == "t2v_hub" and len(parts) > 1 and parts[1] != own and own not in BESIDE:
            assert parts[1] in LAYERS or own == "demo", f"{parts[1]} has no layer"
            if parts[1] not in BESIDE:
                below = LAYERS[parts[1]] <= LAYERS[own] or (own, parts[1]) in EXCEPTIONS
                assert below, f"{own} imports {parts[1]} from above"
        if parts[0] in DOORS:
            assert own in DOORS[parts[0]], f"{own} may not know {parts[0]}"


def test_every_room_has_a_layer():
    """A new room must say where it stands."""
    assert {room(path) for path in FILES} - BESIDE == set(LAYERS)


ADAPTERS = sorted((PACKAGE.parent / "integrations" / "t2v_hub_integrations").rglob("*.py"))


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_an_adapter_uses_public_names_only(path):
    """What is not public may change with any version, and an adapter is what others will copy from."""
    private = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            private += [alias.name for alias in node.names if alias.name.startswith("t2v_hub.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "t2v_hub":
            module = import_module(node.module or "")
            public = getattr(module, "__all__", ()) if node.module != "t2v_hub.errors" else dir(module)
            private += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]

    assert not private


def test_every_package_is_shipped():
    """An editable install finds a package that setup.cfg forgot; a user's does not."""
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")

    shipped = set(config["options"]["packages"].split()) - {"t2v_hub_integrations"}

    assert shipped == {
        ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")
    }


def test_a_module_stays_readable():
    """At 400 lines a module is two modules."""
    long = {
        str(path.relative_to(PACKAGE)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400
    }

    assert not long


def test_import_is_quick_and_quiet():
    """`import t2v_hub` and everything that ranks stored embeddings must not load torch."""
    code = (
        "import sys, t2v_hub; "
        "heavy = {'torch', 'transformers', 'datasets', 'timm', 'sklearn', 'matplotlib', 'numpy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "from t2v_hub import Catalog, ModelSelector, TaskEmbedding, symmetric_distance; "
        "heavy -= {'numpy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    """The lazy table of names and the homes that it names must not drift apart."""
    for name in t2v_hub.__all__:
        assert getattr(t2v_hub, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        t2v_hub.nothing  # noqa: B018
