"""A run's latents -> masks: where each answers on its images, as 1-bit PNGs of the images' size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from interp.evidence.config import EXAMPLES, FOLDER
from interp.records.types import Example
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.files import replacing, replacing_folder
from sae.data.images import BadImage
from sae.data.roots import require_inside


def write_masks(run: Run, latents: Sequence[int], out: Path) -> Path:
    """Write `out/masks/latent-00017/<domain>/<image's path>.png` for each latent and each of its
    top and quantile images, and return `out/masks`; a latent's folder is replaced.

    White is where the response is at least half its largest on the image. Raises `UserError` for a
    run without patches, and when it has no such latent.
    """
    if not run.evidence.info.grid:
        info = run.info
        raise UserError(
            f"{run.path} is of layer {info.layer}, tokens {info.tokens}: without a grid of patches "
            "nothing tells where; collect from a store of `sae embed --layer N --tokens patch`"
        )
    for latent in latents:
        examples = {e.image_id: e for e in run.evidence.of(latent).examples if e.heat is not None}
        with replacing_folder(out / "masks" / f"latent-{latent:05d}") as folder:
            for name, example in _name_files(run, examples.values()).items():
                _write_mask(run, example, folder / name)
    return out / "masks"


def _name_files(run: Run, examples: Iterable[Example]) -> dict[str, Example]:
    """As the images are called, but PNGs; where two would be one, the second keeps its own end."""
    named: dict[str, Example] = {}
    for example in examples:
        path = PurePosixPath(example.domain, example.path)
        require_inside([str(path)], run.path / FOLDER / EXAMPLES)  # a stranger's run
        name = str(path.with_suffix(".png"))
        named[f"{path}.png" if name in named else name] = example
    return named


def _write_mask(run: Run, example: Example, path: Path) -> None:
    heat = run.evidence.heat(example)
    assert heat is not None
    try:
        size = run.evidence.size(example)
    except BadImage:  # noted by the reader
        return
    with replacing(path) as part:
        Image.fromarray(heat.mask(size)).save(part, format="PNG")
