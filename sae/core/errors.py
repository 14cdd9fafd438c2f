"""The one error that a user can mend, how it names a path, the exit codes of both commands."""

from __future__ import annotations

import shlex
from pathlib import Path

OK = 0
BUG = 1
USAGE = 2
BUDGET = 3
FAILURES = 4
INTERRUPTED = 130
TERMINATED = 143


class UserError(Exception):
    """One clear line: the value, the place and the next command. Shown without a traceback."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Notice(UserWarning):
    """What a user should know, though it stops nothing. A command line shows it as one line."""


def quote(path: Path | str) -> str:
    """A path as it is typed in a command: what is printed can be copied, whatever its name."""
    return shlex.quote(str(path))
