"""SAELens: every option of its settings gives the latents of the maths that its code has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sae import interchange
from sae.core.errors import UserError
from sae.interchange.formats import saelens
from sae.model.sae import SAE, SAEConfig
from tests.support.sae.peer_fixtures import DATA, expected, require_same

D, N, K = 12, 40, 5
V6 = {"d_in": D, "d_sae": N, "metadata": {"sae_lens_version": "6.54.12"}}
State = dict[str, Tensor]


def _state(*more: str, seed: int = 0) -> State:
    torch.manual_seed(seed)
    state = {
        "W_enc": torch.randn(D, N),
        "W_dec": torch.randn(N, D) * torch.rand(N, 1),
        "b_enc": 0.3 * torch.randn(N),
        "b_dec": torch.randn(D),
    }
    return state | {name: torch.rand(N) for name in more}


def _x() -> Tensor:
    return 2 * torch.randn(60, D, generator=torch.Generator().manual_seed(9)) + 0.5


def _folder(path: Path, state: State, config: dict[str, Any]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    save_file(state, path / "sae_weights.safetensors")
    (path / "cfg.json").write_text(json.dumps(config))
    return path


def _largest(pre: Tensor, k: int) -> Tensor:
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())


def _theirs(x: Tensor, s: State, config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Encode and decode of SAELens, in its own order of steps."""
    mu, std = torch.zeros(len(x), 1), torch.ones(len(x), 1)
    norm = config.get("normalize_activations", "none")
    if norm == "layer_norm":
        mu, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        x = (x - mu) / (std + 1e-5)
    if norm == "constant_norm_rescale":
        std = x.norm(dim=1, keepdim=True) / D**0.5
        x = x / std
    x = x - s["b_dec"] * config.get("apply_b_dec_to_input", True)
    norms = torch.ones(N)
    if config["architecture"] == "gated":
        on = (x @ s["W_enc"] + s["b_gate"]) > 0
        latents = on * (x @ (s["W_enc"] * s["r_mag"].exp()) + s["b_mag"]).relu()
    else:
        pre = x @ s["W_enc"] + s["b_enc"]
        if config.get("rescale_acts_by_decoder_norm"):
            norms = s["W_dec"].norm(dim=1)
            pre = pre * norms
        if config["architecture"] == "abstopk":
            kept = pre.abs().topk(config["k"], dim=1).indices
            latents = pre * torch.zeros_like(pre).scatter(1, kept, 1.0)
        elif config["architecture"] == "topk":
            latents = _largest(pre, config["k"])
        else:
            latents = pre.relu() * (pre > s.get("threshold", torch.zeros(N)))
    return latents, (latents / norms @ s["W_dec"] + s["b_dec"]) * std + mu


@pytest.mark.parametrize("name", ["topk", "topk_layernorm", "batchtopk", "standard"])
def test_latents_and_reconstruction_of_a_fixture_are_the_peers_own(name: str) -> None:
    imported = interchange.read(DATA / f"saelens_{name}" / "checkpoint")
    assert imported.format == "saelens"
    then = expected(f"saelens_{name}")
    require_same(imported.model, then["x"], then["latents"], then["reconstruction"])


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize(
    "architecture", ["standard", "topk", "topk rescaled", "abstopk", "jumprelu", "gated"]
)
def test_each_option_of_version_6_is_followed(
    tmp_path: Path, architecture: str, norm: str, pre_bias: bool
) -> None:
    config = V6 | {"apply_b_dec_to_input": pre_bias, "normalize_activations": norm}
    config |= {"architecture": architecture.split()[0]}
    state = _state(
        *{"jumprelu": ["threshold"], "gated": ["r_mag", "b_gate", "b_mag"]}.get(architecture, [])
    )
    if architecture == "gated":
        del state["b_enc"]
    if "topk" in architecture:
        config |= {"k": K, "rescale_acts_by_decoder_norm": "rescaled" in architecture}
    theirs = _theirs(_x(), state, config)
    imported = interchange.read(_folder(tmp_path, state, config))
    require_same(imported.model, _x(), *theirs)


