"""An SAE and a store -> how well images are rebuilt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae.core.errors import UserError
from sae.data.split import fraction
from sae.data.store import EmbeddingStore
from sae.evaluation import evaluate as room
from sae.evaluation.evaluate import evaluate, evaluate_run, held_out_rows
from sae.evaluation.reconstruction import FitSums
from sae.evaluation.report import domain_shares
from sae.model.sae import SAE, Codes, SAEConfig
from tests.support.sae.evaluated import CPU, D, L, N
from tests.support.sae.stores import image_ids, write_store


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
    assert list(report.at_own_prefix) == [4, 10]
    small = SAE(replace(model.config, n_latents=4, prefixes=()))
    with torch.no_grad():
        for name, value in small.state_dict().items():
            whole = model.state_dict()[name]
            value.copy_(whole if value.shape == whole.shape else whole[:4])
    alone = evaluate(small, store, np.arange(N)).overall
    own = report.at_own_prefix[4]
    assert (own.fvu, own.l0) == pytest.approx((alone.fvu, alone.l0), rel=1e-4)
    assert own.l0 > report.at_prefix[4].l0
    assert report.flat()["fvu_at_prefix4_own"] == own.fvu
    rows = [row[0] for row in report.variants_table()[0]]
    assert rows == ["prefix4", "prefix10", "prefix4_own", "prefix10_own"]


def test_the_frequency_of_each_latent_is_its_share_of_the_tokens(
    model: SAE, store: EmbeddingStore
) -> None:
    report = evaluate(model, store, np.arange(N))
    for domain, rows in (("", slice(0, N)), ("sketch", slice(0, N, 2)), ("photo", slice(1, N, 2))):
        x = store.read(np.arange(N)[rows]).flatten(0, 1)
        wanted = (model.encode(x).dense(L) > 0).double().mean(0)
        np.testing.assert_allclose(report.frequency[domain], wanted)


def test_the_share_of_a_domain_does_not_depend_on_its_size() -> None:
    shares = domain_shares(
        {
            "": np.zeros(4),
            "photo": np.array([0.2, 0.0, 0.0, 0.3]),
            "sketch": np.array([0.2, 0.5, 0.0, 0.1]),
        }
    )
    assert list(shares) == ["sketch", "photo"]
    assert shares["sketch"].tolist() == pytest.approx([0.5, 1.0, 0.25])  # without the silent one
    assert shares["photo"].tolist() == pytest.approx([0.5, 0.0, 0.75])
    three = domain_shares({"": np.zeros(1), **dict.fromkeys("abc", np.ones(1))})
    assert {name: share.tolist() for name, share in three.items()} == {
        name: [1 / 3] for name in "abc"
    }


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


def test_held_out_images_are_those_that_training_left_out(
    model: SAE, store: EmbeddingStore
) -> None:
    rows = held_out_rows(model, store)
    wanted = [row for row, i in enumerate(image_ids(N)) if fraction(i, "holdout") < 0.3]
    assert rows.tolist() == wanted
    nothing = SAE(SAEConfig(d=D, n_latents=L, k=2, holdout=0.0))
    with pytest.raises(UserError, match=r"no image .* is held out \(holdout 0.0, 60 images\)"):
        held_out_rows(nothing, store)


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
