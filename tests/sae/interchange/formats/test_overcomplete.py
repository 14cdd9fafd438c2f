"""overcomplete: the encoders and dictionaries that a state dict can hold, with their own maths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sae import interchange
from sae.core.errors import UserError
from tests.support.sae.peer_fixtures import DATA, expected, require_same

D, N, K = 12, 40, 6
State = dict[str, Tensor]


def _state(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return {
        "encoder.final_block.0.weight": torch.randn(N, D),
        "encoder.final_block.0.bias": torch.randn(N),
        "dictionary._weights": torch.randn(N, D) * (0.5 + torch.rand(N, 1)),
        "dictionary.multiplier": torch.tensor(0.0),
    }


def _x() -> Tensor:
    return torch.randn(50, D, generator=torch.Generator().manual_seed(9))


def _saved(path: Path, state: State) -> Path:
    torch.save(state, path)
    return path


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-8)


def _largest(codes: Tensor, k: int) -> Tensor:
    kept = codes.topk(k, dim=1)
    return torch.zeros_like(codes).scatter(1, kept.indices, kept.values)


def _linear(state: State) -> Tensor:
    weight, bias = state["encoder.final_block.0.weight"], state["encoder.final_block.0.bias"]
    return _x() @ weight.T + bias


def _require_fixture(imported: interchange.Imported) -> None:
    then = expected("overcomplete_topk")
    require_same(imported.model, then["x"], then["latents"], then["reconstruction"])


def test_latents_and_reconstruction_of_the_fixture_are_the_peers_own() -> None:
    imported = interchange.read(DATA / "overcomplete_topk" / "checkpoint.pt", k=4)
    assert imported.format == "overcomplete"
    _require_fixture(imported)


def test_k_is_read_from_a_json_file_beside_the_weights(tmp_path: Path) -> None:
    source = DATA / "overcomplete_topk" / "checkpoint.pt"
    path = Path(shutil.copy(source, tmp_path / "weights.pt"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text(json.dumps({"nb_concepts": 64, "top_k": 9}))
    (tmp_path / "settings.json").write_text(json.dumps({"nb_concepts": 128, "top_k": 4}))
    imported = interchange.read(path)
    assert "settings.json" in imported.notes[0]
    _require_fixture(imported)


def test_without_a_k_the_packages_default_is_taken_and_said(tmp_path: Path) -> None:
    path = _saved(tmp_path / "sae.pt", _state())
    imported = interchange.read(path)
    assert imported.model.config.k == N // 10
    assert any(f"{N // 10} is the package's default" in note for note in imported.notes)


def test_the_multiplier_lengthens_the_dictionary(tmp_path: Path) -> None:
    state = _state() | {"dictionary.multiplier": torch.tensor(0.8)}
    latents = _largest(_linear(state).relu(), K)
    x_hat = latents @ (_unit(state["dictionary._weights"]) * torch.tensor(0.8).exp())
    imported = interchange.read(_saved(tmp_path / "sae.pt", state), k=K)
    require_same(imported.model, _x(), latents, x_hat)


def test_a_batch_norm_in_the_encoder_acts_as_it_does_in_use(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(N)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert value is not None
            value.copy_(torch.rand(N) + 0.2)
    parts = {f"encoder.final_block.1.{name}": value for name, value in norm.state_dict().items()}
    state = _state() | parts
    with torch.no_grad():
        latents = _largest(norm.eval()(_linear(state)).relu(), K)
    imported = interchange.read(_saved(tmp_path / "sae.pt", state), k=K)
    require_same(imported.model, _x(), latents, latents @ _unit(state["dictionary._weights"]))


def test_a_jump_sae_has_a_threshold_per_latent(tmp_path: Path) -> None:
    state = _state() | {"thresholds": torch.randn(N) - 1}
    codes = _linear(state).relu()
    latents = codes * (codes >= state["thresholds"].exp())
    imported = interchange.read(_saved(tmp_path / "sae.pt", state))
    require_same(imported.model, _x(), latents, latents @ _unit(state["dictionary._weights"]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_or_untied_encoder_is_read(tmp_path: Path, tied: bool, bias: bool) -> None:
    state = {name: value for name, value in _state().items() if name.startswith("dictionary")}
    atoms = _unit(state["dictionary._weights"])
    W = atoms if tied else torch.randn(N, D)
    state |= {"encoder.bias": torch.randn(N)} if bias else {}
    latents = _largest((_x() @ W.T + state.get("encoder.bias", torch.zeros(N))).relu(), K)
    if tied:
        state["encoder.tied_to._weights"] = state["dictionary._weights"]
    else:
        state["encoder.weight"] = W
    imported = interchange.read(_saved(tmp_path / "sae.pt", state), k=K)
    require_same(imported.model, _x(), latents, latents @ atoms)


def test_an_archetypal_dictionary_is_mixed_from_its_points(tmp_path: Path) -> None:
    state = {name: value for name, value in _state().items() if name.startswith("encoder")}
    mix, points, moved = torch.randn(N, 30), torch.randn(30, D), 0.4 * torch.randn(N, D)
    moved[0] = 0
    state |= {"dictionary.C": points, "dictionary.W": mix, "dictionary.Relax": moved}
    state["dictionary.multiplier"] = torch.tensor(0.3)
    rows = mix.relu() / (mix.relu().sum(1, keepdim=True) + 1e-8)
    near = moved * torch.clamp(1.0 / moved.norm(dim=1, keepdim=True), max=1)
    atoms = (rows @ points + near) * torch.tensor(0.3).exp()
    latents = _largest(_linear(state).relu(), K)
    imported = interchange.read(_saved(tmp_path / "sae.pt", state), k=K)
    require_same(imported.model, _x(), latents, latents @ atoms)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("encoder.mlp_blocks.0.0.weight", "several layers"),
        ("encoder.resnet_blocks.0.conv1.weight", "convolutions"),
        ("encoder.attention_blocks.0.norm1.weight", "attention"),
        ("encoder.final_block.1.weight", "layer norm"),
        ("Q", "QSAE rounds its latents"),
    ],
)
def test_an_encoder_of_another_kind_is_refused_by_name(
    tmp_path: Path, more: str, says: str
) -> None:
    path = _saved(tmp_path / "sae.pt", _state() | {more: torch.ones(N)})
    with pytest.raises(UserError, match=says):
        interchange.read(path)


def test_a_dictionary_without_an_encoder_is_refused(tmp_path: Path) -> None:
    state = {name: value for name, value in _state().items() if name.startswith("dictionary")}
    with pytest.raises(UserError, match="no encoder that is a linear layer"):
        interchange.read(_saved(tmp_path / "sae.pt", state))
