"""Folders that many tests read: whoever wrote into one of them is found out at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unchanged(*folders: Path) -> Iterator[None]:
    """What is in the folders at the end is what was in them, file by file."""
    before = _state_of(folders)
    yield
    after = _state_of(folders)
    changed = sorted(path for path, _ in before ^ after)
    assert not changed, f"a test has changed what others read: {changed[:5]}"


def _state_of(folders: tuple[Path, ...]) -> set[tuple[str, tuple[int, int]]]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {(str(path), (path.stat().st_size, path.stat().st_mtime_ns)) for path in files}
