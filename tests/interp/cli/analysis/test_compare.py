"""`interp compare` as it is typed: equal runs, what was planted, two SAEs, bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.records.codec import to_json
from interp.report.changes.files import COLUMNS, MATCH_COLUMNS, read_changes
from interp.report.gallery import build_gallery
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.files import append_jsonl, write_json
from sae.data.store import EmbeddingStore
from sae.data.store_format import shard_path
from sae.model.sae import SAE
from tests.support.commands import Walk, interp
from tests.support.interp.synthetic_run import explanation

CPU = ("--device", "cpu")


def _copy(walk: Walk, folder: Path) -> Run:
    """A run with a store of its own, beside the world."""
    folder.mkdir()
    for name in ("run", "store"):
        shutil.copytree(getattr(walk, name), folder / name)
    (folder / "world").symlink_to(walk.world)
    return Run(folder / "run")


@pytest.fixture
def first(walk: Walk, tmp_path: Path) -> Run:
    return _copy(walk, tmp_path / "first")


@pytest.fixture
def second(walk: Walk, tmp_path: Path) -> Run:
    return _copy(walk, tmp_path / "second")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _push(run: Run, label: str, latent: int, strength: float) -> None:
    """Add a latent's direction to every image of a class."""
    store = EmbeddingStore.open(run.store)
    model = SAE.load(run.sae)
    step = strength * float(model.scale) * model.W_dec[latent].detach()
    rows = np.flatnonzero(store.images["label"] == label)
    assert len(rows) >= 6
    path = shard_path(run.store, 0)
    x = load_file(path)["x"].clone()
    x[torch.from_numpy(rows), 0] += step.to(x.dtype)
    save_file({"x": x}, path)


def _busiest_class(run: Run) -> str:
    return str(EmbeddingStore.open(run.store).images["label"].value_counts().index[0])


def test_equal_runs_have_no_change(first: Run, second: Run, capsys: Any) -> None:
    assert interp("compare", first.path, second.path, *CPU) == 0
    assert "no latent differs" in capsys.readouterr().out
    assert _rows(first.path / "compare/compare.csv") == []
    found = read_changes(first.path)
    assert found is not None
    assert (found.n_before, found.n_after, found.n_tested, found.shown) == (300, 300, 0, [])
    assert (first.path / "compare/compare.png").read_bytes()[:4] == b"\x89PNG"


