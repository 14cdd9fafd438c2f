"""Texts and pictures of a question -> the same with all pictures on one sheet, with titles."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

from interp.llm.types import Picture

_MARGIN = 8
_STRIP = 28
"""Pixels above a picture, for its title."""
_WIDEST = 1200
_LONGEST_TITLE = 60
"""Characters of a text that is the title of the picture behind it."""


def put_on_one_sheet(parts: Sequence[str | Picture]) -> tuple[str | Picture, ...]:
    """For servers that take one picture a request. The sheet stands where the first picture did."""
    texts: list[str | Picture] = []
    titled: list[tuple[str, Picture]] = []
    place = 0
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        last = texts[-1] if texts else None
        is_title = isinstance(last, str) and len(last) <= _LONGEST_TITLE
        titled.append((str(texts.pop()) if is_title else "", part))
        place = place if len(titled) > 1 else len(texts)
    if len(titled) < 2:
        return tuple(parts)
    return (*texts[:place], _draw(tuple(titled)), *texts[place:])


@lru_cache(maxsize=8)
def _draw(titled: tuple[tuple[str, Picture], ...]) -> Picture:
    from PIL import Image, ImageDraw, ImageFont

    places, size = _lay_out([picture.size for _, picture in titled])
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_STRIP - 8)
    for (title, picture), (left, top) in zip(titled, places, strict=True):
        pen.text((left, top - _STRIP), " ".join(title.split()), fill="black", font=font)
        with Image.open(io.BytesIO(picture.data)) as image:
            sheet.paste(image.convert("RGB"), (left, top))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=90)
    return Picture(file.getvalue(), "image/jpeg")


def _lay_out(sizes: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Left upper corners, in rows from left to right, and the size of the sheet; pixels."""
    widest = max(_WIDEST, *(width for width, _ in sizes))
    places: list[tuple[int, int]] = []
    left, top, height, right = _MARGIN, _STRIP, 0, 0
    for width, tall in sizes:
        if left > _MARGIN and left + width > widest + _MARGIN:
            left, top, height = _MARGIN, top + height + _STRIP + _MARGIN, 0
        places.append((left, top))
        left, height = left + width + _MARGIN, max(height, tall)
        right = max(right, left)
    return places, (right, top + height + _MARGIN)
