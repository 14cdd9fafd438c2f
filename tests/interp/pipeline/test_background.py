"""The images that tell the local model what is usual."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.evidence.reader import EvidenceReader
from interp.pipeline.clip.model import background_examples
from sae.core.errors import UserError
from tests.support.interp.latents import weakened
from tests.support.interp.synthetic_run import make_evidence, make_images, write_run


def test_where_no_latent_is_silent_on_any_image_the_active_ones_tell_what_is_usual(
    tmp_path: Path,
) -> None:
    root = tmp_path / "images"
    images = make_images(root, per_class=6)
    evidence = make_evidence(root, images, 2)
    usual = background_examples(_reader(tmp_path / "usual", root, images, evidence))
    assert {e.kind for e in usual} == {"silent"}
    reader = _reader(tmp_path / "full", root, images, [*map(weakened, evidence)])
    found = background_examples(reader)
    every = {e.image_id for i in range(2) for e in reader.of(i).of("explain", "quantile")}
    assert {e.image_id for e in found} == every
    assert {e.side for e in found} == {"explain"}
    dead = make_evidence(root, images, 2, special={0: "dead", 1: "dead"})
    with pytest.raises(UserError, match="none of its latents is active"):
        background_examples(_reader(tmp_path / "dead", root, images, dead))


def _reader(run: Path, *parts: object) -> EvidenceReader:
    return EvidenceReader(write_run(run, *parts))  # type: ignore[arg-type]
