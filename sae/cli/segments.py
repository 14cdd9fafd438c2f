"""The sub-command that finds and sets latents on masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, ImagesOption, JsonOption, LinksOption
from sae.cli.options import spread
from sae.steering.segment.config import SegmentConfig

if TYPE_CHECKING:
    from sae.steering.segment.report import Result
    from sae.steering.segment.run import Segmented


@spread
def segment(
    model: Annotated[Path, typer.Argument(metavar="SAE", help="SAE folder, of patch tokens.")],
    store: Annotated[Path, typer.Argument(help="EmbeddingStore of patch tokens of its layer.")],
    masks: Annotated[
        Path,
        typer.Option(
            help="Folder of PNGs of class numbers (8-bit grey or a palette) under the images' "
            "names, DOMAIN/PATH.png: 0 is background, 255 counts nowhere.",
        ),
    ],
    out: Annotated[Path, console.declare_out("Folder to write.")],
    settings: SegmentConfig,
    images: ImagesOption = None,
    follow_links: LinksOption = False,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
) -> None:
    """Find the latent of each class on masks, set it on the class's patches, and see how many
    patches change their predicted class, there and elsewhere.

    Fits a linear head on CLIP's last patch tokens; head and latents see the training part alone.
    Baselines: another latent, and a random direction of equal length. Writes results.csv (as saev
    has it, with intervals), changes.csv (by class), segment.json and the head.
    """
    from contextlib import closing

    from sae.clip.live_store import with_embeddings
    from sae.clip.store_images import load_clip_of
    from sae.core.lock import LOCK, hold
    from sae.core.progress import bar
    from sae.data.roots import confirm
    from sae.data.store import EmbeddingStore
    from sae.interchange.load import load
    from sae.steering.segment import report
    from sae.steering.segment.masks import Masks
    from sae.steering.segment.run import require_patches
    from sae.steering.segment.run import segment as run_segment

    report.require_report(out)
    confirm(store, images or [], follow_links)
    opened, sae = with_embeddings(EmbeddingStore.open(store), device), load(model)
    require_patches(sae, opened)
    clip = load_clip_of(opened, device)
    found_masks = Masks(masks, opened, clip.view, clip.image_size)
    with closing(hold(out / LOCK)):
        with bar("segment") as progress:
            found = run_segment(sae, opened, clip, found_masks, settings, progress)
        results = report.write_report(out, found, settings, sae, opened)
    _report_segments(found, results)
    figures = {"miou": found.miou, "n_classes": len(found.chosen)}
    for result in results:
        figures |= {f"{result.method}/{k}": v for k, v in result._asdict().items() if k != "method"}
    console.write_figures(json, figures)
    console.finish({"results": out / report.RESULTS, "classes": out / report.CHANGES})


def _report_segments(found: Segmented, results: Sequence[Result]) -> None:
    console.say(
        f"{len(found.chosen)} classes; head on {found.n_train} images, on {found.n_test} held-out "
        f"ones mIoU {found.miou:.3f} without background"
    )
    rows = [
        (
            one.method,
            _with_interval(one.target_change, one.target_low, one.target_high),
            _with_interval(one.other_change, one.other_low, one.other_high),
        )
        for one in results
    ]
    console.print_table(rows, ("set on a class's patches", "of it change", "others change"))


def _with_interval(share: float, low: float, high: float) -> str:
    return f"{share:.1%} [{max(low, 0):.1%}, {min(high, 1):.1%}]"