def test_the_deviation_of_a_faint_row_is_put_back_as_saelens_does(tmp_path: Path) -> None:
    state, x = _state(), 1e-3 * _x()
    config = V6 | {"architecture": "standard", "normalize_activations": "layer_norm"}
    theirs = _theirs(x, state, config)
    require_same(interchange.read(_folder(tmp_path, state, config)).model, x, *theirs)


@pytest.mark.parametrize(
    "old",
    [
        {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "hook_name": "blocks.3"},
        {"activation_fn": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": False},
        {"activation_fn_str": "relu", "hook_point": "blocks.3", "normalize_activations": None},
        {"architecture": "jumprelu", "sae_lens_version": "5.9.1", "prepend_bos": True},
        {"apply_b_dec_to_input": False, "dtype": "torch.float32"},
        {"normalize_activations": True},
        {
            "sae_lens_version": "5.9.1",
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": K},
        },
    ],
)
def test_settings_of_older_versions_are_understood(tmp_path: Path, old: dict[str, Any]) -> None:
    topk = "activation_fn_kwargs" in old
    state = _state(*["threshold"] * ("architecture" in old))
    meant = {"architecture": "topk" if topk else "standard", "k": K} | old
    meant["normalize_activations"] = "none"
    theirs = _theirs(_x(), state, meant)
    imported = interchange.read(_folder(tmp_path, state, {"d_in": D, "d_sae": N} | old))
    require_same(imported.model, _x(), *theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_file_of_another_float_type_is_read_as_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {name: value.to(dtype) for name, value in _state().items()}
    config = V6 | {"architecture": "topk", "k": K, "dtype": str(dtype).removeprefix("torch.")}
    theirs = _theirs(_x(), {name: value.float() for name, value in state.items()}, config)
    imported = interchange.read(_folder(tmp_path, state, config))
    require_same(imported.model, _x(), *theirs)


@pytest.mark.parametrize("widths", [[], [8, 16]])
def test_a_batchtopk_of_training_is_its_inference_file(tmp_path: Path, widths: list[int]) -> None:
    state = _state() | {"topk_threshold": torch.tensor(0.7, dtype=torch.float64)}
    config = V6 | {"architecture": "batchtopk", "k": 4.5, "rescale_acts_by_decoder_norm": True}
    if widths:
        config |= {"architecture": "matryoshka_batchtopk", "matryoshka_widths": widths}
    inference = state | {"threshold": torch.full((N,), 0.7)}
    theirs = _theirs(_x(), inference, config)
    model = interchange.read(_folder(tmp_path, state, config)).model
    require_same(model, _x(), *theirs)
    assert model.config.prefixes == ((8, 16, N) if widths else ())


def test_the_scale_beside_a_file_of_training_is_applied(tmp_path: Path) -> None:
    state = _state()
    config = V6 | {"architecture": "standard", "normalize_activations": "expected_average_only_in"}
    folder = _folder(tmp_path, state, config)
    unscaled = interchange.read(folder)
    require_same(unscaled.model, _x(), *_theirs(_x(), state, {"architecture": "standard"}))
    assert any("does not tell" in " ".join(note.split()) for note in unscaled.notes)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    latents, x_hat = _theirs(0.25 * _x(), state, {"architecture": "standard"})
    scaled = interchange.read(folder)
    require_same(scaled.model, _x(), latents, x_hat / 0.25)
    assert not scaled.notes


@pytest.mark.parametrize("pre_bias", [True, False])
def test_whitening_is_folded(tmp_path: Path, pre_bias: bool) -> None:
    state = _state()
    config = V6 | {"architecture": "topk", "k": K, "apply_b_dec_to_input": pre_bias}
    config |= {"rescale_acts_by_decoder_norm": True}
    matrix = torch.eye(D, dtype=torch.float64) + 0.2 * torch.randn(D, D, dtype=torch.float64)
    mean = torch.randn(D, dtype=torch.float64)
    inverse = matrix.inverse().contiguous()
    white = ((_x().double() - mean) @ matrix).float()
    latents, x_hat = _theirs(white, state, config)
    config["normalize_activations"] = "covariance_whitening"
    folder = _folder(tmp_path, state, config)
    with pytest.raises(UserError, match=r"activation_whitening.safetensors is not beside"):
        interchange.read(folder)
    tensors = {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}
    save_file(tensors, folder / "activation_whitening.safetensors")
    unwhitened = (x_hat.double() @ inverse + mean).float()
    require_same(interchange.read(folder).model, _x(), latents, unwhitened)


def test_a_fine_tuned_scale_of_the_latents_is_decoded_with(tmp_path: Path) -> None:
    state = _state("finetuning_scaling_factor")
    folder = _folder(tmp_path, state, {"d_in": D, "finetuning_scaling_factor": True})
    latents, _ = _theirs(_x(), state, {"architecture": "standard"})
    x_hat = latents * state["finetuning_scaling_factor"] @ state["W_dec"] + state["b_dec"]
    require_same(interchange.read(folder).model, _x(), latents, x_hat)
    with pytest.raises(UserError, match="which is right cannot be known"):
        interchange.read(_folder(tmp_path, state, {"d_in": D}))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"architecture": "transcoder"}, "maps one layer to another"),
        ({"architecture": "jumprelu_skip_transcoder"}, "maps one layer to another"),
        ({"architecture": "temporal"}, "'temporal' has no counterpart"),
        ({"architecture": "matching_pursuit"}, "'matching_pursuit' has no counterpart"),
        ({"architecture": "standard", "reshape_activations": "hook_z"}, "hook_z"),
        ({"metadata": {}, "hook_name": "blocks.3.attn.hook_z"}, "hook_z"),
        ({"metadata": {}, "activation_fn_str": "tanh-relu"}, "'tanh-relu' has no counterpart"),
        ({"architecture": "standard", "normalize_activations": "batch"}, "'batch' has no"),
        ({"architecture": "standard", "d_in": 13}, "d_in 13, but the tensors have 12"),
        ({"architecture": "standard", "d_sae": 41}, "d_sae 41, but the tensors have 40"),
        ({"architecture": "jumprelu"}, "lacks the tensor 'threshold'"),
        ({"architecture": "topk", "k": 0}, "k is 0"),
    ],
)
def test_other_maths_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    folder = _folder(tmp_path, _state(), V6 | settings)
    with pytest.raises(UserError, match=says):
        interchange.read(folder)


def test_one_of_several_hook_points_must_be_named(tmp_path: Path) -> None:
    for layer in ("blocks.3", "blocks.9"):
        _folder(tmp_path / layer, _state(), V6 | {"architecture": "standard"})
    with pytest.raises(UserError, match=r"holds 2 SAEs \(blocks.3, blocks.9\)"):
        interchange.read(tmp_path)
    assert interchange.read(tmp_path / "blocks.9").format == "saelens"


def test_the_weights_file_may_be_named_instead_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    shutil.copytree(DATA / "saelens_topk" / "checkpoint", folder)
    assert interchange.read(folder / "sae_weights.safetensors").format == "saelens"


@pytest.mark.parametrize(
    "config",
    [
        SAEConfig(d=D, n_latents=N, k=K, activation="signed_topk"),
        SAEConfig(d=D, n_latents=N, k=K, soft_cap=3.0),
        SAEConfig(d=D, n_latents=N, k=K, input_norm="centred_layer_norm"),
    ],
)
def test_what_saelens_has_not_is_not_written(tmp_path: Path, config: SAEConfig) -> None:
    with pytest.raises(UserError, match=r"cannot express this SAE .*sae push"):
        saelens.write(SAE(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()
