"""What both command lines share: errors as one line, exit codes, `--config`, `--json`."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import re
import reprlib
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from sae.core import interrupts
from sae.core.disk import refusal, require_writable
from sae.core.errors import BUG, INTERRUPTED, OK, TERMINATED, USAGE, Notice, UserError, quote
from sae.core.files import did_you_mean, package_version, write_json
from sae.core.output import require_folder, require_name
from sae.core.quiet import is_first_process

_read = cache(typer.main.get_command)  # an app's commands with their options: .05 s


def use_utf8() -> None:
    """Start the program anew in Python's UTF-8 mode where the locale has another encoding.

    Names of files and what is printed would else be cut to that, LC_ALL=C to ASCII.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(app: typer.Typer, program: str, argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a traceback only after `--debug`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that it cannot show ends no work
            stream.reconfigure(errors="backslashreplace")
    gc.set_threshold(100_000, 10, 10)  # after each 700 it took a tenth of a start
    typed = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in typed
    arguments = [word for word in typed if word != "--debug"]
    try:
        with warnings.catch_warnings(), interrupts.end_on_sigterm():
            warnings.showwarning = _shown_by(program, warnings.showwarning)
            if not arguments or "--help" in arguments:
                _show_texts_as_written(group := typer.main.get_command(app))
            else:
                group = _read(app)
            result = group(args=arguments, prog_name=program, standalone_mode=False)
    except UserError as error:
        return _fail(program, str(error), error.exit_code, debug)
    except typer.TyperException as error:
        message = _usage(error)
        return _fail(program, message, USAGE, debug) if message else USAGE
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except BrokenPipeError:
        return OK
    except UnicodeEncodeError as error:
        if not any("\ud800" <= sign <= "\udfff" for sign in error.object):
            return _bug(program, error, debug)
        message = f"{error.object[:500]!r} is not valid UTF-8; rename that file or folder"
        return _fail(program, message, USAGE, debug)
    except OSError as error:
        found = refusal(error)
        if found is None:
            return _bug(program, error, debug)
        return _fail(program, str(found), USAGE, debug)
    except Exception as error:  # the outermost border: whatever comes here is our bug
        return _bug(program, error, debug)
    if result == INTERRUPTED:  # also what typer makes of SIGINT
        # What was thrown away once is not to be thrown away again.
        again = [_without_login(word) for word in _once(typed)]
        command = f"{program} {shlex.join(again)}"
        print(f"{program}: interrupted; to go on: {command}", file=sys.stderr, flush=True)
        return TERMINATED if interrupts.was_terminated() else INTERRUPTED
    return result if isinstance(result, int) else OK


def _once(typed: Sequence[str]) -> list[str]:
    """Without what throws work away."""
    kept: list[str] = []
    for word in typed:
        if word == "--overwrite" or word.startswith("--from="):
            continue
        if kept and kept[-1] == "--from":
            kept.pop()
        else:
            kept.append(word)
    return kept


def _show_texts_as_written(command: Any) -> None:
    """Help without rich's markup, to which `[/folder]` is a tag, and without a type for flags."""
    from rich.markup import escape

    command.help = escape(command.help or "")
    for param in [*command.params, command.get_help_option(typer.Context(command))]:
        if getattr(param, "help", None):
            param.help = escape(param.help)
        if getattr(param, "is_flag", False):
            param.metavar = ""
    for one in getattr(command, "commands", {}).values():
        _show_texts_as_written(one)


def say(text: str = "") -> None:
    """Print a line of the result (progress and errors go to stderr)."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print a line that no script should miss: on stderr."""
    print(text, file=sys.stderr, flush=True)


def finish(wrote: Mapping[str, Path], following: Sequence[str] = ()) -> None:
    """End a command: what it wrote, and the next commands to type, with their paths quoted."""
    for name, path in wrote.items():
        say(f"{name + ':':<9} {path}")
    for number, command in enumerate(following):
        say(f"{'next:' if number == 0 else '':<9} {command}")


def name_next(sae: Path, store: Path | str = "STORE", domains: Sequence[str] = ()) -> list[str]:
    """What can be done with an SAE and a store, or with the images named in its place."""
    place = f"--domain {' '.join(map(quote, domains))}" if domains else quote(store)
    return [f"{command} {quote(sae)} {place}" for command in ("sae eval", "interp collect")]


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """`--json FILE`: one flat object with the numbers that were printed; NaN becomes null."""
    if path is None or not is_first_process():
        return
    write_json(path, {name: _plain(value) for name, value in figures.items()})
    say(f"{'figures:':<9} {path}")


def print_table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> None:
    """Columns padded to their widest cell; the first to the left, the others to the right."""
    table = [header, *rows] if header else list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        say("  " + "  ".join(cells).rstrip())


def _read_config(
    context: typer.Context, path: Path | None, steps: Collection[str] = ()
) -> Path | None:
    """Make the TOML file's table of this command the defaults that flags override.

    Tables in it that are called as one of `steps` go to `context.meta[TABLES]` as they are.
    """
    if path is None:
        return None
    import tomllib

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"--config {path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not valid TOML: {error}") from None
    options = [p for p in context.command.params if p.name not in (None, "config")]
    known = {_key(word): p.name for p in options for word in (p.name or "", *p.opts)}
    table, values = "", settings
    for group, name in _line_of(context):  # `[steer.classify]` is of `sae steer classify`
        _require_tables(path, table, values, list(group.commands))
        table, values = f"{table}.{name}".lstrip("."), values.get(name, {})
    mine, inner = {}, {word: v for word, v in values.items() if isinstance(v, dict)}
    context.meta[TABLES] = {
        name: {_key(word): value for word, value in inner.pop(name).items()}
        for name in steps
        if name in inner
    }
    for word, value in values.items():
        if word in context.meta[TABLES]:
            continue
        if _key(word) not in known:
            near = did_you_mean(_key(word), [*known, *steps])
            raise UserError(f"{path}: [{table}] has the unknown key {_key(word)!r}{near}")
        mine[known[_key(word)]] = value
    several = {p.name for p in context.command.params if p.multiple or p.nargs != 1}
    for name, value in mine.items():
        each_value = value if isinstance(value, list) and name in several else [value]
        if not all(isinstance(each, str | int | float) for each in each_value):
            raise UserError(
                f"{path}: [{table}] {name} is {reprlib.repr(value)}; it must be one text or number"
            )
    context.default_map = {**(context.default_map or {}), **mine}  # what a recipe says is below
    return path


