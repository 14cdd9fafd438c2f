"""saev: each schema gives the latents that the code of its day gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae
from sae import interchange
from sae.core.errors import USAGE, UserError
from tests.support.sae.peer_fixtures import DATA, expected, require_same
from tests.support.sae.stores import write_store

D, N, K = 8, 24, 3
LEGACY = {"d_vit": D, "exp_factor": 3, "sparsity_coeff": 1e-3, "ghost_grads": False, "seed": 1}
BATCH_TOPK = {"cls": "BatchTopK", "params": {"key": "batch-top-k", "top_k": K}}


def _state(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"W_dec": (N, D), "b_dec": (D,), "W_enc": (D, N), "b_enc": (N,)}
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def _saev(folder: Path, header: dict[str, Any], state: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sae.pt").open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(_state() if state is None else state, file)
    return folder / "sae.pt"


def _schema(number: int, activation: dict[str, Any], **config: Any) -> dict[str, Any]:
    sizes = {"d_model": D, "d_sae": N}
    return {"schema": number, "cfg": sizes | {"activation": activation} | config, "commit": "f00"}


def _first(cls: str, commit: str = "5951e84", **config: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "cls": cls,
        "cfg": {"d_vit": D, "exp_factor": 3} | config,
        "commit": commit,
    }


def _pre(state: dict[str, Tensor], x: Tensor, pre_bias: bool) -> Tensor:
    return (x - state["b_dec"] * pre_bias) @ state["W_enc"] + state["b_enc"]


def _largest(pre: Tensor, k: int) -> Tensor:
    values, at = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, at, values)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("saev_legacy_relu", "saev legacy"),
        ("saev_schema1_relu", "saev schema 1"),
        ("saev_schema5_relu", "saev schema 5"),
        ("saev_schema5_topk", "saev schema 5"),
        ("saev_schema5_batchtopk", "saev schema 5"),
    ],
)
@pytest.mark.parametrize("place", ["checkpoint", "checkpoint/sae.pt", "."])
def test_latents_and_reconstruction_are_the_peers_own(name: str, form: str, place: str) -> None:
    imported = interchange.read(DATA / name / place)
    assert imported.format == form
    then = expected(name)
    require_same(imported.model, then["x"], then["latents"], then["reconstruction"])


@pytest.mark.parametrize(
    ("header", "pre_bias"),
    [
        (LEGACY, True),
        (_first("Relu"), True),
        (_first("Relu", commit="e7ca004"), False),
        (_first("Relu", commit="e7ca004a1b2c3"), False),
        (
            {"schema": 1, "cls": "SparseAutoencoderConfig", "cfg": {"d_vit": D, "exp_factor": 3}},
            False,
        ),
        (_schema(2, {"cls": "Relu", "params": {}}), False),
        (_schema(3, {"cls": "Relu", "params": {"kind": "relu", "sparsity": {}}}), False),
        (_schema(4, {"params": {"kind": "relu", "sparsity": {"coeff": 4e-4}}}), False),
    ],
)
def test_only_the_first_files_subtract_b_dec(
    tmp_path: Path, header: dict[str, Any], pre_bias: bool
) -> None:
    x, state = torch.randn(50, D), _state()
    model = interchange.read(_saev(tmp_path, header)).model
    latents = _pre(state, x, pre_bias).relu()
    require_same(model, x, latents, latents @ state["W_dec"] + state["b_dec"])


@pytest.mark.parametrize(
    ("header", "k", "pre_bias"),
    [
        (_first("TopK", top_k=K), K, True),
        (_first("TopK", exp_factor=3), 24, True),  # no top_k: 32, of which there are 24
        (_first("BatchTopK", top_k=20), 20, True),
        (_schema(2, {"cls": "TopK", "params": {"top_k": K}}), K, False),
        (_schema(2, {"cls": "BatchTopK", "params": {"top_k": 20}}, exp_factor=3), 20, False),
        (_schema(5, {"cls": "TopK", "params": {"key": "top-k", "top_k": 30}}), N, False),
    ],
)
def test_topk_keeps_negative_latents(
    tmp_path: Path, header: dict[str, Any], k: int, pre_bias: bool
) -> None:
    x = torch.randn(50, D)
    latents = _largest(_pre(_state(), x, pre_bias), k)
    require_same(interchange.read(_saev(tmp_path, header)).model, x, latents)


@pytest.mark.parametrize("threshold", [1.5, 0.0, -2.0])
def test_batch_topk_keeps_what_exceeds_its_threshold(tmp_path: Path, threshold: float) -> None:
    x, state = torch.randn(200, D), _state()
    file = state | {"activation.threshold": torch.tensor(threshold)}
    model = interchange.read(_saev(tmp_path, _schema(4, BATCH_TOPK), file)).model
    pre = _pre(state, x, False)
    require_same(model, x, pre * (pre > max(threshold, 0)))


def test_a_latent_just_at_the_threshold_is_not_kept(tmp_path: Path) -> None:
    state = {"W_enc": torch.eye(D), "W_dec": torch.eye(D)}
    state |= {"b_enc": torch.zeros(D), "b_dec": torch.zeros(D)}
    file = state | {"activation.threshold": torch.tensor(0.3)}
    header = _schema(5, BATCH_TOPK, d_sae=D)
    x = torch.full((1, D), 0.3)
    x[0, 0] = x[0, 0].nextafter(torch.tensor(1.0))
    codes = interchange.read(_saev(tmp_path, header, file)).model.encode(x)
    assert codes.dense(D).count_nonzero() == 1


def test_a_file_of_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    x, file = torch.randn(50, D), _state(torch.bfloat16)
    state = {name: value.float() for name, value in file.items()}
    path = _saev(tmp_path, _schema(5, {"cls": "Relu", "params": {}}), file)
    require_same(interchange.read(path).model, x, _pre(state, x, False).relu())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (_schema(6, {"cls": "Relu", "params": {}}), "schema 6 is not known; known: 1 to 5"),
        (_schema(4, {"cls": "AbsBatchTopK", "params": {"top_k": K}}), "'AbsBatchTopK' has no"),
        (_schema(5, {"cls": "Relu", "params": {}}, d_model=9), "d_model 9.*have 8"),
        (_first("Relu", exp_factor=4), "d_sae 32.*have 24"),
        (_schema(5, {"cls": "TopK", "params": {"top_k": "many"}}), "top_k is 'many'"),
        ({"schema": 5, "cfg": {"d_model": D, "d_sae": N}}, "activation None has no counterpart"),
    ],
)
def test_what_cannot_be_right_is_refused(
    tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        interchange.read(_saev(tmp_path, header))
    assert refusal.value.exit_code == USAGE


def test_several_checkpoints_are_asked_to_be_named(tmp_path: Path) -> None:
    _saev(tmp_path / "layer_6", LEGACY)
    _saev(tmp_path / "layer_9", LEGACY)
    with pytest.raises(UserError, match=r"2 SAEs \(layer_6/sae.pt, layer_9/sae.pt\); name one"):
        interchange.read(tmp_path)


def test_a_line_of_json_without_an_sae_is_no_saev(tmp_path: Path) -> None:
    path = _saev(tmp_path, {"in_features": 8, "out_features": 3}, {"weight": torch.zeros(3, 8)})
    with pytest.raises(UserError, match="no SAE of a known format"):
        interchange.read(path)


def _fitting(folder: Path, scaled: bool) -> tuple[Path, Path]:
    """A legacy SAE that is the identity, cut off far from 0, and a store of raw embeddings.

    Its latents rebuild only what lies within 4 of 0, in embeddings as it was trained on them.
    """
    torch.manual_seed(0)
    eye, ones = torch.eye(D), torch.ones(D)
    state = {
        "W_enc": torch.cat([eye, eye, -eye]).T,
        "W_dec": torch.cat([eye, -eye, -eye]),
        "b_enc": torch.cat([0 * ones, -4 * ones, 0 * ones]),
        "b_dec": torch.zeros(D),
    }
    x = torch.randn(64, 16, D)
    write_store(folder / "store", 30 + 20 * x if scaled else x)
    return _saev(folder / "sae", LEGACY, state), folder / "store"


@pytest.mark.parametrize("scaled", [True, False])
def test_a_store_shows_whether_a_legacy_sae_was_trained_on_scaled_embeddings(
    tmp_path: Path, scaled: bool
) -> None:
    path, store = _fitting(tmp_path, scaled)
    imported = interchange.read(path, store)
    assert imported.fvu is not None
    assert imported.fvu < 0.01
    if scaled:
        assert "mean and scale are kept" in imported.notes[-1]
        assert float(imported.model.scale) == pytest.approx(20, rel=0.05)
        assert imported.model.mean.mean() == pytest.approx(30, rel=0.05)
    else:
        assert "no mean and scale" in imported.notes[-1]
        assert float(imported.model.scale) == 1


def test_without_a_store_a_legacy_sae_is_read_as_it_stands_and_says_so(tmp_path: Path) -> None:
    path, _ = _fitting(tmp_path, True)
    imported = interchange.read(path)
    assert "--store STORE" in imported.notes[0]
    assert float(imported.model.scale) == 1
    with pytest.warns(UserWarning, match="--store STORE"):
        assert sae.load(path).config.source == "saev legacy"


@pytest.mark.parametrize(("mean", "norm"), [(True, True), (True, False), (False, True)])
def test_a_training_config_that_tells_of_scaling_demands_a_store(
    tmp_path: Path, mean: bool, norm: bool
) -> None:
    path, store = _fitting(tmp_path, True)
    told = {"data": {"layer": -2, "scale_mean": mean, "scale_norm": norm}}
    path.with_name("config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="add --store STORE"):
        interchange.read(path)
    model = interchange.read(path.parent, store).model
    assert bool(model.mean.any()) == mean
    length = 20 if mean else (30**2 + 20**2) ** 0.5  # of raw x, over sqrt(d)
    assert float(model.scale) == pytest.approx(length if norm else 1, rel=0.05)


def test_a_training_config_without_scaling_needs_no_store(tmp_path: Path) -> None:
    path, _ = _fitting(tmp_path, False)
    told = {"data": {"scale_mean": False, "scale_norm": False}}
    path.with_name("config.json").write_text(json.dumps(told))
    assert interchange.read(path).notes == ()
