"""Other labs' repositories on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae.core.errors import UserError
from sae.interchange.hub.parcel import pack
from sae.interchange.hub.push_pull import download, pull, push
from sae.interchange.load import load
from sae.model.sae import SAE, SAEConfig
from tests.support.commands import sae
from tests.support.sae.hub_parcels import REPO
from tests.support.servers.fake_hub import FakeHub


def test_a_foreign_repository_is_fetched_and_read(hub: FakeHub, tmp_path: Path) -> None:
    """Of the kinds that an SAE is made of; the rest is left there."""
    files = foreign(tmp_path)
    hub.add("lab/saes", {**files, "evil.py": b"import os", "big.bin": b"x"})
    here = download("lab/saes")
    assert {p.name for p in here.rglob("*") if p.is_file()} == {"cfg.json", "sae.safetensors"}
    assert load(here / "layer.3").n_latents == 8
    assert sae("import", "hf:lab/saes/layer.3", "--out", tmp_path / "imported") == 0
    assert load(tmp_path / "imported").n_latents == 8


def test_python_loads_a_repository_by_its_name(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    """Ours and others' alike; a `Path` is a path alone, and asks nobody."""
    push(pack(model), "a card\n", REPO)
    assert torch.equal(load(REPO).W_dec, load(model).W_dec)
    hub.add("lab/saes", foreign(tmp_path))
    assert load("hf:lab/saes/layer.3").n_latents == 8
    n_asked = len(hub.asked)
    with pytest.raises(UserError, match="ann/sketch-sae does not exist"):
        load(Path(REPO))
    assert len(hub.asked) == n_asked


def test_foreign_names_that_lead_elsewhere_are_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    evil = {"../evil.json": b"{}", "a/../../../evil.json": b"{}", "/evil.json": b"{}"}
    hub.add("lab/saes", {**foreign(tmp_path), **evil, "a\\..\\evil.json": b"{}"})
    assert (download("lab/saes") / "layer.3" / "cfg.json").exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_one_folder_of_a_foreign_repository_is_fetched_alone(hub: FakeHub, tmp_path: Path) -> None:
    files = foreign(tmp_path)
    hub.add("lab/saes", {**files, "layer.10/cfg.json": b"{}", "layer.33/cfg.json": b"{}"})
    here = download("lab/saes", folder="layer.3")
    assert {p.parent.name for p in here.rglob("*.json")} == {"layer.3"}
    with pytest.raises(UserError, match="no file that could be an SAE"):
        download("lab/saes", folder="layer.4")


def test_pulling_a_foreign_repository_names_the_command_that_reads_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("lab/saes", foreign(tmp_path))
    with pytest.raises(UserError, match=r"sae import hf:lab/saes --out DIR"):
        pull("lab/saes", tmp_path / "out")


def foreign(tmp_path: Path) -> dict[str, bytes]:
    """An SAE in sparsify's layout, in a folder of its repository."""
    from sae.interchange.formats import sparsify

    model = SAE(SAEConfig(d=4, n_latents=8, k=2))
    for value in model.parameters():
        torch.nn.init.normal_(value)
    folder = sparsify.write(model, tmp_path / "sparsify")
    return {f"layer.3/{path.name}": path.read_bytes() for path in folder.iterdir()}
