"""The card of an SAE on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sae.interchange.hub.model_card import CardSettings, base_model, model_card
from sae.interchange.hub.parcel import pack
from tests.support.sae.hub_parcels import REPO, a_run


def test_the_card_tells_what_the_files_tell(model: Path, tmp_path: Path) -> None:
    parcel = pack(model, a_run(tmp_path / "run", model))
    card = model_card(parcel, CardSettings(REPO, "mit", ("ann/sketches",)))
    _, front, body = card.split("---\n", 2)
    told = yaml.safe_load(front)
    assert set(told["tags"]) == {"sparse-autoencoder", "clip", "open_clip", "interpretability"}
    assert (told["license"], told["datasets"]) == ("mit", ["ann/sketches"])
    results = {r["dataset"]["name"]: r["metrics"] for r in told["model-index"][0]["results"]}
    overall = {metric["type"]: metric["value"] for metric in results["held-out images"]}
    assert overall == {"fvu": 0.25, "l0": 3.0}
    assert results["held-out images (photo)"][0]["value"] == 0.3
    assert "| 0.25 | 0.2 | 0.3 |" in body
    assert "`scale` = 2.5" in body
    assert f"sae pull {REPO} --out DIR" in body
    assert "names 2 of the 12 latents" in body
    assert "mit" in body.split("## Licence")[1]


def test_a_card_without_figures_says_so(tmp_path: Path, model: Path) -> None:
    (model / "eval.json").unlink()
    card = model_card(pack(model), CardSettings(REPO))
    assert "model-index" not in card
    assert "Not measured" in card
    assert "None was given" in card


@pytest.mark.parametrize(
    ("clip", "known"),
    [
        ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai"),
        ("ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("hf-hub:org/name", "org/name"),
        ("ViT-B-32/random", ""),
        ("local-dir:/x/y", ""),
        ("tiny", ""),
        ("somebody's own", ""),
        ("", ""),
    ],
)
def test_the_base_model_is_the_clips_id_on_the_hub(clip: str, known: str) -> None:
    assert base_model(clip) == known
