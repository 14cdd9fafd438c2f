"""Which versions of the packages that matter are installed: they belong to every figure."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def is_installed(package: str) -> bool:
    """Whether `pip` knows it here."""
    return _version(package) != ""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """ "version of torch" -> "2.15.0"; what is not installed is left out."""
    found = {f"version of {name}": _version(name) for name in packages}
    return {name: version for name, version in found.items() if version}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
