"""The sub-command that fits a linear probe."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, ImagesOption, JsonOption, LinksOption
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from sae.steering.probe import ProbeInfo


def probe(
    store: Annotated[Path, typer.Argument(help="EmbeddingStore whose images have classes.")],
    out: Annotated[Path, console.declare_out("Folder of the probe to write.")],
    holdout: Annotated[
        float, typer.Option(help="Share of images, by content hash, that it is tested on.")
    ] = 0.1,
    cs: Annotated[
        str,
        typer.Option(
            "--c", help="Inverse L2 penalties to choose from, by 5-fold cross-validation."
        ),
    ] = "1e-4,1e-3,.01,.1,1,10",
    device: DeviceOption = "auto",
    images: ImagesOption = None,
    follow_links: LinksOption = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Fit a linear probe of a store's classes on what CLIP pools: after the last norm, before the
    projection.

    The images are read again, whatever layer the store holds. `sae steer edit --probe` shows what
    an edit does to its probabilities.
    """
    from contextlib import closing

    from sae.clip.live_store import with_embeddings
    from sae.clip.store_images import load_clip_of
    from sae.core.lock import LOCK, hold
    from sae.core.output import require_own
    from sae.core.progress import bar
    from sae.data.roots import confirm
    from sae.data.store import EmbeddingStore
    from sae.steering.fit_probe import fit_probe
    from sae.steering.probe import INFO, WEIGHTS

    if not 0 <= holdout < 1:
        raise UserError(f"--holdout {holdout} must be at least 0 and below 1")
    tried = _penalties(cs)
    require_own(out, "probe", any((out / name).exists() for name in (INFO, WEIGHTS)))
    confirm(store, images or [], follow_links)
    opened = with_embeddings(EmbeddingStore.open(store), device)
    with closing(hold(out / LOCK)):
        with bar("read images") as progress:
            found = fit_probe(opened, load_clip_of(opened, device), holdout, tried, progress)
        found.save(out)
    info = found.info
    assert info is not None
    _report(info, tried)
    console.write_figures(json, _figures(info))
    console.finish(
        {"probe": out},
        [f"sae steer edit SAE IMAGE --latent 0=multiply:0 --probe {quote(out)} --out DIR"],
    )


def _report(info: ProbeInfo, tried: list[float]) -> None:
    for c, accuracy in info.cv_accuracy.items():
        console.say(f"  C {c}: {accuracy:.3f} in 5-fold cross-validation")
    if info.cv_accuracy and info.c in (tried[0], tried[-1]):
        console.complain(f"the best C, {info.c:g}, is at an end of --c: try further ones")
    if info.accuracy is None:
        tested = "no image is held out"
    else:
        domains = ", ".join(f"{name} {share:.3f}" for name, share in info.by_domain.items())
        tested = (
            f"accuracy {info.accuracy:.3f} [{info.accuracy_low:.3f}, {info.accuracy_high:.3f}] on "
            f"{info.n_test} held-out images ({domains})"
        )
    console.say(f"{len(info.classes)} classes, {info.n_train} images, C {info.c:g}; {tested}")


def _penalties(text: str) -> list[float]:
    """ "0.1,1" -> [0.1, 1.0], rising."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < c < math.inf for c in found):
        raise UserError(f"--c {text!r} is no list of numbers above 0, such as .01,.1,1")
    return found


def _figures(info: ProbeInfo) -> dict[str, object]:
    """One flat object."""
    figures = dataclasses.asdict(info)
    folds, domains = figures.pop("cv_accuracy"), figures.pop("by_domain")
    figures["classes"] = len(info.classes)
    figures |= {f"cv_accuracy_at_c{c}": accuracy for c, accuracy in folds.items()}
    return figures | {f"{domain}/accuracy": share for domain, share in domains.items()}
