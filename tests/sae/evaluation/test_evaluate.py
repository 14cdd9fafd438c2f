from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sae.core.errors import UserError
from sae.data.split import fraction
from sae.data.store import EmbeddingStore
from sae.evaluation import evaluate as room
from sae.evaluation.dictionary import Coherence
from sae.evaluation.evaluate import evaluate, evaluate_run, held_out
from sae.evaluation.reconstruction import Fit, FitSums
from sae.evaluation.report import EvalReport, domain_share, plot_report
from sae.evaluation.zeroshot import ZeroShot
from sae.model.sae import SAE, Codes, SAEConfig
from tests.support.commands import sae
from tests.support.sae.stores import image_ids, write_store

N, T, D, L = 60, 3, 5, 20
CPU = torch.device("cpu")
FIGURES = [field.name for field in fields(Fit)]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """60 images x 3 tokens x 5 dimensions, two domains in turn, far from 0."""
    x = 3 + 0.1 * torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
    return write_store(tmp_path / "store", x, domains=["sketch", "photo"] * (N // 2))


@pytest.fixture
def model(store: EmbeddingStore) -> SAE:
    generator = torch.Generator().manual_seed(1)
    model = SAE(SAEConfig(d=D, n_latents=L, k=2, holdout=0.3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        # Latents 0 and 1 never fire, 2 always, 3 weakly wherever the others leave a place.
        model.b_enc[:4] = torch.tensor([-50.0, -50.0, 3.0, 5e-4])
        model.b_enc[4:] -= 1
        model.W_enc[3] = 0
        model.mean.fill_(3.0)
        model.scale.fill_(0.1)
    return model


def all_at_once(model: SAE, store: EmbeddingStore, rows: np.ndarray[Any, Any]) -> dict[str, float]:
    """The same figures in numpy, with everything in memory."""
    x = store.read(rows).flatten(0, 1)
    with torch.no_grad():
        codes = model.encode(x)
        dense = codes.dense(L).numpy()
        x_hat = model.decode(codes).double().numpy()
    true = x.double().numpy()
    cosine = (true * x_hat).sum(1) / np.linalg.norm(true, axis=1) / np.linalg.norm(x_hat, axis=1)
    rate = (dense > 0).mean(0)
    once = (dense > 0).sum(0) == 1
    fvu = ((true - x_hat) ** 2).sum() / true.var(0).sum() / len(true)
    return {
        "n_images": len(rows),
        "n_tokens": len(true),
        "fvu": fvu,
        "r2": 1 - fvu,
        "nmse": ((true - x_hat) ** 2).sum() / (true**2).sum(),
        "cosine": cosine.mean(),
        "l0": (dense > 0).sum(1).mean(),
        "l0_1e3": (dense > 1e-3).sum(1).mean(),
        "dead": (rate == 0).mean(),
        "almost_dead": once.mean(),
        "dense": (rate > 0.1).mean(),
    }


def fit_with(**values: float) -> Fit:
    plain: dict[str, float] = dict.fromkeys(("n_images", "n_tokens"), 1)
    return Fit(**(dict.fromkeys(FIGURES, 0.5) | plain | values))  # type: ignore[arg-type]


def test_the_figures_equal_those_computed_at_once(model: SAE, store: EmbeddingStore) -> None:
    rows = np.array([0, 1, 2, 5, 6, 9, 10, 11, 30, 31, 40, 42, 44, 58, 59])
    report = evaluate(model, store, rows)
    assert vars(report.overall) == pytest.approx(all_at_once(model, store, rows), abs=1e-5)
    assert list(report.domains) == ["sketch", "photo"]
    for domain, part in (("sketch", rows[rows % 2 == 0]), ("photo", rows[rows % 2 == 1])):
        assert vars(report.domains[domain]) == pytest.approx(
            all_at_once(model, store, part), abs=1e-5
        )
    assert report.overall.l0_1e3 < report.overall.l0
    assert 0 < report.overall.dead < 1
    assert max(fit.almost_dead for fit in (report.overall, *report.domains.values())) > 0


def test_the_figures_do_not_depend_on_the_batches(
    model: SAE, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(N)
    whole = evaluate(model, store, rows)
    for n_tokens in (1, 7, 20):
        monkeypatch.setattr(room, "TOKENS_AT_ONCE", n_tokens)
        assert evaluate(model, store, rows).flat() == pytest.approx(whole.flat())


def test_a_perfect_sae_has_fvu_0_and_one_without_latents_fvu_1(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 1, 3, generator=generator)
    store = write_store(tmp_path / "s", x)
    perfect = SAE(SAEConfig(d=3, n_latents=6, k=3))
    with torch.no_grad():
        perfect.W_dec.copy_(torch.cat([torch.eye(3), -torch.eye(3)]))
        perfect.W_enc.copy_(perfect.W_dec)
    fit = evaluate(perfect, store, np.arange(50)).overall
    assert (fit.fvu, fit.r2, fit.cosine) == pytest.approx((0, 1, 1), abs=1e-6)
    assert (fit.l0, fit.dead, fit.dense) == (3, 0, 1)

    silent = SAE(SAEConfig(d=3, n_latents=6, k=3))
    with torch.no_grad():
        silent.b_dec.copy_(x.mean((0, 1)))
    fit = evaluate(silent, store, np.arange(50)).overall
    assert (fit.fvu, fit.r2) == pytest.approx((1, 0), abs=1e-6)
    assert (fit.l0, fit.l0_1e3, fit.dead, fit.dense) == (0, 0, 1, 0)


def test_a_latent_of_one_token_in_ten_thousand_is_almost_dead() -> None:
    model = SAE(SAEConfig(d=1, n_latents=4, k=1))
    sums = FitSums(model)
    fired = torch.tensor([0] * 19_995 + [1, 1, 2, 2, 2])[:, None]
    sums.update(torch.ones(20_000, 1), Codes(torch.ones(20_000, 1), fired))
    fit = sums.fit()
    assert (fit.dead, fit.almost_dead, fit.dense) == (0.25, 0.25, 0.25)


def test_negative_activations_of_a_signed_rule_are_active(store: EmbeddingStore) -> None:
    model = SAE(SAEConfig(d=D, n_latents=D, k=D, activation="signed_topk"))
    with torch.no_grad():
        model.W_enc.copy_(torch.eye(D))
        model.W_dec.copy_(torch.eye(D))
        model.mean.fill_(3.0)
    fit = evaluate(model, store, np.arange(N)).overall
    assert (fit.l0, fit.dead, fit.dense) == (D, 0, 1)
    assert fit.fvu == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("activation", ["topk", "signed_topk"])
def test_other_k_are_the_same_weights_with_another_k(
    model: SAE, store: EmbeddingStore, activation: str
) -> None:
    model.config = replace(model.config, activation=activation)
    rows = np.arange(0, N, 2)
    report = evaluate(model, store, rows, ks=[5, 1, 2])
    assert list(report.at_k) == [1, 2, 5]
    assert report.at_k[2] == report.overall
    for k, fit in report.at_k.items():
        other = SAE(replace(model.config, k=k))
        other.load_state_dict(model.state_dict())
        assert vars(fit) == pytest.approx(vars(evaluate(other, store, rows).overall))
    assert model.config.k == 2
    assert report.flat()["l0_at_k5"] == report.at_k[5].l0


def test_an_sae_without_k_or_without_so_many_latents_is_refused(
    model: SAE, store: EmbeddingStore
) -> None:
    with pytest.raises(UserError, match=r"--k 21 is not in 1\.\.20"):
        evaluate(model, store, np.arange(N), ks=[2, 21])
    relu = SAE(SAEConfig(d=D, n_latents=L, k=0, activation="relu"))
    with pytest.raises(UserError, match=r"--k needs .* has 'relu'"):
        evaluate(relu, store, np.arange(N), ks=[2])


def test_the_prefixes_of_a_matryoshka_are_dictionaries_of_their_own(
    model: SAE, store: EmbeddingStore
) -> None:
    model.config = replace(model.config, prefixes=(4, 10, L))
    report = evaluate(model, store, np.arange(N))
    assert list(report.at_prefix) == [4, 10]
    x = store.read(np.arange(N)).flatten(0, 1)
    with torch.no_grad():
        x_hat = model.decode(model.encode(x, 4))
    fvu = ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()
    assert report.at_prefix[4].fvu == pytest.approx(fvu, rel=1e-4)
    assert report.at_prefix[4].l0 < report.at_prefix[10].l0 < report.overall.l0
    assert [row[0] for row in report.variants_table()[0]] == ["prefix4", "prefix10"]


def test_the_frequency_of_each_latent_is_its_share_of_the_tokens(
    model: SAE, store: EmbeddingStore
) -> None:
    report = evaluate(model, store, np.arange(N))
    for domain, rows in (("", slice(0, N)), ("sketch", slice(0, N, 2)), ("photo", slice(1, N, 2))):
        x = store.read(np.arange(N)[rows]).flatten(0, 1)
        wanted = (model.encode(x).dense(L) > 0).double().mean(0)
        np.testing.assert_allclose(report.frequency[domain], wanted)


def test_the_share_of_a_domain_does_not_depend_on_its_size() -> None:
    first, others, share = domain_share(
        {
            "": np.zeros(4),
            "photo": np.array([0.2, 0.0, 0.0, 0.3]),
            "sketch": np.array([0.2, 0.5, 0.0, 0.1]),
        }
    )
    assert (first, others) == ("sketch", "photo")
    assert share.tolist() == pytest.approx([0.5, 1.0, 0.25])  # the silent one is left out
    assert domain_share({"": np.zeros(1), "a": np.ones(1), "b": np.ones(1)})[:2] == ("a", "b")


def test_another_sae_is_compared_on_the_same_images(
    model: SAE, store: EmbeddingStore, tmp_path: Path
) -> None:
    same = evaluate_run(model, store, tmp_path, CPU, against=model).stability
    assert same is not None
    assert same.n_live == same.n_live_other < L
    assert same.matched_cosine == pytest.approx(1)
    other = SAE(replace(model.config))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.W_dec.copy_(-model.W_dec)
    flat = evaluate_run(model, store, tmp_path, CPU, against=other).flat()
    assert flat["stability_matched_0_9"] == 0
    assert flat["stability_n_live"] == same.n_live
    narrow = SAE(SAEConfig(d=D + 1, n_latents=L, k=2))
    with pytest.raises(UserError, match="d 6, but the store has d 5"):
        evaluate_run(model, store, tmp_path, CPU, against=narrow)


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
        (("--against", "nowhere"), "nowhere is not a folder"),
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


def test_held_out_images_are_those_that_training_left_out(
    model: SAE, store: EmbeddingStore
) -> None:
    rows = held_out(model, store)
    wanted = [row for row, i in enumerate(image_ids(N)) if fraction(i, "holdout") < 0.3]
    assert rows.tolist() == wanted
    nothing = SAE(SAEConfig(d=D, n_latents=L, k=2, holdout=0.0))
    with pytest.raises(UserError, match=r"no image .* is held out \(holdout 0.0, 60 images\)"):
        held_out(nothing, store)


def test_a_domain_without_images_is_left_out_and_one_token_has_no_fvu(tmp_path: Path) -> None:
    domains = ["sketch", "photo", "photo"]
    store = write_store(tmp_path / "s", torch.randn(3, 1, D), domains=domains)
    model = SAE(SAEConfig(d=D, n_latents=L, k=2))
    assert list(evaluate(model, store, np.array([1, 2])).domains) == ["photo"]
    report = evaluate(model, store, np.arange(3))
    assert math.isnan(report.domains["sketch"].fvu)
    assert report.flat()["sketch/fvu"] is None
    assert report.flat()["photo/fvu"] is not None


def test_an_sae_of_another_width_is_refused(store: EmbeddingStore) -> None:
    with pytest.raises(UserError, match="d 7, but the store has d 5"):
        evaluate(SAE(SAEConfig(d=7, n_latents=L, k=2)), store, np.arange(N))


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
    monkeypatch.setattr("sae.clip.model.load_clip", None)
    assert evaluate_run(model, store, tmp_path, CPU, n_zeroshot=100).zeroshot == {}


def test_a_run_reports_the_held_out_part_and_writes_it(
    model: SAE, store: EmbeddingStore, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate_run(
        model, store, tmp_path, CPU, n_zeroshot=0, progress=lambda *at: seen.append(at)
    )
    rows = held_out(model, store)
    assert report == evaluate(model, store, rows)
    assert seen[-1] == (len(rows), len(rows))
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written.pop("format") == 1
    assert written.pop("store") == store.info.identity
    assert written == report.flat()
