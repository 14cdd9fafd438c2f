"""Images as people have them: odd sizes, several formats, three domains, one file cut short."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageOps

from sae.world import write_world

DOMAINS = ("sketch", "photo", "scan")
CUT = "photo/broken/cut.jpg"


def write_mixed_images(folder: Path, n: int = 300, scratch: Path | None = None) -> list[str]:
    """Write `n` of them, a third to each domain, and one more that is cut; the words of --domain.

    They show the built-in world, so that the tiny CLIP knows what is on them. `scan` has pages with
    a sketch on tinted paper, turned a little.
    """
    world = (scratch or folder.parent) / f"{folder.name}-world"
    write_world(world, 2 * n, seed=3, workers=1)
    rng = random.Random(5)
    for domain in DOMAINS:
        drawn = sorted((world / ("photo" if domain == "photo" else "sketch")).rglob("*.png"))
        chosen = drawn[1::2] if domain == "scan" else drawn[::2]
        for number, path in enumerate(rng.sample(chosen, n // len(DOMAINS))):
            _write(_turned(path, domain, rng), folder / domain / path.parent.name, number, rng)
    cut = folder / CUT
    cut.parent.mkdir(parents=True)
    whole = next((folder / "photo").rglob("*.jpg")).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    return [f"{domain}={folder / domain}" for domain in DOMAINS]


def _turned(path: Path, domain: str, rng: random.Random) -> Image.Image:
    """The picture in an odd size; the object stays whole."""
    image = Image.open(path).convert("RGB")
    if domain == "scan":
        image = ImageOps.colorize(image.convert("L"), (60, 45, 30), (244, 236, 214))
        image = image.rotate(rng.uniform(-8, 8), fillcolor=(244, 236, 214), expand=True)
    return image.resize((rng.randrange(61, 260), rng.randrange(61, 260)))


def _write(image: Image.Image, folder: Path, number: int, rng: random.Random) -> None:
    """In a format by chance: JPEG, PNG (grey, or with a palette), WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = rng.choice(["jpg", "jpg", "png", "grey.png", "gif", "webp"])
    if kind == "grey.png":
        image = image.convert("L")
    image.save(folder / f"{number:03d}.{kind}")
