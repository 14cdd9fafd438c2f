"""What HTML that stands alone needs: templates, a style with its hash, pictures inside."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image


def templates_in(folder: Path) -> Environment:
    """Templates of HTML: whatever is filled in is text."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )


def read_style(file: Path) -> tuple[str, str]:
    """A style sheet of ours, and the base64 of its sha256, by which the page's rules admit it."""
    style = file.read_text(encoding="utf-8")
    return style, base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


def webp_uri(image: Image, quality: int, method: int) -> str:
    """The whole image as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=method)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
