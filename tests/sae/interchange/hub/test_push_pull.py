"""There and back: a push is one commit, and is pulled with the same bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from sae.core.errors import USAGE, UserError
from sae.data.store_format import StoreInfo
from sae.interchange.hub.parcel import pack
from sae.interchange.load import load
from sae.model.match import require_match
from tests.support.commands import sae
from tests.support.sae.hub_parcels import CANARY, REPO, a_run, saved
from tests.support.servers.fake_hub import FakeHub


def test_what_is_pushed_is_pulled_with_the_same_bytes(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run", model)
    assert sae("push", model, REPO, "--gallery", run, "--license", "mit") == 0
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == 0
    for name in ("config.json", "sae.safetensors", "eval.json"):
        assert (tmp_path / "pulled" / name).read_bytes() == (model / name).read_bytes()
    for name in ("labels.csv", "gallery/index.html", "gallery/thumbs/ab/ab12.webp"):
        assert (tmp_path / "pulled" / name).read_bytes() == (run / name).read_bytes()
    x = torch.randn(5, 6)
    ours, theirs = load(model)(x), load(tmp_path / "pulled")(x)
    assert torch.equal(ours.x_hat, theirs.x_hat)
    assert not list(tmp_path.glob("pulled.*"))


def test_an_sae_on_a_local_clip_still_fits_its_store_when_it_comes_back(tmp_path: Path) -> None:
    published = pack(saved(tmp_path / "sae", clip=f"local-dir:{CANARY}")).config
    assert published.clip == "local-dir:vit"
    require_match(published, a_store("local-dir:/elsewhere/vit"))
    for other in ("local-dir:/elsewhere/other", "ViT-B-32/openai"):
        with pytest.raises(UserError, match="trained on clip"):
            require_match(published, a_store(other))


def a_store(clip: str) -> StoreInfo:
    return cast(StoreInfo, SimpleNamespace(d=6, clip=clip, layer="", rows="raw"))


def test_a_push_is_one_commit(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    assert len([line for line in hub.asked if "/commit/" in line]) == 1
    assert len(hub.repos[REPO].commits) == 2  # the first is the hub's own


def test_a_new_sae_takes_the_labels_of_the_old_one_away(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    assert sae("push", model, REPO) == 0  # the same SAE: its labels stay
    assert "labels.csv" in hub.files(REPO)
    hub.repos[REPO].commit("main", {**hub.files(REPO), "mine.txt": b"kept"})
    assert sae("push", saved(tmp_path / "other", seed=1), REPO) == 0
    assert set(hub.files(REPO)) == {
        *(".gitattributes", "mine.txt", "config.json", "sae.safetensors", "eval.json"),
        "README.md",
    }


def test_a_branch_is_made_and_pulled_by_name(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    assert sae("push", model, REPO, "--revision", "v2") == 0
    assert "sae.safetensors" not in hub.files(REPO)
    assert sae("pull", REPO, "--out", tmp_path / "pulled", "--revision", "v2") == 0
    assert sae("push", model, REPO, "--revision", "v2", "--license", "mit") == 0
    assert b"license: mit" in hub.files(REPO, "v2")["README.md"]


def test_private_makes_it_private_and_never_sends_to_a_public_one(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("push", model, REPO, "--private") == 0
    assert hub.repos[REPO].private
    assert sae("push", model, REPO, "--private") == 0
    hub.add("ann/public", {})
    assert sae("push", model, "ann/public", "--private") == USAGE
    assert "public" in capsys.readouterr().err
    assert hub.files("ann/public") == {}


def test_a_dry_run_shows_files_and_card_and_sends_nothing(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert sae("push", model, REPO, "--dry-run") == 0
    said = capsys.readouterr().out
    assert hub.asked == []
    assert "sae.safetensors" in said
    assert "sparse-autoencoder" in said
    assert "nothing was sent" in said


def test_what_the_hub_says_of_the_card_is_passed_on(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.warning = "no such licence"
    assert sae("push", model, REPO, "--license", "mti") == 0
    assert "no such licence" in capsys.readouterr().err