def test_a_latent_that_was_put_into_one_class_rises_there(
    first: Run, second: Run, tmp_path: Path, capsys: Any
) -> None:
    name = _busiest_class(first)
    _push(second, name, 3, 15.0)
    append_jsonl(first.explanations, [to_json(explanation(3, "=wheel"))])
    figures = tmp_path / "figures.json"
    typed = ("compare", first.path, second.path, "--json", figures, *CPU)
    assert interp(*typed) == 0
    printed = capsys.readouterr().out
    rows = _rows(first.path / "compare/compare.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert {row["class"] for row in rows} <= {name, ""}  # no other image has changed
    [rises] = [row for row in rows if row["change"] == "rises" and row["class"]]
    assert (rises["latent_id"], rises["label"]) == ("3", "'=wheel")
    assert float(rises["low"]) > 0
    assert re.search(r" 3  =wheel +rises", printed)
    assert json.loads(figures.read_text())["n_rise"] == 1
    assert interp("compare", second.path, first.path, *CPU) == 0
    falls = [row for row in _rows(second.path / "compare/compare.csv") if row["change"] == "falls"]
    assert {row["latent_id"] for row in falls if row["class"]} == {"3"}


def test_images_of_two_stores_are_paired_by_content_or_by_path(
    first: Run, second: Run, capsys: Any
) -> None:
    images = second.store / "images.parquet"
    frame = pd.read_parquet(images)
    frame["image_id"] = [f"{n:064x}" for n in range(len(frame))]
    frame.to_parquet(images)
    assert interp("compare", first.path, second.path, *CPU) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "no image" in line
    assert "--pair path" in line
    assert interp("compare", first.path, second.path, "--pair", "path", *CPU) == 0
    assert "300 images" in capsys.readouterr().out


def test_two_domains_of_a_run(walk: Walk, tmp_path: Path, capsys: Any) -> None:
    typed = ("compare", walk.run, "--domains", "sketch,photo", "--least", 0, "--out", tmp_path)
    assert interp(*typed, *CPU) == 0
    rows = _rows(tmp_path / "compare.csv")
    whole = [row for row in rows if row["class"] == ""]
    images = EmbeddingStore.open(walk.store).images["domain"].value_counts()
    assert {(row["n_before"], row["n_after"]) for row in whole} == {
        (str(images["sketch"]), str(images["photo"]))
    }
    shares = Run(walk.run).evidence.latents["sketch_share"]
    for row in whole:
        if row["change"]:
            assert (shares[int(row["latent_id"])] > 0.5) == (row["change"] == "falls")
    assert "sketch -> photo" in capsys.readouterr().out


def test_where_no_class_has_enough_images_all_of_them_are_told(
    first: Run, second: Run, capsys: Any
) -> None:
    for run in (first, second):
        images = run.store / "images.parquet"
        frame = pd.read_parquet(images)
        frame["label"] = [f"class {n // 3}" for n in range(len(frame))]
        frame.to_parquet(images)
    x = load_file(shard_path(second.store, 0))["x"]
    model = SAE.load(second.sae)
    step = 15.0 * float(model.scale) * model.W_dec[3].detach()
    save_file({"x": x + step.to(x.dtype)}, shard_path(second.store, 0))
    assert interp("compare", first.path, second.path, *CPU) == 0
    found = read_changes(first.path)
    assert found is not None
    assert not found.in_classes
    assert found.shown[0][:2] == (3, "")
    assert "latents over all images tested" in capsys.readouterr().out


def test_two_saes_whose_latents_stand_in_another_order(
    first: Run, second: Run, tmp_path: Path, capsys: Any
) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    weights = load_file(second.sae / "sae.safetensors")
    for name in ("W_enc", "b_enc", "W_dec"):
        weights[name] = weights[name][order].contiguous()
    save_file(weights, second.sae / "sae.safetensors")
    write_json(second.path / "run.json", dataclasses.replace(second.info, sae_identity="other"))
    append_jsonl(first.explanations, [to_json(explanation(int(order[0]), "a"))])
    append_jsonl(second.explanations, [to_json(explanation(0, "b"))])
    assert interp("compare", first.path, second.path, *CPU) == 2
    assert "are of two SAEs" in capsys.readouterr().err
    assert interp("compare", first.path, second.path, "--match", *CPU) == 0
    rows = _rows(first.path / "compare/match.csv")
    assert list(rows[0]) == list(MATCH_COLUMNS)
    matched = [row for row in rows if row["kind"] == "matched"]
    assert len(matched) >= 14
    assert all(order[int(row["other_latent"])] == int(row["latent_id"]) for row in matched)
    assert {("a", "b")} <= {(row["label"], row["other_label"]) for row in matched}
    figures = json.loads((first.path / "compare/match.json").read_text())
    assert figures["n_matched"] == len(matched)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), "name what to compare"),
        (("OTHER", "--domains", "sketch,photo"), "name what to compare"),
        (("nowhere",), "nowhere: no run.json"),
        (("--domains", "sketch"), "name two of sketch, photo"),
        (("--domains", "sketch,phote"), "there is no domain 'phote'"),
        (("--domains", "sketch,photo", "--match"), "leave --domains out"),
        (("OTHER", "--pair", "pathe"), "did you mean 'path'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    walk: Walk, typed: tuple[str, ...], said: str, capsys: Any
) -> None:
    words = [walk.run if word == "OTHER" else word for word in typed]
    assert interp("compare", walk.run, *words, *CPU) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_run_that_pools_otherwise_and_a_damaged_file_are_named(
    first: Run, second: Run, capsys: Any
) -> None:
    info = second.path / "collect/collect.json"
    info.write_text(info.read_text().replace('"pool": "max"', '"pool": "mean"'))
    assert interp("compare", first.path, second.path, *CPU) == 2
    assert "--pool max" in capsys.readouterr().err
    (first.path / "compare").mkdir()
    (first.path / "compare/compare.json").write_text("{}")
    with pytest.raises(UserError, match=r"compare\.json has format"):
        build_gallery(first)
