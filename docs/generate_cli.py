"""The help of every command of `sae` and `interp` -> docs/cli.md.

`python docs/generate_cli.py` writes it; with `--check` nothing is written, and the exit code is 1
when docs/cli.md says something else than `--help` does. The tables are laid out here and not by
typer: its layout differs between versions and terminals.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("cli.md")
HEADER = """# Command line

Written by `python docs/generate_cli.py` from the texts of `--help`; do not edit. How the commands
work together: [guide.md](guide.md). `sae --debug ...` and `interp --debug ...` show tracebacks.
"""


def cli_markdown() -> str:
    """All commands of both programs: what each does, and its arguments and options."""
    import typer

    parts = [HEADER]
    for program in ("sae", "interp"):
        group: Any = typer.main.get_command(importlib.import_module(f"{program}.cli.app").app)
        parts.append(f"## {program}\n\n{_text(group.help)}\n")
        parts += _commands(program, group)
    return "\n".join(parts)


def _commands(program: str, group: Any) -> Iterator[str]:
    """Those of a group, and of the groups in it."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield f"### {program} {name}\n\n{_text(command.help)}\n"
        inner = hasattr(command, "commands")
        if not inner or command.invoke_without_command:
            yield "\n".join(_table(command.params)) + "\n"
        if inner:
            yield from _commands(f"{program} {name}", command)


def _table(parameters: list[Any]) -> Iterator[str]:
    yield "| option | what it is | default |"
    yield "|---|---|---|"
    for one in parameters:
        if getattr(one, "hidden", False) or one.name == "help":
            continue
        what = _text(one.help or "").replace("|", "\\|")
        yield f"| `{_spelling(one)}` | {what} | {_default(one)} |".replace("|  |", "| |")


def _spelling(one: Any) -> str:
    """`--k VALUE`, `--overwrite`, or the name of an argument."""
    if one.param_type_name == "argument":
        return str(one.metavar or one.name.upper()).replace("|", " or ")
    names = ", ".join([*one.opts, *one.secondary_opts])
    return names if one.is_flag else f"{names} {one.metavar or 'VALUE'}".replace("|", " or ")


def _default(one: Any) -> str:
    if one.required:
        return "required"
    value = one.default
    plain = isinstance(value, bool | int | float | str | Path) and value is not False
    return f"`{value}`" if plain and str(value) else ""


def _text(text: str) -> str:
    """A help text without the breaks that only wrap it."""
    paragraphs = inspect.cleandoc(text.replace("\b", "")).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def main() -> None:
    sys.path.insert(0, str(TARGET.parents[1]))
    text = cli_markdown()
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        raise SystemExit("docs/cli.md has drifted; run `python docs/generate_cli.py`")


if __name__ == "__main__":
    main()
