"""What edits did to images -> edit.json, and a PNG an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sae.core.clip_name import without_place
from sae.core.files import FORMAT, package_version, write_json
from sae.model.identity import sae_identity
from sae.steering.edit.figure import draw_edit
from sae.steering.edit.run import EditedImage, Setting
from sae.steering.edits import Edit

REPORT = "edit.json"


@dataclass(frozen=True, kw_only=True)
class EditReport:
    """edit.json: the settings, and a record an image."""

    format: int = FORMAT
    sae: str
    """Identity of the SAE."""
    clip: str
    clip_sha: str
    layer: str
    tokens: str
    where: str
    templates: list[str]
    edits: list[dict[str, object]]
    """`latent`, `how`, `value` (activation that is set or added, or the factor)."""
    images: list[dict[str, object]]
    """`image` (its name), `image_id`, `n_edited` tokens, `latents` (with the largest activation
    `before` and `after`), and by head and class the probabilities [before, after]."""
    version: str = field(default_factory=package_version)


def report_of(
    setting: Setting, edits: Sequence[Edit], where: str, images: Sequence[EditedImage]
) -> EditReport:
    """What is written of the images."""
    return EditReport(
        sae=sae_identity(setting.model),
        clip=without_place(setting.clip.name),
        clip_sha=setting.clip.sha,
        layer=setting.layer,
        tokens=setting.tokens,
        where=where,
        templates=list(setting.templates),
        edits=[{"latent": e.latent, "how": e.how, "value": e.value} for e in edits],
        images=[_record(setting, image) for image in images],
    )


def _record(setting: Setting, image: EditedImage) -> dict[str, object]:
    record: dict[str, object] = {
        "image": image.path.name,
        "image_id": image.image_id,
        "n_edited": int(image.edited.any(1).sum()),
        "latents": [
            {
                "latent": heat.latent,
                "before": float(heat.before.max()),
                "after": float(heat.after.max()),
            }
            for heat in image.heats
        ],
    }
    for head, classes in setting.heads().items():
        pairs = zip(image.before[head].tolist(), image.after[head].tolist(), strict=True)
        record[head] = dict(zip(classes, map(list, pairs), strict=True))
    return record


def write_report(
    out: Path, setting: Setting, edits: Sequence[Edit], where: str, images: Sequence[EditedImage]
) -> dict[str, Path]:
    """A PNG an image, and last edit.json; comes back with what was written."""
    (out / REPORT).unlink(missing_ok=True)
    for old in out.glob("[0-9][0-9][0-9]-*.png"):
        old.unlink()
    for number, image in enumerate(images, start=1):
        name = f"{number:03d}-{image.path.stem}.png"
        draw_edit(out / name, setting.heads(), edits, image, setting.grid())
    write_json(out / REPORT, report_of(setting, edits, where, images))
    return {"report": out / REPORT, "pictures": out}
