"""What pyproject.toml puts into a wheel: every file of the packages, and nothing else."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOUND = SETTINGS["tool"]["setuptools"]["packages"]["find"]
DATA: dict[str, list[str]] = SETTINGS["tool"]["setuptools"]["package-data"]


def test_every_file_that_is_no_python_is_listed_as_data_of_its_package() -> None:
    packages = ("sae", "interp", "prompts")
    files = [f for name in packages for f in (ROOT / name).rglob("*") if f.is_file()]
    data = [f for f in files if f.suffix not in (".py", ".pyc")]
    listed = {f for name, patterns in DATA.items() for p in patterns for f in _folder(name).glob(p)}
    assert sorted(set(data) - listed) == []
    assert len(data) > 20


def test_every_folder_with_python_is_a_package() -> None:
    folders = {f.parent for name in ("sae", "interp") for f in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_only_the_packages_and_the_prompts_are_shipped() -> None:
    tops = [path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()]
    shipped = [name for name in tops if any(fnmatch(name, glob) for glob in FOUND["include"])]
    assert sorted(shipped) == ["interp", "prompts", "sae"]


def _folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))
