"""visaebench: both its layouts, every rule, with settings as JSON or YAML, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sae import interchange
from sae.core.errors import UserError
from tests.support.sae.peer_fixtures import DATA, expected, require_same
from tests.support.sae.stores import write_store

D, N, K = 8, 24, 3
SIMPLE, OVERCOMPLETE = "simple", "overcomplete"


def _state(layout: str = SIMPLE, d: int = D, n: int = N) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder = {"weight": torch.randn(n, d), "bias": torch.randn(n)}
    rows = torch.randn(n, d)
    if layout == SIMPLE:
        state = {f"encoder.{name}": value for name, value in encoder.items()}
        return state | {"decoder.weight": rows, "decoder.bias": torch.randn(d)}
    state = {f"encoder.final_block.0.{name}": value for name, value in encoder.items()}
    return state | {"dictionary._weights": rows, "dictionary.multiplier": torch.tensor(0.3)}


def _theirs(x: Tensor, state: Mapping[str, Tensor], kept: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and reconstruction, of which latents are kept."""
    latents = _pre(x, state) * kept
    if "decoder.weight" not in state:
        multiplier = state.get("dictionary.multiplier", torch.zeros(())).exp()
        return latents, latents @ (state["dictionary._weights"] * multiplier)
    bias = state.get("decoder.bias", torch.zeros(x.shape[1]))
    return latents, latents @ state["decoder.weight"] + bias


def _pre(x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    prefix = "encoder." if "encoder.weight" in state else "encoder.final_block.0."
    return (x @ state[prefix + "weight"].T + state[prefix + "bias"]).relu()


def _top(pre: Tensor, k: int) -> Tensor:
    return torch.zeros_like(pre).scatter(1, pre.topk(k, dim=1).indices, 1.0)


def _x(d: int = D) -> Tensor:
    return torch.randn(50, d, generator=torch.Generator().manual_seed(9))


def _folder(
    folder: Path,
    state: dict[str, Tensor],
    config: dict[str, object] | None,
    file: str = "sae.pt",
    settings: str = "config.json",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    if config is not None:
        lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in config.items())
        text = json.dumps(config) if settings.endswith(".json") else lines
        (folder / settings).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["visaebench_simple_topk", "visaebench_overcomplete_batchtopk"])
def test_latents_and_reconstruction_of_a_fixture_are_the_peers_own(name: str) -> None:
    then = expected(name)
    for path in (DATA / name / "checkpoint", DATA / name / "checkpoint" / "sae.pt"):
        imported = interchange.read(path)
        assert imported.format == "visaebench"
        require_same(imported.model, then["x"], then["latents"], then["reconstruction"])
        assert any("add --store" in note for note in imported.notes)


@pytest.mark.parametrize("file", ["sae.pt", "model.pt", "model.safetensors"])
@pytest.mark.parametrize("settings", ["config.json", "config.yaml", "config.yml"])
def test_every_name_of_its_files_is_found(tmp_path: Path, file: str, settings: str) -> None:
    state = _state()
    config: dict[str, object] = {"sae_type": "TopK", "k": K, "input_dim": D, "hidden_dim": N}
    folder = _folder(tmp_path / "sae", state, config, file, settings)
    theirs = _theirs(_x(), state, _top(_pre(_x(), state), K))
    for path in (tmp_path, folder, folder / file):
        require_same(interchange.read(path).model, _x(), *theirs)


