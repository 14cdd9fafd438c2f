"""The sources of `sae` and `interp` -> where they break the rules of docs/architecture.md.

`python -m tests.structure --table` prints boxes, arrows and circles of each package.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGES = ("sae", "interp")
FREE = {"sae": {"sae.core"}, "interp": {"sae.core", "interp.records"}}
"""Rooms that every room of a package may import."""
DOORS = ("__init__.py", "__main__.py", "py.typed")
"""Files that Python asks for by name: they are no boxes and no entries of a folder."""
MAX_BOXES = 13
MAX_ENTRIES = 14
MAX_LINES = 350
MAX_FUNCTION = 60
MAX_REPEATED = 5
"""So many lines in a row may stand in two files; one more may not."""

Imports = Mapping[str, set[str]]
"""Modules by the modules that import them, all of ours."""


def read_modules(root: Path) -> dict[str, Path]:
    """All modules of both packages by their dotted names; a package's name is its `__init__`'s."""
    files = (file for name in PACKAGES for file in sorted((root / name).rglob("*.py")))
    return {_module_name(file.relative_to(root)): file for file in files}


def read_imports(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports of ours, wherever in it: in functions and for type checks too."""
    return {name: set(_imported(name, file, modules)) - {name} for name, file in modules.items()}


def room_of(module: str) -> str:
    """`sae.data.formats.saev` -> `sae.data`; the doors of a package are the room of its name."""
    return ".".join(module.split(".")[:2]).removesuffix(".__main__")


def read_table(text: str) -> dict[str, set[str]]:
    """The table "Who may import whom" -> the rooms that each room may import.

    A package's name stands for all of its rooms. Raises `ValueError` on a word it does not know.
    """
    lines = text.split("| from | may import |", 1)[1].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        left, right = line.strip("| ").split("|")
        rows.append((_listed(left), _listed(right)))
    known = {room for rooms, _ in rows for room in rooms}
    allowed: dict[str, set[str]] = {}
    for rooms, targets in rows:
        for room in rooms:
            allowed[room] = {_target(word, room, known) for word in targets if word != "nothing"}
    return allowed


def wrong_arrows(imports: Imports, allowed: Mapping[str, set[str]]) -> list[str]:
    """Imports that the table does not allow, and rooms that it does not name."""
    wrong = []
    for source, targets in sorted(imports.items()):
        room = room_of(source)
        package = room.split(".")[0]
        for target in sorted(targets):
            other = room_of(target)
            if other == room or (room == package and other.startswith(f"{package}.")):
                continue
            may = allowed.get(room, set()) | FREE[package]
            if other not in may and other.split(".")[0] not in may - {other}:
                wrong.append(f"{source} imports {target}: {room} may not import {other}")
    return wrong


def circles(imports: Imports) -> list[list[str]]:
    """Groups of modules that import each other in a circle, each sorted by name."""
    reached = {module: _reachable(module, imports) for module in imports}
    groups = {
        tuple(sorted(m for m in reached[module] if module in reached[m]))
        for module in imports
        if module in reached[module]
    }
    return [list(group) for group in sorted(groups)]


def crowded_folders(root: Path) -> list[str]:
    """Folders with more than `MAX_ENTRIES` files and folders, without doors and caches.

    Of a package itself they are its rooms: these are counted by `MAX_BOXES`.
    """
    inner = (folder for folder in _folders(root) if folder.parent != root)
    counted = {folder: len(entries(folder)) for folder in inner}
    return [
        f"{folder.relative_to(root)} has {n} entries"
        for folder, n in counted.items()
        if n > MAX_ENTRIES
    ]


def entries(folder: Path) -> list[str]:
    """What stands in a folder, by name: rooms and files, without doors, caches and hidden files."""
    names = sorted(path.name for path in folder.iterdir())
    return [n for n in names if n not in (*DOORS, "__pycache__") and not n.startswith(".")]


def long_files(root: Path) -> list[str]:
    """Source files of more than `MAX_LINES` lines, those of the gallery's page among them."""
    endings = (".py", ".js", ".css", ".html")
    files = (f for folder in _folders(root) for f in sorted(folder.iterdir()) if f.is_file())
    counted = {f: len(_text(f).splitlines()) for f in files if f.suffix in endings}
    return [f"{f.relative_to(root)} has {n} lines" for f, n in counted.items() if n > MAX_LINES]