def _key(word: str) -> str:
    """An option, or a key of a table, as a parameter's name is written."""
    return word.lstrip("-").replace("-", "_")


def _line_of(context: typer.Context) -> list[tuple[Any, str]]:
    """The groups that lead to a command, each with the word that follows it."""
    line: list[tuple[Any, str]] = []
    while context.parent is not None:
        line.insert(0, (context.parent.command, context.info_name or ""))
        context = context.parent  # type: ignore[assignment]
    return line


def _require_tables(
    path: Path, table: str, values: Mapping[str, Any], commands: Sequence[str]
) -> None:
    for name, inner in values.items():
        if name not in commands or not isinstance(inner, dict):
            near = did_you_mean(name, commands)
            whole = f"{table}.{name}".lstrip(".")
            raise UserError(f"{path}: [{whole}] is not the table of a command{near}")


def _say_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        say(f"{context.info_name} {package_version()}")
        raise typer.Exit


DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=_say_version, help="Show the version and end."
    ),
]
TABLES = "tables"
"""In the meta of a command's context: the tables of a settings file that are of its steps."""


def config_option(steps: Collection[str] = (), more: str = "") -> Any:
    """The option `--config` of a command that takes a table for each of its `steps` too."""
    return typer.Option(
        "--config",
        is_eager=True,
        callback=lambda context, path: _read_config(context, path, steps),
        help=f"TOML file of settings, one table a command{more}; flags win.",
        show_default=False,
    )


ConfigOption = Annotated[Path | None, config_option()]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder of the images, where another lab's embeddings or a store from elsewhere do "
        "not say it; once for each domain: NAME=DIR.",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
LinksOption = Annotated[
    bool,
    typer.Option("--follow-links", help="Also read what links out of the images' folders lead to."),
]


def require_file(option: typer.CallbackParam, path: Path | None) -> Path | None:
    """A callback for options of files to write: what cannot be written is refused before work."""
    if path is not None:
        require_name(path, option.opts[0])
        require_writable(path, option.opts[0])
    return path


def declare_out(help: str, file: str = "") -> Any:
    """The option of a folder to write: what cannot be written is refused before any work. A name
    that ends in `file` is that of a file instead."""

    def require(option: typer.CallbackParam, folder: Path | None) -> Path | None:
        if file and folder is not None and folder.suffix.lower() == file:
            return require_file(option, folder)
        if folder is not None:
            require_folder(folder, option.opts[0])
            if folder.resolve() in (Path.cwd() / "sae", Path.cwd() / "interp"):
                hidden = f"{folder} can hide the package of that name from Python started here"
                warnings.warn(f"{hidden}; better: work/{folder.name}", Notice, stacklevel=2)
        return folder

    return typer.Option(help=help, callback=require)


JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Also write the figures to this file.",
        show_default=False,
        callback=require_file,
    ),
]


def _without_login(word: str) -> str:
    """`https://user:password@host` as `https://***@host`: what is printed is kept in logs."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "***@", word)


def _shown_by(program: str, others: Callable[..., None]) -> Callable[..., None]:
    """How warnings are shown: ours as one line, all else as before."""

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, Notice):
            complain(f"{program}: {message}")
        else:
            others(message, category, *rest)

    return show


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")  # empty when the help was shown instead
    if context is None or not message:
        return message
    return f"{message}; see `{context.command_path} --help`"


def _bug(program: str, error: Exception, debug: bool) -> int:
    hint = "this is a bug in the program; run again with --debug for the traceback"
    return _fail(program, f"{type(error).__name__}: {error}\n{hint}", BUG, debug)


def _fail(program: str, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"{program}: {message}", file=sys.stderr, flush=True)
    return code


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return json.loads(json.dumps(value, default=str))
