"""Text that may leave this machine: without its folders, refused with a key in it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from sae.core.errors import UserError

# Folders that begin paths on Linux, macOS, clusters and notebooks. One of them with one more part
# is a place; other paths need three parts, so that "and/or" and a pattern such as /data/g stay.
_ROOTS = (
    "home|Users|root|mnt|media|tmp|private|scratch|Volumes|gpfs|lustre|nfs|srv|opt|var|workspace"
    "|kaggle|content"
)
_SIGN = r"[^\s\"'`<>|:*?\\/,;()\[\]{}]"
_PART = rf"(?:{_SIGN}|(?<=\w)'(?=\w))+"
_SEP = r"(?:\\{1,4}|/)"
# Words behind a blank: no option, no list of alternatives, not the start of another path.
_NO_WORD = r"(?!-|\.{1,2}[\\/]|and/or\b)"
_WORD = rf" {_NO_WORD}(?:(?!=){_SIGN}|(?<=\w)'(?=\w))+"
# In prose nobody knows where a name with blanks ends: a folder's last word is one with a capital, a
# digit or a letter beyond ASCII ("My Photos/", "new folder 2/"), and a separator comes behind it.
_TOLD = rf"(?:{_WORD}){{0,3}} {_NO_WORD}(?=[^\s/\\]*[A-Z0-9\u0080-\U0010ffff])(?:(?!=){_SIGN})+"
_FOLDER = rf"{_PART}(?:{_TOLD}(?=[\\/]))?"
_START = rf"(?:file:///?(?=\w)|(?:(?:\.\.?/)+|/)(?=(?:{_ROOTS})/)|[A-Za-z]:{_SEP})"
# What stands alone, in quotes, in a cell or on a line, is a name to its end, whatever is in it.
_ALONE = re.compile(
    rf"(?:(?<=[\"'`,;>\t|])|^)(?P<place>{_START}(?:{_PART}(?:{_WORD})*{_SEP})+{_PART}(?:{_WORD})*)"
    r"(?=[\"'`,;<\t|]|\r?$)",
    re.MULTILINE,
)
_PLACES = re.compile(
    rf"file://(?:/{_FOLDER})+"
    rf"|(?<![\w./<\\-])(?:(?:\.\.?/)+|/)(?:{_ROOTS})(?:/{_FOLDER})+"
    rf"|(?<![\w./<\\-])(?:/{_FOLDER}){{3,}}"
    rf"|(?<!\w)[A-Za-z]:(?:{_SEP}{_FOLDER}){{2,}}"
)
_HOMES = re.compile(r"(?:[A-Za-z]:)?[\\/]+(?:home|Users)[\\/]+[^\\/]+")
_KEY = re.compile(r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
_KEY_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENROUTER_API_KEY", "OPENAI_API_KEY")


class Scrubbed(NamedTuple):
    """Text as it may be published."""

    text: str
    n_places: int
    """How many paths were cut to their last part."""


def cut_places(text: str) -> Scrubbed:
    """Cut every path of a machine to its last part: "/home/ann/store" becomes "store".

    A path inside a JSON string, a CSV cell or a script stays inside of it. Web addresses stay. A
    name in a path may hold blanks: where nothing tells its end, as in prose, capitals do.
    """
    n_own = 0
    for place in _own_places():
        n_own += text.count(place)
        text = text.replace(place, "~")
    text, n_alone = _ALONE.subn(_last_part, text)
    text, n_found = _PLACES.subn(_last_part, text)
    return Scrubbed(text, n_own + n_alone + n_found)


def require_no_key(text: str, name: str) -> None:
    """Raise `UserError` when the text of file `name` holds an access key; the key is not shown."""
    own = [os.environ.get(variable, "") for variable in _KEY_VARIABLES]
    for number, line in enumerate(text.splitlines(), start=1):
        if _KEY.search(line) or any(len(key) >= 8 and key in line for key in own):
            raise UserError(
                f"{name}, line {number}, holds an access key; nothing was sent. Take it out, and "
                "withdraw the key if the file was ever shared"
            )


def mask_keys(text: str, *keys: str | None) -> str:
    """An error's text without the keys in use: a server may send back what it was sent."""
    for key in keys:
        text = text.replace(key, "***") if key else text
    return _KEY.sub("***", text)


def _last_part(found: re.Match[str]) -> str:
    place = found[0].removeprefix("file://")
    if _HOMES.fullmatch(place):
        return "~"  # its last part is somebody's name
    return re.split(r"[\\/]+", place)[-1]


def _own_places() -> list[str]:
    """This machine's own folders as they may stand in a file, the longest first.

    They are looked for as they are: a name in them may hold a blank, which ends other paths.
    """
    folders = {str(Path.home()), os.getcwd(), tempfile.gettempdir()}
    folders = {folder for folder in folders if len(Path(folder).parts) > 2}
    written = {json.dumps(folder)[1:-1] for folder in folders}  # as in JSON and scripts
    return sorted(folders | written, key=len, reverse=True)
