"""Which images foreign embeddings were made of: a folder, in the order in which torchvision reads.

The classes are the sub-folders by name; within each, the files in the order of `os.walk`, sorted.
Without sub-folders the files themselves, by name. Hidden files count, as they do there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from sae.core.errors import UserError
from sae.core.files import sha256_of
from sae.core.progress import Progress
from sae.data.images import FORMATS, upright_size
from sae.data.store_format import ImageRow

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder reads."""
_NO_SIZE = (Image.DecompressionBombError, UnidentifiedImageError, OSError, SyntaxError, ValueError)
_READERS = 8


def in_order(root: Path, n_images: int) -> list[tuple[str, str]]:
    """Path relative to `root`, and class, of each image.

    Raises `UserError` when the folder does not have exactly `n_images`.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder; name the images that the embeddings were made of")
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    found = [(path, name) for name in classes for path in _walked(root, name)]
    if not found:
        found = [(p.name, "") for p in sorted(root.iterdir()) if _is_image(p.name)]
    if len(found) != n_images:
        raise UserError(
            f"{root} has {len(found)} images in {len(classes)} classes, but the embeddings are of "
            f"{n_images}; name the folder that they were made of"
        )
    return found


def by_name(root: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Path relative to `root`, and class, of images that were called so where they were embedded.

    Folders that all names begin with, and that are not below `root`, are left off. Raises
    `UserError` when one is not there.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder; name the images that the embeddings were made of")
    parts = [[part for part in PurePosixPath(name).parts if part != "/"] for name in names]
    levels = zip(*(one[:-1] for one in parts), strict=False)
    n_shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    first = parts[0]
    cut = next((n for n in range(n_shared + 1) if (root / Path(*first[n:])).is_file()), 0)
    found = [PurePosixPath(*one[cut:]) for one in parts]
    for path, name in zip(found, names, strict=True):
        if ".." in path.parts or not (root / path).is_file():
            raise UserError(
                f"{root} has no image {name!r}, of which there is an embedding; name the folder "
                "that they were made of"
            )
    return [(path.as_posix(), path.parts[0] if len(path.parts) > 1 else "") for path in found]


def rows_of(
    root: Path, found: Sequence[tuple[str, str]], domain: str, progress: Progress | None = None
) -> list[ImageRow]:
    """The images by the hash of their content: every file is read once."""
    rows: list[ImageRow] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for row in pool.map(lambda one: _row(root, one[0], one[1], domain), found):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(found))
    return rows


def same_classes(ours: Sequence[str], theirs: Sequence[str], numbered: bool) -> bool:
    """Whether the folders' classes are those that came with the embeddings, image by image.

    `numbered`: theirs are the places of ours among the sorted classes. Otherwise every folder must
    go with one class; two folders may have the same.
    """
    if numbered:
        places = {name: str(place) for place, name in enumerate(sorted(set(ours)))}
        return all(places[name] == number for name, number in zip(ours, theirs, strict=True))
    return len(set(zip(ours, theirs, strict=True))) == len(set(ours))


def _walked(root: Path, name: str) -> Iterator[str]:
    for folder, _, files in sorted(os.walk(root / name, followlinks=True)):
        here = Path(folder).relative_to(root)
        yield from ((here / file).as_posix() for file in sorted(files) if _is_image(file))


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _row(root: Path, path: str, label: str, domain: str) -> ImageRow:
    try:
        image_id = sha256_of(root / path)
    except OSError as error:
        raise UserError(f"{root / path} cannot be read ({error.strerror})") from None
    return ImageRow(image_id, path, domain, label, *_size(root / path))


def _size(path: Path) -> tuple[int, int]:
    """Pixels (w, h) of the upright image as its header tells; (0, 0) for what is not read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return upright_size(image)
    except _NO_SIZE:
        return 0, 0
