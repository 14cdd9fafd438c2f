"""FastSAE's folders: the SAE of `final/`, with each of its activations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import sae
from sae import interchange
from sae.core.errors import UserError
from tests.support.sae.peer_fixtures import require_same

D, FACTOR = 6, 4
N = D * FACTOR
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "softplus": F.softplus,
}


def _state(n: int = N) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"W_enc": (D, n), "b_enc": (n,), "W_dec": (n, D), "b_dec": (D,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _write(
    folder: Path, state: dict[str, Tensor], activation: str = "relu", file: str = "model.pt"
) -> Path:
    folder.mkdir(parents=True)
    config = {"d_in": D, "d_sae_factor": len(state["b_enc"]) // D, "architecture": "vanilla"}
    config |= {"activation_name": activation, "device": "cuda", "seed": None}
    text = json.dumps(config | {"class_type": "VanillaSAE"})
    (folder / "vanilla_s_a_e_config.json").write_text(text)
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    return folder


def _theirs(x: Tensor, state: dict[str, Tensor], activation: str) -> tuple[Tensor, Tensor]:
    latents = ACTIVATIONS[activation]((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
    return latents, latents @ state["W_dec"] + state["b_dec"]


@pytest.mark.parametrize("file", ["model.pt", "weights.safetensors"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", [D, N])
def test_each_activation_is_the_peers_own(
    tmp_path: Path, activation: str, file: str, n: int
) -> None:
    state, x = _state(n), torch.randn(40, D)
    folder = _write(tmp_path / "repo" / "final", state, activation, file)
    _write(tmp_path / "repo" / "1000", _state(N))  # an earlier state of the same training
    backbone = tmp_path / "repo" / "backbone"
    backbone.mkdir()
    told = {"model_hf_name": "openai/clip-vit-base-patch16", "hook_target_name": "layers.10"}
    (backbone / "backbone_config.json").write_text(json.dumps(told))
    for path in (tmp_path / "repo", folder, folder / file):
        imported = interchange.read(path)
        assert imported.format == "fastsae"
        require_same(imported.model, x, *_theirs(x, state, activation))
    assert "layers.10 of openai/clip" in interchange.read(tmp_path / "repo").notes[0]


def test_a_smooth_activation_survives_saving(tmp_path: Path) -> None:
    state, x = _state(), torch.randn(40, D)
    _write(tmp_path / "final", state, "gelu")
    interchange.import_sae(tmp_path / "final", tmp_path / "ours")
    require_same(sae.load(tmp_path / "ours"), x, *_theirs(x, state, "gelu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_name": "tanh"}, "activation 'tanh' has no counterpart"),
        ({"architecture": "gated"}, "architecture 'gated'.*no counterpart"),
        ({"d_sae_factor": 5}, "d_in x d_sae_factor 30, but the tensors have 24"),
        ({"topk": 5}, "also holds topk"),
    ],
)
def test_other_maths_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = _write(tmp_path / "final", _state()) / "vanilla_s_a_e_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        interchange.read(tmp_path)
