"""Packages that are installed for a test only: a folder of modules and ``.dist-info``, as pip leaves them."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"


def install(
    site: Path, package: str, entries: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]
) -> None:
    """Install a package of these modules, with entry points by group and name."""
    lines = []
    for group, values in entries.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in values.items())]
    write_table(site, package, "\n".join(lines))
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source, encoding="utf-8")


def write_table(site: Path, package: str, table: str) -> None:
    """Install a package without modules, whose table of entry points is this text."""
    folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(table, encoding="utf-8")


def install_example(site: Path) -> None:
    """Install the package in ``examples/plugin``."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (EXAMPLE / "t2v_hub_lab.py").read_text(encoding="utf-8")
    install(site, project["name"], project["entry-points"], {"t2v_hub_lab": source})
