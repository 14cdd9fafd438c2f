"""Several layers in one command, and rows of length 1, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae.core.errors import OK, USAGE
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.sae.small_clip import write_images


def test_several_layers_are_stores_of_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "photo", 5)
    out, domain = tmp_path / "stores", f"photo={tmp_path / 'photo'}"
    embed = ("embed", "--domain", domain, "--out", out, "--device", "cpu")
    assert sae(*embed, "--layer", "0,-1,projected", "--tokens", "patch") == OK
    said = capsys.readouterr().out
    last = next(p.name for p in out.glob("layer-*") if p.name != "layer-0")
    for name, tokens in (("layer-0", "patch"), (last, "patch"), ("projected", "cls")):
        assert EmbeddingStore.open(out / name).info.tokens == tokens
        assert f"sae train {out / name} --out {tmp_path / f'sae-{name}'}" in said
    assert sae("train", out, "--out", tmp_path / "sae") == USAGE
    assert f"name one of them: {out / 'layer-0'}, " in capsys.readouterr().err


def test_an_sae_of_unit_rows_is_refused_on_a_store_of_raw_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "photo", 40)
    domain = f"photo={tmp_path / 'photo'}"
    for name, flags in (("raw", ()), ("unit", ("--normalise",))):
        embed = ("embed", "--domain", domain, "--out", tmp_path / name, "--device", "cpu")
        assert sae(*embed, *flags) == OK
    small = ("--n-latents", 16, "--k", 2, "--n-tokens", 200, "--device", "cpu")
    assert sae("train", tmp_path / "unit", "--out", tmp_path / "sae", *small) == OK
    assert json.loads((tmp_path / "sae" / "config.json").read_text())["rows"] == "unit"
    capsys.readouterr()
    assert sae("eval", tmp_path / "sae", tmp_path / "raw", "--device", "cpu") == USAGE
    assert "trained on unit rows, but the store has raw ones" in capsys.readouterr().err
    assert sae("eval", tmp_path / "sae", tmp_path / "unit", "--device", "cpu") == OK
    assert sae(*embed[:-4], "--out", tmp_path / "x", "--layer", "0", "--normalise") == USAGE
    assert "--normalise is for the layer 'projected'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
