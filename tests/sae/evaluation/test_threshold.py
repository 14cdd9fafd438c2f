"""The threshold of a BatchTopK on images that its training has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.core.errors import UserError
from sae.data.split import fraction
from sae.evaluation.evaluate import evaluate, held_out_rows
from sae.evaluation.threshold import calibrate, find_threshold
from sae.model.sae import SAE, SAEConfig
from sae.training.train import train
from tests.support import commands
from tests.support.sae.evaluated import CPU
from tests.support.sae.trainings import SMALL, small_store

BATCH = replace(SMALL, activation="batch_topk", n_tokens=64 * 200, holdout=0.6)


def test_so_many_latents_reach_it_on_average() -> None:
    torch.manual_seed(0)
    model = SAE(SAEConfig(d=8, n_latents=40, k=3, activation="batch_topk"))
    with torch.no_grad():
        model.W_enc.normal_()
    x = torch.randn(100, 8)
    threshold = find_threshold(model, [x[:30], x[30:]])
    assert int((model.encode_pre(x) >= threshold).sum()) == 300


def test_training_sets_it_on_images_that_neither_it_nor_the_evaluation_uses(
    tmp_path: Path,
) -> None:
    store = small_store(tmp_path / "store")
    learned = train(store, tmp_path / "learned", replace(BATCH, calibrate=False)).model
    set_ = train(store, tmp_path / "set", BATCH).model
    assert torch.equal(learned.W_enc, set_.W_enc)
    assert (learned.config.calibration, set_.config.calibration) == (0.0, 0.3)
    shares = [fraction(image_id, "holdout") for image_id in store.images["image_id"]]
    rows = held_out_rows(set_, store)
    assert rows.tolist() == [row for row, share in enumerate(shares) if 0.3 <= share < 0.6]
    assert len(held_out_rows(learned, store)) > len(rows)
    used = np.flatnonzero(np.array(shares) < 0.3)
    assert evaluate(set_, store, used).overall.l0 == pytest.approx(BATCH.k, rel=0.02)
    off = [abs(evaluate(m, store, rows).overall.l0 / BATCH.k - 1) for m in (learned, set_)]
    assert off[1] < off[0]
    assert SAE.load(tmp_path / "set").threshold == set_.threshold


def test_an_l0_that_is_not_k_is_said_and_eval_sets_the_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path / "store")
    model = train(store, tmp_path / "sae", replace(BATCH, calibrate=False)).model
    with torch.no_grad():
        model.threshold.mul_(0.5)
    model.save(tmp_path / "sae")
    command = ["eval", str(tmp_path / "sae"), str(tmp_path / "store"), "--no-zeroshot"]
    assert commands.sae(*command) == 0
    said = capsys.readouterr().err
    assert f"above the k {BATCH.k} of its training" in said
    assert "--calibrate" in said
    assert commands.sae(*command, "--calibrate") == 0
    assert "of its training" not in capsys.readouterr().err
    again = SAE.load(tmp_path / "sae")
    assert again.config.calibration == 0.3
    assert again.threshold > model.threshold


def test_without_held_out_images_or_a_threshold_nothing_is_set(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    model = SAE(SAEConfig(d=16, n_latents=40, k=3, activation="batch_topk", holdout=0.0))
    assert calibrate(model, store, CPU) == 0
    assert model.config.calibration == 0.0
    topk = SAE(SAEConfig(d=16, n_latents=40, k=3))
    with pytest.raises(UserError, match="is for a BatchTopK; this SAE has the rule 'topk'"):
        calibrate(topk, store, CPU)
