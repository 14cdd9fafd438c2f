"""One image of an archive, or of a list."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """An image that lies in another file, as that file lists it."""

    name: str
    """Its place in there: a posix path in a tar archive, the row's number in a table."""
    label: str | None
    """Its class; None where folders tell it."""
