"""MSAE: what stands in the name of a file is followed, activation by activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sae import interchange
from sae.core.errors import UserError
from tests.support.sae.peer_fixtures import DATA, expected, require_same
from tests.support.sae.stores import write_store

D, N, K = 12, 40, 6
FIXTURES = {
    "msae_topk": "128_32_TopKReLU_4_False_False_0.0_fixture.pth",
    "msae_matryoshka": "128_32_TopKReLU_4_RW_False_False_0.0_fixture.pth",
}


def _held(tied: bool = False, **more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = {
        "pre_bias": 0.3 * torch.randn(D),
        "encoder": torch.randn(D, N),
        "latent_bias": torch.randn(N) - 9,  # so that some rows have fewer than K above 0
        "decoder": torch.randn(N, D),
        "latents_activation_frequency": torch.zeros(N, dtype=torch.int64),
    }
    if tied:
        del model["decoder"]
    held = {"model": model, "mean_center": torch.randn(D), "scaling_factor": 0.6}
    return held | {"target_norm": np.float64(D**0.5)} | more


def _x() -> Tensor:
    return 2 * torch.randn(50, D, generator=torch.Generator().manual_seed(9)) + 0.5


def _activated(pre: Tensor, activation: str, model: dict[str, Tensor]) -> Tensor:
    if activation == "Identity":
        return pre
    if activation == "ReLU":
        return pre.relu()
    if activation == "JumpReLU":
        return pre.relu() * (pre.relu() > model["activation.log_threshold"].exp())
    kept = pre.topk(K, dim=1)
    values = kept.values.relu() if activation == "TopKReLU" else kept.values
    return torch.zeros_like(pre).scatter(1, kept.indices, values)


def _theirs(
    held: dict[str, Any], activation: str, tied: bool, normalise: bool, cap: float
) -> tuple[Tensor, Tensor]:
    """Encode and decode of its SAE around its Autoencoder, in its own order of steps."""
    model = held["model"]
    x = (_x() - held["mean_center"]) * held["scaling_factor"]
    mu, std = torch.zeros(len(x), 1), torch.ones(len(x), 1)
    if normalise:
        mu = x.mean(-1, keepdim=True)
        std = (x - mu).std(-1, keepdim=True)
        x = (x - mu) / (std + 1e-5)
    pre = (x - model["pre_bias"]) @ model["encoder"] + model["latent_bias"]
    latents = _activated(pre, activation, model)
    if cap > 0:
        latents = cap * torch.tanh(latents / cap)
    decoder = model["encoder"].t() if tied else model["decoder"]
    x_hat = (latents @ decoder + model["pre_bias"]) * std + mu
    return latents, x_hat / held["scaling_factor"] + held["mean_center"]


@pytest.mark.parametrize("name", FIXTURES)
def test_latents_and_reconstruction_of_a_fixture_are_the_peers_own(name: str) -> None:
    imported = interchange.read(DATA / name / FIXTURES[name])
    assert imported.format == "MSAE"
    then = expected(name)
    require_same(imported.model, then["x"], then["latents"], then["reconstruction"])


@pytest.mark.parametrize("cap", [0.0, 1.5])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["ReLU", "JumpReLU", "TopK", "TopKReLU", "Identity"])
def test_each_option_in_the_name_is_followed(
    tmp_path: Path, activation: str, tied: bool, normalise: bool, cap: float
) -> None:
    held = _held(tied)
    if activation == "JumpReLU":
        held["model"]["activation.log_threshold"] = torch.randn(N)
    number = {"ReLU": "_003", "JumpReLU": f"_{N}", "Identity": ""}.get(activation, f"_{K}")
    path = tmp_path / f"{N}_{D}_{activation}{number}_{tied}_{normalise}_{cap}_cc3m_2905936_12.pth"
    torch.save(held, path)
    theirs = _theirs(held, activation, tied, normalise, cap)
    require_same(interchange.read(path).model, _x(), *theirs)


def test_an_imported_soft_cap_and_row_norm_survive_saving(tmp_path: Path) -> None:
    held = _held()
    path = tmp_path / f"{N}_{D}_TopK_{K}_False_True_1.5_cc3m.pth"
    torch.save(held, path)
    interchange.import_sae(path, tmp_path / "ours")
    from sae.interchange.load import load

    require_same(load(tmp_path / "ours"), _x(), *_theirs(held, "TopK", False, True, 1.5))


def test_a_batchtopk_takes_its_threshold_from_a_store(tmp_path: Path) -> None:
    path, x = tmp_path / f"{N}_{D}_BatchTopKReLU_{K}_False_False_0.0_cc3m.pth", _x()
    held = _held()
    held["model"]["latent_bias"] += 9
    torch.save(held, path)
    with pytest.raises(UserError, match="add --store STORE"):
        interchange.read(path)
    write_store(tmp_path / "store", x[:, None])
    imported = interchange.read(path, tmp_path / "store")
    kept = imported.model.encode(x).dense(N)
    relu, _ = _theirs(held, "ReLU", False, False, 0.0)
    n_kept = int((kept > 0).sum())
    assert abs(n_kept - K * len(x)) <= 1
    threshold = relu.flatten().sort(descending=True).values[n_kept - 1]
    torch.testing.assert_close(kept, relu * (relu >= threshold), atol=1e-5, rtol=1e-5)


def test_the_line_of_its_maths_names_row_norm_and_cap_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / f"{N}_{D}_TopK_{K}_False_True_1.5_cc3m.pth"
    torch.save(_held(), path)
    line = interchange.read(path).maths.line()
    assert "a tanh caps them at 1.5" in line
    assert "(x - mean) / 1.667 for x, then each row to mean 0, deviation 1" in line


@pytest.mark.parametrize("mean", [0.0, torch.tensor(0.0), torch.zeros(D), None])
def test_a_mean_that_was_not_taken_is_a_zero(tmp_path: Path, mean: object) -> None:
    path = tmp_path / f"{N}_{D}_TopKReLU_{K}_UW_False_False_0.0_cc3m.pth"
    torch.save(_held(mean_center=mean), path)
    held = _held(mean_center=torch.zeros(D))
    imported = interchange.read(path)
    require_same(imported.model, _x(), *_theirs(held, "TopKReLU", False, False, 0.0))
    assert any("--k" in note for note in imported.notes)


def test_settings_inside_the_file_stand_in_for_its_name(tmp_path: Path) -> None:
    config = {"activation": f"TopKReLU_{K}", "n_latents": N, "n_inputs": D, "latent_soft_cap": 1.5}
    path = tmp_path / "best.pth"
    torch.save(_held(config=config), path)
    require_same(
        interchange.read(path).model, _x(), *_theirs(_held(), "TopKReLU", False, False, 1.5)
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("renamed.pth", "'renamed.pth' does not have them"),
        (f"{N}_{D}_TopKabs_{K}_False_False_0.0_cc3m.pth", "'TopKabs' has no counterpart"),
        (f"{N}_{D}_TopKReLU_False_False_0.0_cc3m.pth", "is not followed by a k"),
        (f"{N + 1}_{D}_ReLU_003_False_False_0.0_cc3m.pth", "n_latents 41, but the tensors have 40"),
        (f"{N}_{D}_ReLU_003_False_False_1.2.3_cc3m.pth", "no whole MSAE file"),
    ],
)
def test_a_name_that_does_not_tell_is_refused(tmp_path: Path, name: str, says: str) -> None:
    torch.save(_held(), tmp_path / name)
    with pytest.raises(UserError, match=says):
        interchange.read(tmp_path / name)
