"""The sub-command that draws what an edited embedding looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.cli.options import spread
from sae.core.errors import UserError
from sae.steering.generate.config import GenerateConfig

if TYPE_CHECKING:
    from PIL import Image

    from sae.steering.generate.run import Picture


@spread
def generate(
    model: Annotated[Path, typer.Argument(metavar="SAE", help="SAE folder.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    settings: GenerateConfig,
    out: Annotated[Path, console.declare_out("Folder to write.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="A run, or its labels.csv: the word for the latent.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Draw an image's embedding after a latent was made stronger or weaker.

    The projected embedding becomes e + decode(edited) - decode(z), and Kandinsky 2.2 or Stable
    unCLIP draws it: a sheet of strengths and seeds, and generate.json. Needs the extra `generate`.
    """
    from contextlib import closing

    from sae.clip.model import load_clip
    from sae.core.lock import LOCK, hold
    from sae.core.output import require_own
    from sae.core.progress import bar
    from sae.interchange.load import load
    from sae.steering.generate import report as files
    from sae.steering.generate.pipelines import load_pipeline
    from sae.steering.generate.run import draw_pictures, look_at

    sae, strengths = load(model), settings.strengths
    label = _label(settings, labels, sae.n_latents)
    require_own(out, "pictures", files.is_own(out))
    image_id, source = _read(image)
    clip = load_clip(_clip_of(sae.config.clip, settings.clip), device, texts=bool(label))
    scene = look_at(sae, clip, source)
    painter, seeds = load_pipeline(settings, clip, source), range(settings.seeds)
    with closing(hold(out / LOCK)):
        files.clear(out)
        with bar("draw", unit="pictures") as progress:
            asked = (scene, painter, settings.latent, strengths, seeds, label, progress)
            pictures = files.write_pictures(out, draw_pictures(*asked))
        report = files.report_of(scene, painter, settings, label, pictures)
        named = replace(report, image=image.name, image_id=image_id)
        wrote = files.write_report(out, named, source, pictures)
    _report(pictures, strengths, label)
    console.write_figures(json, _figures(pictures))
    console.finish(wrote)


def _label(settings: GenerateConfig, labels: Path | None, n_latents: int) -> str:
    """What the pictures are compared with; "" for nothing."""
    from sae.steering.classes import read_latent_labels

    if settings.latent >= n_latents:
        raise UserError(f"--latent {settings.latent}: the SAE has the latents 0 to {n_latents - 1}")
    if settings.label or labels is None:
        return settings.label
    return read_latent_labels(labels, n_latents)[settings.latent]


def _read(path: Path) -> tuple[str, Image.Image]:
    """An image's id and the image."""
    from sae.data.images import MAX_PIXELS, BadImage, read_image

    try:
        return read_image(path, MAX_PIXELS)
    except BadImage as error:
        raise UserError(f"{path}: {error.reason}") from None


def _clip_of(ours: str, said: str) -> str:
    """The CLIP that the SAE is of, as it says or as the user does."""
    from sae.core.clip_name import without_place

    if not (ours or said):
        raise UserError("the SAE does not say of which CLIP it is; give --clip NAME")
    if said and ours not in ("", said, without_place(said)):
        raise UserError(f"the SAE was trained on clip {ours!r}, not on {said!r}")
    return said or ours


def _report(pictures: Sequence[Picture], strengths: Sequence[float], label: str) -> None:
    """A line a strength: how far the embedding moved, and what CLIP makes of the pictures."""
    rows = []
    for strength in strengths:
        some = [one for one in pictures if one.strength == strength]
        scores = [one.clip_score for one in some if one.clip_score is not None]
        mean = f"{sum(scores) / len(scores):.2f}" if scores else "no label"
        rows.append((f"{strength:+g}" if strength else "0", f"{some[0].moved:.3f}", mean))
    if label:
        console.say(f"compared with: {label}")
    console.print_table(rows, ("strength", "moved", "CLIP score"))


def _figures(pictures: Sequence[Picture]) -> dict[str, float]:
    """One flat object: `<strength>/<seed>/clip_score`, and `<strength>/moved`."""
    found: dict[str, float] = {}
    for one in pictures:
        found[f"{one.strength:g}/moved"] = one.moved
        if one.clip_score is not None:
            found[f"{one.strength:g}/{one.seed}/clip_score"] = one.clip_score
    return found