@pytest.mark.parametrize("layout", [SIMPLE, OVERCOMPLETE])
@pytest.mark.parametrize("d", [D, N])
@pytest.mark.parametrize("rule", ["topk", "batchtopk", "told threshold", "jumprelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_every_rule_of_both_layouts_also_where_d_is_n(
    tmp_path: Path, layout: str, d: int, rule: str, bias: bool
) -> None:
    state, x, config = _state(layout, d), _x(d), {"activation": rule, "k": K}
    if not bias:
        state.pop("decoder.bias", None)
    pre = _pre(x, state)
    kept = _top(pre, K)
    if "threshold" in rule or rule == "batchtopk":
        border = float(pre.flatten().topk(K * len(x)).values.min())  # reached, not exceeded
        config["activation"] = "batchtopk"
        if rule == "batchtopk":
            state["_running_threshold"] = torch.tensor(border)
        else:
            config["threshold"] = border
        kept = (pre >= border).float()
    if rule == "jumprelu":
        name = "jump_thresholds" if layout == SIMPLE else "thresholds"
        state[name] = torch.rand(N)
        kept = (pre > state[name]).float()
    model = interchange.read(_folder(tmp_path, state, config)).model
    require_same(model, x, *_theirs(x, state, kept))


def test_mean_and_deviation_of_the_input_come_from_the_store(tmp_path: Path) -> None:
    state = _state()
    raw = 5 * _x()[:40] + torch.arange(D)
    folder = _folder(tmp_path / "sae", state, {"activation": "topk", "k": K})
    write_store(tmp_path / "store", raw[:, None])
    imported = interchange.read(folder, tmp_path / "store")
    mean, std = raw.mean(0), float((raw - raw.mean(0)).square().mean().sqrt())
    x = (raw - mean) / std
    latents, x_hat = _theirs(x, state, _top(_pre(x, state), K))
    require_same(imported.model, raw, latents, x_hat * std + mean)


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ({}, None, "no config.json or config.yaml beside it tells its activation"),
        (
            {"_running_threshold": torch.tensor(0.4)},
            {"activation": "topk", "k": K},
            "also holds _r",
        ),
        ({}, {"activation": "topk", "k": K, "pre_scale": 2.0}, "also holds pre_scale.*--ignore"),
        ({"gain": torch.ones(N)}, {"activation": "topk", "k": K}, "also holds gain"),
        ({}, {"activation": "topk"}, "does not tell its k; add --k"),
        ({}, {"activation": "batchtopk", "k": K}, "without `threshold`"),
        ({}, {"activation": "jumprelu"}, "lacks the tensor 'thresholds'"),
        ({}, {"activation": "topk", "k": K, "input_dim": 9}, "input_dim 9, but.*8"),
        ({}, {"activation": "topk", "k": K, "sae_type": "jumprelu"}, "disagree"),
    ],
)
def test_what_its_reader_would_have_to_guess_is_refused(
    tmp_path: Path, state: dict[str, Tensor], config: dict[str, object] | None, message: str
) -> None:
    folder = _folder(tmp_path, _state() | state, config)
    with pytest.raises(UserError, match=message):
        interchange.read(folder / "sae.pt")


def test_a_k_that_is_not_told_can_be_given_and_an_unknown_key_ignored(tmp_path: Path) -> None:
    state = _state()
    folder = _folder(tmp_path, state, {"activation": "topk", "pre_scale": 2.0})
    model = interchange.read(folder, k=K, ignore=["pre_scale"]).model
    require_same(model, _x(), *_theirs(_x(), state, _top(_pre(_x(), state), K)))
    with pytest.raises(UserError, match=r"--ignore pre_scal.*did you mean 'pre_scale'"):
        interchange.read(folder, k=K, ignore=["pre_scal"])


def test_a_square_pair_of_layers_without_settings_is_not_guessed(tmp_path: Path) -> None:
    state = _state(d=N)
    torch.save(state, tmp_path / "sae_final.pt")
    with pytest.raises(UserError, match=r"square.*--format clipsae"):
        interchange.read(tmp_path / "sae_final.pt")
    model = interchange.read(tmp_path / "sae_final.pt", form="clipsae").model
    assert torch.equal(model.W_dec, state["decoder.weight"].T)


def test_a_running_threshold_alone_is_followed_too(tmp_path: Path) -> None:
    state = _state(OVERCOMPLETE) | {"_running_threshold": torch.tensor(0.8)}
    rows = state["dictionary._weights"]
    state["dictionary._weights"] = rows / rows.norm(dim=1, keepdim=True)
    folder = _folder(tmp_path, state, {"nb_concepts": N, "top_k": K})
    imported = interchange.read(folder / "sae.pt")
    assert imported.format == "overcomplete"
    require_same(imported.model, _x(), *_theirs(_x(), state, _pre(_x(), state) >= 0.8))


@pytest.mark.parametrize(
    "text", ["a: &a [x, x]\nactivation: *a\n", "- 1\n", "a: [1\n", "a: !!python/name:os.system\n"]
)
def test_settings_in_yaml_hold_plain_values_alone(tmp_path: Path, text: str) -> None:
    folder = _folder(tmp_path, _state(), None)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config.yaml") as refusal:
        interchange.read(folder)
    assert "\n" not in str(refusal.value)
