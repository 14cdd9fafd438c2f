"""Pictures of an edited embedding -> a PNG each, a sheet of strengths and seeds, generate.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

from PIL import Image

from sae.core.clip_name import without_place
from sae.core.files import FORMAT, package_version, replacing, write_json
from sae.evaluation.plots import DPI, INK, SOFT, STYLE
from sae.model.identity import sae_identity
from sae.steering.generate.config import GenerateConfig
from sae.steering.generate.pipelines import Painter
from sae.steering.generate.run import Picture, Scene, activation

REPORT, SHEET, PICTURES = "generate.json", "sheet.png", "picture-"
SIDE = 2.0
"""Inches of a picture on the sheet."""


@dataclass(frozen=True, kw_only=True)
class GenerateReport:
    """generate.json."""

    format: int = FORMAT
    sae: str
    """Identity of the SAE."""
    clip: str
    clip_sha: str
    pipeline: str
    pipeline_class: str
    encoder: str
    """The CLIP whose embeddings the pipeline takes."""
    image: str = ""
    """Name of the file."""
    image_id: str = ""
    latent: int
    label: str
    activation: float
    """Of the latent on the image, before any edit."""
    strengths: list[float]
    seeds: list[int]
    steps: int
    guidance: float
    size: int
    pictures: list[dict[str, object]]
    """`file`, `strength`, `seed`, `moved` (how far the embedding is from the image's own) and
    `clip_score` (100 times the cosine of picture and label; null without a label)."""
    version: str = field(default_factory=package_version)


def is_own(out: Path) -> bool:
    """Whether what lies there was written by an earlier call."""
    return (out / REPORT).exists() or any(out.glob(f"{PICTURES}[0-9][0-9][0-9].png"))


def clear(out: Path) -> None:
    """Take away what an earlier call left, its mark first."""
    (out / REPORT).unlink(missing_ok=True)
    for old in (out / SHEET, *out.glob(f"{PICTURES}[0-9][0-9][0-9].png")):
        old.unlink(missing_ok=True)


def write_pictures(out: Path, pictures: Iterable[Picture]) -> list[Picture]:
    """A file of each as soon as it is drawn."""
    kept: list[Picture] = []
    for picture in pictures:
        with replacing(out / _name(len(kept))) as part:
            picture.image.save(part, format="PNG")
        kept.append(picture)
    return kept


def report_of(
    scene: Scene,
    painter: Painter,
    said: GenerateConfig,
    label: str,
    pictures: Sequence[Picture],
) -> GenerateReport:
    """What is written of the pictures, but for the image's own name and id."""
    return GenerateReport(
        sae=sae_identity(scene.model),
        clip=without_place(scene.clip.name),
        clip_sha=scene.clip.sha,
        pipeline=hide_folder(painter.name),
        pipeline_class=painter.kind,
        encoder=without_place(painter.encoder),
        latent=said.latent,
        label=label,
        activation=activation(scene, said.latent),
        strengths=said.strengths,
        seeds=list(range(said.seeds)),
        steps=said.steps,
        guidance=said.guidance,
        size=said.size,
        pictures=[
            {
                "file": _name(number),
                "strength": one.strength,
                "seed": one.seed,
                "moved": one.moved,
                "clip_score": one.clip_score,
            }
            for number, one in enumerate(pictures)
        ],
    )


def _name(number: int) -> str:
    """File of a picture, from 0."""
    return f"{PICTURES}{number + 1:03d}.png"


def write_report(
    out: Path, report: GenerateReport, source: Image.Image, pictures: Sequence[Picture]
) -> dict[str, Path]:
    """The sheet, and last generate.json; comes back with what was written."""
    draw_sheet(out / SHEET, report, source, pictures)
    write_json(out / REPORT, report)
    return {"report": out / REPORT, "sheet": out / SHEET, "pictures": out}


def draw_sheet(
    path: Path, report: GenerateReport, source: Image.Image, pictures: Sequence[Picture]
) -> None:
    """A row a strength, a column a seed; the image itself stands beside strength 0."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows, n_columns = len(report.strengths), 1 + len(report.seeds)
    words = f"latent {report.latent}" + (f": {report.label}" if report.label else "")
    with matplotlib.rc_context({**STYLE, "axes.titlesize": 9, "axes.titlepad": 4}):
        size = (SIDE * n_columns + 0.3, (SIDE + 0.3) * n_rows + 0.5)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)  # pyplot, and with it any window, is never touched
        title = fill(words, int(9 * size[0]))
        figure.suptitle(title, x=0.01, ha="left", weight="bold", color=INK, parse_math=False)
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for one in axes.flat:
            one.set_axis_off()
        for row, strength in enumerate(report.strengths):
            side = axes[row, 0]
            text = f"strength {strength:+g}" if strength else "strength 0: the control"
            if strength == 0:
                side.imshow(source)
                side.set_title(report.image[:34], color=INK, parse_math=False)
            side.text(0.5, -0.06 if strength == 0 else 0.5, text, transform=side.transAxes,
                      ha="center", va="center", size=9, color=INK)  # fmt: skip
            drawn = [picture for picture in pictures if picture.strength == strength]
            for place, picture in zip(axes[row, 1:], drawn, strict=True):
                place.imshow(picture.image)
                score = "" if picture.clip_score is None else f", CLIP {picture.clip_score:.1f}"
                place.set_title(f"seed {picture.seed}{score}", color=SOFT)
        with replacing(path) as part:
            figure.savefig(part, format="png")


def hide_folder(pipeline: str) -> str:
    """A pipeline's name as it may be written down: of a folder only its own name."""
    place = Path(pipeline)
    is_place = place.is_absolute() or pipeline.startswith((".", "~")) or place.exists()
    return place.name if is_place else pipeline
