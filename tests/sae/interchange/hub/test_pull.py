"""What comes down from the hub is checked before it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from sae.core.errors import FAILURES, USAGE, UserError
from sae.interchange.hub.push_pull import pull
from tests.support.commands import sae
from tests.support.sae.hub_parcels import REPO, a_run, saved
from tests.support.servers.fake_hub import FakeHub


@pytest.mark.parametrize("name", ["config.json", "sae.safetensors", "labels.csv"])
def test_a_file_that_arrives_damaged_is_fetched_again_and_then_refused(
    hub: FakeHub, model: Path, tmp_path: Path, name: str
) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    hub.corrupt, hub.n_corrupt = name, 1
    pull(REPO, tmp_path / "pulled")
    shutil.rmtree(tmp_path / "hub-cache")
    hub.n_corrupt = 1 << 30
    with pytest.raises(UserError, match=f"{name} of {REPO} arrived damaged") as refused:
        pull(REPO, tmp_path / "again")
    assert refused.value.exit_code == FAILURES
    assert not list(tmp_path.glob("again*"))


def test_an_unknown_format_is_refused_before_the_weights_are_fetched(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae("push", model, REPO)
    files = dict(hub.files(REPO))
    files["config.json"] = files["config.json"].replace(b'"format": 1', b'"format": 7')
    hub.add(REPO, files)
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == USAGE
    assert "config.json has format 7; this version reads format 1" in capsys.readouterr().err
    assert not any("sae.safetensors" in line for line in hub.asked if "resolve" in line)
    assert not list(tmp_path.glob("pulled*"))


def test_sizes_that_the_weights_cannot_have_are_refused(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    files = dict(hub.files(REPO))
    files["config.json"] = files["config.json"].replace(b'"n_latents": 12', b'"n_latents": 1000000')
    hub.add(REPO, files)
    with pytest.raises(UserError, match="1000000 latents of width 6, but"):
        pull(REPO, tmp_path / "pulled")


def test_weights_that_do_not_load_never_appear(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    sae("push", model, REPO)
    hub.add(REPO, {**hub.files(REPO), "sae.safetensors": b"\x08" + bytes(700)})
    with pytest.raises(UserError, match="damaged"):
        pull(REPO, tmp_path / "pulled")
    assert not list(tmp_path.glob("pulled*"))


def test_names_that_lead_elsewhere_are_not_fetched(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    evil = {"gallery/../../evil.js": b"x", "gallery/a/../../../evil.js": b"x", "evil.py": b"x"}
    hub.add(REPO, {**hub.files(REPO), **evil})
    pull(REPO, tmp_path / "in" / "pulled")
    assert not list(tmp_path.rglob("evil*"))


def test_a_folder_is_replaced_only_when_asked_and_ours(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    old = saved(tmp_path / "old", seed=1)
    before = (old / "sae.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        pull(REPO, old)
    assert (old / "sae.safetensors").read_bytes() == before
    pull(REPO, old, overwrite=True)
    assert (old / "sae.safetensors").read_bytes() == (model / "sae.safetensors").read_bytes()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="no SAE of ours"):
        pull(REPO, mine, overwrite=True)
    assert (mine / "thesis.txt").exists()


def test_offline_uses_what_was_downloaded_before(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sae("push", model, REPO)
    pull(REPO, tmp_path / "first")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    pull(REPO, tmp_path / "second")
    assert (tmp_path / "second" / "README.md").exists()
    capsys.readouterr()
    assert sae("pull", "ann/other", "--out", tmp_path / "third") == USAGE
    assert sae("push", model, REPO) == USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("HF_HUB_OFFLINE is set" in line for line in errors)
    assert hub.asked == []


def test_weights_that_are_no_numbers_never_appear(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae("push", model, REPO)
    state = load(hub.files(REPO)["sae.safetensors"])
    state["W_dec"][0, 0] = torch.nan
    hub.add(REPO, {**hub.files(REPO), "sae.safetensors": save(state)})
    capsys.readouterr()
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == USAGE
    said = capsys.readouterr().err
    assert "ann/sketch-sae: sae.safetensors: W_dec (12, 6) has 1 values that are not finite" in said
    assert "train" not in said
    assert not list(tmp_path.glob("pulled*"))
