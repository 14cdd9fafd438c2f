"""What a stranger's repository brings -> data alone; the page that shows it is our own.

Nothing of theirs can run in a browser: cards come as JSON in a call that we write anew, pictures
must begin as pictures do, and HTML, style sheets and other scripts are not fetched at all.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import shutil
from pathlib import Path

from sae.core.csv_cells import read_cell, write_cell
from sae.core.errors import UserError
from sae.core.files import parse_object
from sae.interchange.hub.parcel import GALLERY, LABELS, REPORT

_CARDS = re.compile(r"gallery/data/(index|text|words|map|[cp]\d{4,6})\.js")
_PICTURE = re.compile(r"gallery/thumbs/[0-9a-z]{2}/[0-9a-z]{1,64}\.(webp|png|jpg)")
_CALL = re.compile(
    r"\s*G\.(?:(index|texts|words|map)\((\{.*\}|\[.*\])|(shard|calls)\((\d{1,6}),\s*(\{.*\}|\[.*\]))\)\s*;?\s*",
    re.S,
)
_STARTS = {".webp": b"RIFF", ".png": b"\x89PNG", ".jpg": b"\xff\xd8\xff"}
_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_data_of_gallery(name: str) -> bool:
    """Whether a file of a repository is a gallery's cards or one of its pictures."""
    return bool(_CARDS.fullmatch(name) or _PICTURE.fullmatch(name))


def make_harmless(folder: Path) -> None:
    """Check and write anew what was fetched into a folder, and add our own page to its gallery.

    Raises `UserError` for what is not of the kind that its name tells.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _CARDS.fullmatch(name):
            path.write_text(_cards(path.read_bytes(), name), encoding="ascii")
        if _PICTURE.fullmatch(name) and not _starts_as_picture(path):
            raise UserError(f"{name} is no {path.suffix[1:]} picture")
    if (report := folder / REPORT).exists():
        parse_object(report.read_bytes(), REPORT)  # neither NaN nor what is no JSON
    if (labels := folder / LABELS).exists():
        _guard_cells(labels)
    if (folder / GALLERY / "data" / "index.js").exists():
        _add_page(folder / GALLERY)


def _cards(data: bytes, name: str) -> str:
    """The call of a script of cards, with its JSON written so that no script or tag is in it."""
    call = _CALL.fullmatch(data.decode("utf-8", "replace"))
    if call is None:
        raise UserError(f"{name} is no gallery's data: a script that does something else")
    kind, number, text = call[1] or call[3], call[4], call[2] or call[5]
    value = parse_object(f'{{"cards":{text}}}'.encode(), f"{name}:")["cards"]
    try:
        safe = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise UserError(f"{name} has a number that is none ({error})") from None
    safe = safe.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f"G.{kind}({f'{int(number)},' if number else ''}{safe});\n"


def _starts_as_picture(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(_STARTS[path.suffix])


def _guard_cells(labels: Path) -> None:
    """Cells that a spreadsheet would run become text; a file without such ones stays as it is."""
    try:
        text = labels.read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{LABELS} is no CSV file in UTF-8 ({error})") from None
    numbers = {cell for row in rows for cell in row if _NUMBER.fullmatch(cell)}
    if any(cell.startswith(_SIGNS) and cell not in numbers for row in rows for cell in row):
        lines = (
            ",".join(cell if cell in numbers else write_cell(read_cell(cell)) for cell in row)
            for row in rows
        )
        labels.write_bytes("".join(f"{line}\r\n" for line in lines).encode("utf-8-sig"))


def _add_page(gallery: Path) -> None:
    """Our page, where `interp` is installed beside: its files are copied, nothing is imported."""
    found = importlib.util.find_spec("interp")
    for place in (found.submodule_search_locations or []) if found else []:
        for path in sorted((Path(place) / "report" / "gallery" / "page").rglob("*")):
            if path.suffix in (".html", ".css", ".js"):
                shutil.copyfile(path, gallery / path.name)
