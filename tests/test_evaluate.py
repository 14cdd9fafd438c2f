from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import image_ids, write_store

from sae import evaluate as room
from sae.errors import UserError
from sae.evaluate import EvalReport, Fit, evaluate, evaluate_run, held_out
from sae.images import fraction
from sae.model import SAE, SAEConfig
from sae.store import EmbeddingStore
from sae.zeroshot import ZeroShot

N, T, D, L = 60, 3, 5, 20
CPU = torch.device("cpu")


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
    fvu = ((true - x_hat) ** 2).sum() / true.var(0).sum() / len(true)
    return {
        "n_images": len(rows),
        "n_tokens": len(true),
        "fvu": fvu,
        "r2": 1 - fvu,
        "cosine": cosine.mean(),
        "l0": (dense > 0).sum(1).mean(),
        "l0_1e3": (dense > 1e-3).sum(1).mean(),
        "dead": (rate == 0).mean(),
        "dense": (rate > 0.1).mean(),
    }


def fit_with(**values: float) -> Fit:
    plain: dict[str, float] = dict.fromkeys(("n_images", "n_tokens"), 1)
    plain |= dict.fromkeys(("fvu", "r2", "cosine", "l0", "l0_1e3", "dead", "dense"), 0.5)
    return Fit(**(plain | values))  # type: ignore[arg-type]


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
    shot = ZeroShot(10, 4, 0.9, 1.0, 0.8, 0.95)
    report = EvalReport(fit_with(fvu=0.25), {"photo": fit_with(fvu=0.75)}, {"": shot})
    flat = report.flat()
    assert (flat["fvu"], flat["photo/fvu"], flat["zeroshot_sae_top1"]) == (0.25, 0.75, 0.8)
    assert all(isinstance(value, int | float) for value in flat.values())
    rows, header = report.table()
    assert header == ("", "all", "photo")
    assert ("fvu", "0.2500", "0.7500") in rows
    assert ("zeroshot_raw_top1", "0.9000", "") in rows
    assert {len(row) for row in rows} == {3}


def test_a_store_without_classes_needs_no_clip(
    model: SAE, store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.clip.load_clip", None)
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
