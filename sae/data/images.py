"""A file -> pixels, in the one safe way. An image is known by the sha256 of its bytes."""

from __future__ import annotations

import functools
import io
import re
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from sae.core.errors import UserError
from sae.core.files import sha256_hex
from sae.core.quiet import quiet
from sae.data.sources import archives

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF")
"""Pillow reads MPO, a JPEG of several pictures, as JPEG."""
READ = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
MAX_PIXELS = 50_000_000
"""Checked on the header: a 20-kB PNG can ask for gigabytes of pixels."""
MOST_PIXELS = 178_956_970
"""What `max_pixels` can be at most: Pillow's own limit."""
MAX_ASPECT = 200
"""Long side over short side. CLIP scales the SHORT side: 1 x 50,000 becomes 224 x 11,200,000."""
MAX_BYTES = 200_000_000

# What Pillow raises on broken bytes: most never seen in 90,000 mutated files, but in its source.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# By their first bytes: what is met with an image's name and is none that is read.
_OTHERS = (
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC image; convert it to JPEG"),
    (rb"\xff\x0a|....JXL ", "a JPEG XL image; convert it to PNG"),
    (rb"....jP  |\xff\x4f\xff\x51", "a JPEG 2000 image; convert it to PNG"),
    (rb"\0\0[\1\2]\0", "an icon; convert it to PNG"),
    (rb"P[1-7]\s", "a PPM image; convert it to PNG"),
    (rb"8BPS", "a Photoshop file; convert it to PNG"),
    (rb"%PDF", "a PDF; convert its pages to PNG"),
    (rb"version https://git-lfs", "a pointer of git-lfs; fetch the file itself: git lfs pull"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "an SVG drawing; convert it to PNG"),
    (rb"(?i)\s*<(!doctype )?html", "a web page, not an image; fetch it again"),
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
"""Of these, width and height change places."""


Made = TypeVar("Made")


class BadImage(Exception):
    """This file cannot be used as an image; `reason` says why, in plain words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def content_id(data: bytes) -> str:
    """The image's identity everywhere: sha256 of the file's bytes, 64 hex digits."""
    return sha256_hex(data)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[str, Image.Image]:
    """Content id and upright RGB image. Raises `BadImage` and nothing else."""
    data = _read_file(path)
    return content_id(data), decode(data, max_pixels)


def read_numbers(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """A mask (h, w): the number of each pixel's class, in 8-bit grey or as places in a palette.

    Raises `BadImage` and nothing else.
    """
    numbers: NDArray[np.uint8] = np.asarray(_decode(_read_file(path), max_pixels, _to_numbers))
    return numbers


def read_known(path: Path, image_id: str) -> bytes:
    """The bytes of a file whose content had this id when it was embedded.

    Raises `BadImage` when it is gone, cannot be read or has changed.
    """
    data = _read_file(path)
    if content_id(data) != image_id:
        raise BadImage("it has changed since it was embedded")
    return data


def check_known(path: Path, image_id: str) -> None:
    """Raise what `read_known` raises. A file that looks as when it was last read is not read again.

    Looks are its place on disk, size, and time of the last change.
    """
    try:
        status = archives.status_of(path)
    except OSError:
        read_known(path, image_id)  # which says what is wrong
    else:
        _check_content(path, image_id, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1 << 16)
def _check_content(path: Path, image_id: str, _looks: tuple[int, int, int]) -> None:
    read_known(path, image_id)


def decode(data: bytes, max_pixels: int = MAX_PIXELS, longest: int = 0) -> Image.Image:
    """Bytes of one of `FORMATS` -> upright RGB; transparency lies on white; of several frames the
    first. Of a JPEG whose longest side is more than twice `longest` (0: of none), a half, a quarter
    or an eighth of the size, no smaller than that, in a fraction of the time.

    The size is checked before any pixel is decoded, and every pixel is decoded before it returns.
    Raises `BadImage` and nothing else. It is no integrity check: of 1,000 JPEGs with five changed
    bytes 966 decode without complaint.
    """
    return _decode(data, max_pixels, _to_rgb, longest)


def read_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[str, tuple[int, int]]:
    """Content id and upright size (w, h) of an image, of which only the header is looked at.

    Raises `BadImage` and nothing else; what is damaged behind the header is not seen.
    """
    data = _read_file(path)
    return content_id(data), _opened(data, max_pixels, upright_size)


def _opened(data: bytes, max_pixels: int, use: Callable[[Image.Image], Made]) -> Made:
    """What `use` makes of the image, once its size is known to be small enough."""
    if not data:
        raise BadImage("the file is empty")
    max_pixels = min(max_pixels, MOST_PIXELS)
    with quiet:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, max_pixels)
                return use(image)
        except UnidentifiedImageError:
            raise BadImage(_name_other(data)) from None
        except Image.DecompressionBombError:
            raise BadImage(f"more than {max_pixels / 1e6:.4g} megapixels") from None
        except _DECODER_ERRORS as error:
            raise BadImage(f"damaged or cut short: {' '.join(str(error).split())[:200]}") from None


def _decode(
    data: bytes,
    max_pixels: int,
    convert: Callable[[Image.Image], Image.Image],
    longest: int = 0,
) -> Image.Image:
    def decoded(image: Image.Image) -> Image.Image:
        if longest:
            share = longest / max(image.size)
            image.draft(None, (int(share * image.width) or 1, int(share * image.height) or 1))
        image.load()
        upright = _upright(image, convert(image))
        upright.info = {}  # whoever turns by EXIF again would turn twice
        return upright

    return _opened(data, max_pixels, decoded)


def _name_other(data: bytes) -> str:
    found = (words for start, words in _OTHERS if re.match(start, data[:512], re.DOTALL))
    return next(found, f"not a {READ} image, or its header is damaged")


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise BadImage(f"it is {kind}, not a file")
        if status.st_size > MAX_BYTES:
            raise BadImage(f"{status.st_size:,} bytes is above the cap of {MAX_BYTES:,}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return _read_member(path)
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror or error}") from None


def _read_member(path: Path) -> bytes:
    """The bytes of what lies in an archive."""
    found = archives.find_archive(path)
    if found is None:
        raise BadImage("a broken link" if path.is_symlink() else "the file is gone")
    try:
        return archives.read_member(*found, MAX_BYTES)
    except UserError as error:
        raise BadImage(str(error)) from None
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror or error}") from None


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    tags = getattr(image, "tag_v2", {})  # a tile of a TIFF may be larger than the image
    tile = tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0)
    if width * height > max_pixels or tile[0] * tile[1] > max_pixels:
        tiles = f" in tiles of {tile[0]} x {tile[1]}" if tile[0] else ""
        raise BadImage(
            f"{width} x {height} pixels{tiles} is above {max_pixels / 1e6:.4g} megapixels "
            "(--max-pixels of sae embed)"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} pixels is longer than {MAX_ASPECT} to 1")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadImage("its pixels are fractions, of an unknown range; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if "A" in image.mode.upper() or "transparency" in image.info:
        rgba = _in_mode(image, "RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return _in_mode(image, "RGB")


def _to_numbers(image: Image.Image) -> Image.Image:
    if image.format == "JPEG":
        raise BadImage("JPEG changes the numbers of a mask's pixels; save it as PNG")
    if image.mode not in ("L", "P", "1"):
        raise BadImage(
            f"its pixels are of mode {image.mode}; a mask has one number a pixel, from 0 to 255 "
            "(8-bit grey or a palette)"
        )
    # Of two colours Pillow makes 0 and 255, but the second is class 1.
    return image.point(lambda bit: bit and 1, "L") if image.mode == "1" else image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Without the copy that `convert` makes of an image that is in the mode already."""
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits. Pillow's own `convert` clips at 255, which turns it white."""
    deep = np.asarray(image)
    grey = (deep >> 8).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(w, h) in pixels, as `decode` gives the image, of one that is only opened."""
    # Pillow tells the size of a TIFF as it lies once it is upright.
    lies = image.format != "TIFF" and _orientation(image) in _LYING
    return image.size[::-1] if lies else image.size


def _upright(source: Image.Image, rgb: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(source))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:  # broken EXIF says nothing about the pixels
        return 1