def long_functions(modules: Mapping[str, Path]) -> list[str]:
    """Functions of more than `MAX_FUNCTION` lines, from `def` to their last one."""
    return [
        f"{name}.{node.name} has {n} lines"
        for name, file in modules.items()
        for node in ast.walk(ast.parse(_text(file)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]


def repeated_lines(modules: Mapping[str, Path]) -> list[str]:
    """Places of two files that share more than `MAX_REPEATED` lines in a row.

    Imports, docstrings, comments, blank lines and lines of punctuation alone are passed over.
    """
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    pairs: dict[tuple[str, str], tuple[int, int]] = {}
    for name, file in modules.items():
        lines = list(_telling_lines(_text(file)))
        for start in range(len(lines) - MAX_REPEATED):
            run = lines[start : start + MAX_REPEATED + 1]
            other, at = seen.setdefault(tuple(text for _, text in run), (name, run[0][0]))
            if other != name:
                pairs.setdefault((other, name), (at, run[0][0]))
    return [f"{a}:{at} stands again in {b}:{too}" for (a, b), (at, too) in pairs.items()]


def table(root: Path, allowed: Mapping[str, set[str]]) -> str:
    """Boxes, arrows and circles of each package, a line each."""
    imports = read_imports(read_modules(root))
    lines = []
    for package in PACKAGES:
        own = {m: targets for m, targets in imports.items() if m.split(".")[0] == package}
        drawn = {
            (room_of(m), room_of(t))
            for m, targets in own.items()
            for t in targets
            if room_of(t) not in {package, room_of(m), *FREE[package]} and room_of(m) != package
        }
        boxes = entries(root / package)
        n_rooms = sum((root / package / name).is_dir() for name in boxes)
        lines.append(
            f"{package}: {len(boxes)} boxes ({n_rooms} rooms, {len(boxes) - n_rooms} files), "
            f"{len(drawn)} arrows (without those to rooms free to all), "
            f"{len(wrong_arrows(own, allowed))} imports outside the table, "
            f"{len(circles(own))} circles"
        )
    return "\n".join(lines)


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(name: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(_text(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, file, node)
            for alias in node.names:
                for module in (f"{base}.{alias.name}", base):
                    if module in modules:
                        yield module
                        break


def _base(name: str, file: Path, node: ast.ImportFrom) -> str:
    """The module that `from ... import` names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    up = node.level - (file.name == "__init__.py")
    parts = name.split(".")[: -up or None]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _listed(cell: str) -> list[str]:
    return [word.strip() for word in re.sub(r"\(.*?\)", "", cell).split(",") if word.strip()]


def _target(word: str, room: str, known: set[str]) -> str:
    name = word.removeprefix("all of ")
    if name in PACKAGES:
        return name
    full = name if "." in name else f"{room.split('.')[0]}.{name}"
    if full not in known:
        raise ValueError(f"{word!r} in the line of {room} is no room of the table")
    return full


def _reachable(start: str, imports: Imports) -> set[str]:
    """All modules that a walk along the imports comes to, at least one step away."""
    found: set[str] = set()
    todo = [start]
    while todo:
        for module in imports.get(todo.pop(), ()):
            if module not in found:
                found.add(module)
                todo.append(module)
    return found


def _folders(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        folders = (path for path in (root / package).rglob("*") if path.is_dir())
        kept = sorted(f for f in folders if "__pycache__" not in f.parts)
        yield from [root / package, *kept]


def _telling_lines(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a source file, without what says nothing of its own."""
    passed: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (said or isinstance(node, ast.Import | ast.ImportFrom)):
            passed |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for number, line in enumerate(text.splitlines(), 1):
        told = line.strip()
        if number not in passed and re.search(r"\w", told) and not told.startswith("#"):
            yield number, told


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def main(arguments: Iterable[str]) -> None:
    root = Path(__file__).resolve().parents[1]
    allowed = read_table(_text(root / "docs" / "architecture.md"))
    if list(arguments) != ["--table"]:
        raise SystemExit("usage: python -m tests.structure --table")
    print(table(root, allowed))


if __name__ == "__main__":
    main(sys.argv[1:])
