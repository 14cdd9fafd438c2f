"""What reading a damaged or hostile file may raise -> a `UserError` of one printable line."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae.core.errors import UserError

DAMAGE = (
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
LFS = b"version https://git-lfs"


class Unfit(ValueError):
    """The file asks for what is not allowed, or for more bytes than there are."""


@contextmanager
def errors_in_one_line(what: str, remedy: str = "") -> Iterator[None]:
    """Turn what damage may raise into one line; none of a file's bytes reach a terminal as such."""
    try:
        yield
    except UserError as error:
        raise UserError(one_line(str(error)), error.exit_code) from None
    except DAMAGE as error:
        raise UserError(one_line(f"{what} ({error!r:.200}){remedy}")) from None


def one_line(text: str, n_max: int = 600) -> str:
    """What a foreign file says, fit for a terminal: one line, printable, not endless."""
    line = " ".join(text[: 4 * n_max].split())
    line = "".join(sign if sign.isprintable() else "?" for sign in line)
    return line if len(line) <= n_max else line[:n_max] + "..."


def reason(error: Exception) -> str:
    """An error's text in at most 200 letters."""
    return " ".join(str(error)[:1000].split())[:200] or type(error).__name__


def first_bytes(path: Path) -> bytes:
    """A file's first bytes. Raises `UserError` for an empty file and a Git LFS pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not head:
        raise UserError(f"{path} is empty; fetch it again")
    if head.startswith(LFS):
        raise UserError(
            f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where it came from"
        )
    return head
