"""One image as a run's SAE sees it: the same as in the pass over the store, patches and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interp.evidence.reader import EvidenceReader
from interp.pipeline.clip.image import explain_image, percentile
from interp.run.run import Run
from sae.core.errors import UserError
from tests.support.commands import Walk, interp, sae
from tests.support.interp.synthetic_run import make_evidence


@pytest.fixture(scope="module")
def patches(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """16 latents of the patches of block 3."""
    folder = tmp_path_factory.mktemp("patches")
    photos = f"photo={walk.world / 'photo'}"
    layer = ("--layer", 3, "--tokens", "patch", "--workers", 0)
    assert sae("embed", "--domain", photos, "--out", folder / "store", *layer) == 0
    latents = ("--n-latents", 16, "--k", 2, "--epochs", 2)
    assert sae("train", folder / "store", "--out", folder / "sae", *latents) == 0
    run = folder / "run"
    wide = ("--dense-above", 0.9)
    assert interp("collect", folder / "sae", folder / "store", "--run", run, *wide) == 0
    return Run(run)


@pytest.mark.parametrize("kind", ["whole", "patches"])
def test_an_image_of_the_run_has_the_activations_and_heat_of_the_pass(
    walk: Walk, patches: Run, kind: str
) -> None:
    run = Run(walk.run) if kind == "whole" else patches
    reader = EvidenceReader(run.path)
    latent = reader.live()[0]
    top = reader.of(latent).of("explain", "top")[0]
    found = explain_image(run, reader.store.image_path(top.row), "cpu")
    assert found.is_known
    assert found.image_id == top.image_id
    here = {one.latent: one for one in found.latents}
    assert here[latent].act == pytest.approx(top.act, rel=1e-3)
    expected = {
        n
        for n in range(reader.info.n_latents)
        for e in reader.of(n).examples
        if e.image_id == top.image_id and e.act > 0
    }
    assert expected <= set(here)
    acts = [one.act for one in found.latents]
    assert acts == sorted(acts, reverse=True)
    heat = here[latent].heat
    if kind == "whole":
        assert heat is None
        assert found.n_tokens == 1
    else:
        assert heat is not None
        assert top.heat is not None
        drawn = np.frombuffer(top.heat, np.uint8).reshape(heat.values.shape)
        assert np.abs(heat.values.astype(int) - drawn).max() <= 2


def test_an_activation_is_held_against_the_latents_own_images() -> None:
    images: list = []
    stats = make_evidence(Path(), images, 1, special={0: "dead"})[0].stats
    assert np.isnan(percentile(stats, 1.0))
    from dataclasses import replace

    known = replace(stats, hist=(30, *(0,) * 15, 10, *(0,) * 15), max_act=32.0)
    assert percentile(known, 0.5) == pytest.approx(100 * 15 / 40)
    assert percentile(known, 8.0) == pytest.approx(75)
    assert percentile(known, 16.5) == pytest.approx(100 * 35 / 40)
    assert percentile(known, 99.0) == 100


def test_an_image_that_cannot_be_read_is_one_line(walk: Walk, tmp_path: Path) -> None:
    bad = tmp_path / "no image.png"
    with pytest.raises(UserError, match=r"no image\.png: the file is gone"):
        explain_image(Run(walk.run), bad, "cpu")
    bad.write_bytes(b"<html>")
    with pytest.raises(UserError, match="a web page, not an image"):
        explain_image(Run(walk.run), bad, "cpu")
