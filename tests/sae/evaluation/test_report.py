"""What an evaluation reports: one object, one table, figures, one line of error."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.data.store import EmbeddingStore
from sae.evaluation.config import EvalConfig
from sae.evaluation.dictionary import Coherence
from sae.evaluation.evaluate import evaluate, evaluate_run, held_out_rows
from sae.evaluation.reconstruction import Fit
from sae.evaluation.report import EvalReport, plot_report
from sae.evaluation.zeroshot import ZeroShot
from sae.model.sae import SAE
from tests.support.commands import sae
from tests.support.sae.evaluated import CPU, N

FIGURES = [field.name for field in fields(Fit)]


def fit_with(**values: float) -> Fit:
    plain: dict[str, float] = dict.fromkeys(("n_images", "n_tokens"), 1)
    return Fit(**(dict.fromkeys(FIGURES, 0.5) | plain | values))  # type: ignore[arg-type]


def test_each_figure_that_can_be_drawn_is_a_whole_png(
    model: SAE, store: EmbeddingStore, tmp_path: Path
) -> None:
    report = evaluate(model, store, np.arange(N), ks=[1, 4])
    files = plot_report(report, tmp_path)
    assert set(files) == {"frequency", "tradeoff", "share"}
    for path in files.values():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
    assert set(plot_report(evaluate(model, store, np.arange(1)), tmp_path)) == {"frequency"}


def test_the_command_line_writes_report_figures_and_plots(
    model: SAE, store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, figures = tmp_path / "sae", tmp_path / "figures.json"
    model.save(folder)
    more = ("--against", folder, "--k", "1,4", "--plots", "--json", figures)
    assert sae("eval", folder, store.path, *more) == 0
    flat = json.loads(figures.read_text())
    assert flat["l0_at_k4"] > flat["l0"] > flat["l0_at_k1"]
    assert flat["stability_matched_cosine"] == pytest.approx(1)
    assert {path.name for path in folder.glob("*.png")} == {
        "eval-frequency.png",
        "eval-share.png",
        "eval-tradeoff.png",
    }
    assert f"report:   {folder / 'eval.json'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--k", "1,many"), "--k '1,many' is not a list of whole numbers such as 8,16,32"),
        (("--k", "0"), "--k 0 is not in 1..20, the SAE's latents"),
        (("--templates", "7"), "--templates is 7; it must be 1 or 80"),
        (("--template", "a photo"), "the template 'a photo' must hold {} once"),
        (("--against", "nowhere"), "nowhere does not exist"),
    ],
)
def test_what_cannot_be_evaluated_gives_one_line(
    model: SAE,
    store: EmbeddingStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: tuple[str, str],
    line: str,
) -> None:
    model.save(tmp_path / "sae")
    assert sae("eval", tmp_path / "sae", store.path, *option) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error


def test_the_report_is_one_flat_object_and_one_table() -> None:
    shot = ZeroShot(10, 4, 0.9, 1.0, 0.8, 0.95, 0.9, -0.1, -0.4, 0.2)
    report = EvalReport(
        overall=fit_with(fvu=0.25),
        domains={"photo": fit_with(fvu=0.75)},
        at_k={16: fit_with(fvu=0.125)},
        coherence=Coherence(0.99, 0.5, 0.0),
        zeroshot={"1": {"": shot}, "80": {"": replace(shot, sae_top1=0.7)}},
    )
    flat = report.flat()
    assert (flat["fvu"], flat["photo/fvu"], flat["fvu_at_k16"]) == (0.25, 0.75, 0.125)
    assert (flat["zeroshot_sae_top1"], flat["zeroshot80_sae_top1"]) == (0.8, 0.7)
    assert flat["coherence"] == 0.99
    assert all(isinstance(value, int | float) for value in flat.values())
    rows, header = report.table()
    assert header == ("", "all", "photo")
    assert ("fvu", "0.2500", "0.7500") in rows
    assert ("zeroshot_raw_top1", "0.9000", "") in rows
    assert {len(row) for row in rows} == {3}
    assert report.variants_table()[0] == [("k16", "0.1250", "0.5000", "0.5000")]


def test_a_store_without_classes_needs_no_clip(
    model: SAE, store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.clip.store_images.load_clip", None)
    assert evaluate_run(model, store, tmp_path, CPU, EvalConfig(n_zeroshot=100)).zeroshot == {}


def test_a_run_reports_the_held_out_part_and_writes_it(
    model: SAE, store: EmbeddingStore, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate_run(
        model,
        store,
        tmp_path,
        CPU,
        EvalConfig(zeroshot=False),
        progress=lambda *at: seen.append(at),
    )
    rows = held_out_rows(model, store)
    assert report == evaluate(model, store, rows)
    assert seen[-1] == (len(rows), len(rows))
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written.pop("format") == 1
    assert written.pop("store") == store.info.identity
    assert written == report.flat()
