"""The sub-command that edits latents in single images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.cli.options import spread
from sae.core.errors import UserError
from sae.steering.edit.config import EditConfig

if TYPE_CHECKING:
    from sae.steering.edit.run import EditedImage, Setting


@spread
def edit(
    model: Annotated[Path, typer.Argument(metavar="SAE", help="SAE folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, console.declare_out("Folder to write.")],
    settings: EditConfig,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Edit latents in images on their way through CLIP, and see what it then says.

    Tokens become x + decode(edited) - decode(z): what the SAE misses of them stays. Writes
    edit.json, and a picture an image.
    """
    from contextlib import closing

    from sae.clip.live_store import with_embeddings
    from sae.core.lock import LOCK, hold
    from sae.core.output import require_own
    from sae.core.progress import bar
    from sae.data.store import EmbeddingStore
    from sae.interchange.load import load
    from sae.steering.edit.places import parse_where
    from sae.steering.edit.report import REPORT, write_report
    from sae.steering.edit.run import edit_images
    from sae.steering.edit.setting import make_setting
    from sae.steering.edits import latent_maxima, parse_edits, with_maxima

    sae = load(model)
    edits = parse_edits(settings.latent or [], sae.n_latents)
    require_own(out, "edit", (out / REPORT).exists())
    store = settings.store
    opened = with_embeddings(EmbeddingStore.open(store), device) if store else None
    setting = make_setting(sae, opened, settings, device)
    place = parse_where(settings.where, setting.tokens, setting.grid())
    if any(one.of_max for one in edits):
        if opened is None:
            raise UserError(
                "a value in maxima (2xmax) needs --store STORE, to find the latent's maximum"
            )
        wanted = [one.latent for one in edits]
        with bar("maxima") as progress:
            maxima = latent_maxima(sae, opened, wanted, setting.clip.device, progress=progress)
        edits = with_maxima(edits, maxima)
    with closing(hold(out / LOCK)):
        with bar("edit") as progress:
            found = edit_images(setting, images, edits, place, progress)
        wrote = write_report(out, setting, edits, settings.where, found)
    for image in found:
        _report_image(setting, image)
    console.write_figures(json, _figures(setting, found))
    console.finish(wrote)


def _report_image(setting: Setting, image: EditedImage) -> None:
    """A line for each class that is likely before or after."""
    from sae.steering.edit.figure import likeliest

    for heat in image.heats:
        if not heat.before.any() and not heat.after.any():
            console.complain(f"{image.path}: latent {heat.latent} is silent here, and stays so")
    n_edited, n = int(image.edited.any(1).sum()), len(image.edited)
    console.say(f"{image.path}: edited {n_edited} of {n} token{'s' * (n > 1)}")
    rows = []
    for head, classes in setting.heads().items():
        before, after = image.before[head], image.after[head]
        for n in likeliest(before, after):
            change = f"{after[n] - before[n]:+.1%}".replace("-0.0%", "+0.0%")
            shares = (f"{before[n]:.1%}", f"{after[n]:.1%}", change)
            rows.append((head.replace("_", "-"), classes[n], *shares))
    console.print_table(rows, ("head", "class", "before", "after", "change"))


def _figures(setting: Setting, images: Sequence[EditedImage]) -> dict[str, float]:
    """One flat object: `<number of the image>/<head>/<class>/before`, `.../after`."""
    return {
        f"{number}/{head}/{name}/{when}": float(value)
        for number, image in enumerate(images, start=1)
        for head, classes in setting.heads().items()
        for when, shares in (("before", image.before), ("after", image.after))
        for name, value in zip(classes, shares[head], strict=True)
    }
