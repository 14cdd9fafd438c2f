"""A store and a run that a stranger gave: no file outside of the images' folders is read."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.commands import Walk, interp, sae

READERS = {
    "pictures": ("explain", "--model", "local"),
    "requests": ("explain", "--model", "m", "--dry-run", "1", "--base-url", "http://127.0.0.1:9"),
    "thumbnails": ("cards",),
    "sheets": ("show", "--out", "sheets"),
}


@pytest.fixture
def given(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Walk:
    """A copy of the walk, and a private picture beside its images' folders."""
    for folder in (walk.world, walk.store, walk.sae, walk.run):
        shutil.copytree(folder, tmp_path / folder.name)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "world" / "private.png")
    monkeypatch.chdir(tmp_path)
    return Walk(*(tmp_path / folder.name for folder in walk))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("attack", ["dots", "absolute", "roots"])
def test_every_reader_refuses_what_lies_outside(
    given: Walk, reader: tuple[str, ...], attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = pd.read_parquet(given.store / "images.parquet")
    info = json.loads((given.store / "store.json").read_text())
    private = given.world / "private.png"
    if attack == "roots":
        info["roots"] = {"sketch": "../world", "photo": "../world"}
        images["path"] = "private.png"
    else:
        images["path"] = "../private.png" if attack == "dots" else str(private)
    images.to_parquet(given.store / "images.parquet")
    (given.store / "store.json").write_text(json.dumps(info))
    assert interp(*reader, "--run", given.run) == 2
    *progress, said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("words: ") for line in progress)  # of the search's texts
    assert ("nobody has named" if attack == "roots" else "leaves its domain's folder") in said
    assert not (given.run / "gallery" / "index.html").exists()


def test_collect_and_eval_refuse_paths_that_leave_and_take_images_that_are_named(
    given: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (given.store / "images.parquet").read_bytes()
    images = pd.read_parquet(given.store / "images.parquet")
    images.loc[0, "path"] = "../private.png"
    images.to_parquet(given.store / "images.parquet")
    assert interp("collect", given.sae, given.store, "--run", "new") == 2
    assert sae("eval", given.sae, given.store) == 2
    assert "'../private.png' leaves" in capsys.readouterr().err
    (given.store / "images.parquet").write_bytes(kept)
    given.world.rename(given.world.with_name("moved"))
    assert interp("cards", "--run", given.run) == 2
    assert "--images sketch=DIR --images photo=DIR" in capsys.readouterr().err
    wide = ("--dense-above", 0.9)
    named = ("--images", "sketch=moved/sketch", "--images", "photo=moved/photo")
    assert interp("collect", given.sae, given.store, "--run", given.run, *wide, *named) == 0
    assert interp("cards", "--run", given.run) == 0


@pytest.mark.parametrize("broken", ["weights", "shard"])
def test_eval_and_collect_refuse_what_is_no_number(
    given: Walk, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = (
        given.sae / "sae.safetensors" if broken == "weights" else given.store / "00000.safetensors"
    )
    state = load_file(path)
    state["W_enc" if broken == "weights" else "x"].view(-1)[:-1:3] = torch.nan
    save_file(state, path)
    capsys.readouterr()
    (given.sae / "eval.json").unlink(missing_ok=True)
    assert sae("eval", given.sae, given.store) == 2
    assert interp("collect", given.sae, given.store, "--run", "new") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "images, " not in line]
    assert [path.name in line and "not finite" in line for line in said] == [True, True]
    assert not (given.sae / "eval.json").exists()
    assert not Path("results/new/collect/collect.json").exists()
