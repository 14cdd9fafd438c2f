"""dictionary_learning: every class gives the latents of its own encode()."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sae import interchange
from sae.core.errors import USAGE, UserError
from tests.support.sae.peer_fixtures import DATA, expected, require_same

D, N, K = 8, 24, 3
State = dict[str, Tensor]
GROUPS = torch.tensor([4, 8, 12])


def _linear(**more: Tensor) -> State:
    torch.manual_seed(0)
    weights = {"encoder.weight": torch.randn(N, D), "decoder.weight": torch.randn(D, N)}
    return weights | {"encoder.bias": torch.randn(N)} | more


def _plain(**more: Tensor) -> State:
    torch.manual_seed(0)
    weights = {"W_enc": torch.randn(D, N), "W_dec": torch.randn(N, D)}
    return weights | {"b_enc": torch.randn(N), "b_dec": torch.randn(D)} | more


def _topk_state(threshold: float = 0.8) -> State:
    counts = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    return _linear(b_dec=torch.randn(D)) | counts


def _matryoshka_state(threshold: float = 0.8) -> State:
    counts = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    return _plain(group_sizes=GROUPS) | counts


def _gated_state() -> State:
    state = _linear(r_mag=torch.randn(N), gate_bias=torch.randn(N), mag_bias=torch.randn(N))
    del state["encoder.bias"]
    return state | {"decoder_bias": torch.randn(D)}


def _jumprelu_state() -> State:
    return _plain(threshold=torch.rand(N) - 0.2)


def _pre(s: State, x: Tensor, bias: str = "") -> Tensor:
    """W_enc (x - bias) + b_enc, of either layout."""
    x = x - s[bias] if bias else x
    if "W_enc" in s:
        return x @ s["W_enc"] + s["b_enc"]
    return x @ s["encoder.weight"].T + s["encoder.bias"]


def _largest(pre: Tensor) -> Tensor:
    values, at = pre.relu().topk(K, dim=1)
    return torch.zeros_like(pre).scatter(1, at, values)


def _exceeding(s: State, pre: Tensor) -> Tensor:
    return pre.relu() * (pre.relu() > s["threshold"])


def _gates(s: State, x: Tensor) -> Tensor:
    pre = (x - s["decoder_bias"]) @ s["encoder.weight"].T
    magnitude = (s["r_mag"].exp() * pre + s["mag_bias"]).relu()
    return (pre + s["gate_bias"] > 0) * magnitude


MATHS: dict[str, tuple[State, Callable[[State, Tensor], Tensor]]] = {
    "AutoEncoder": (_linear(bias=torch.randn(D)), lambda s, x: _pre(s, x, "bias").relu()),
    "AutoEncoderNew": (_linear() | {"decoder.bias": torch.ones(D)}, lambda s, x: _pre(s, x).relu()),
    "GatedAutoEncoder": (_gated_state(), _gates),
    "JumpReluAutoEncoder": (_jumprelu_state(), lambda s, x: _exceeding(s, _pre(s, x))),
    "AutoEncoderTopK": (_topk_state(), lambda s, x: _largest(_pre(s, x, "b_dec"))),
    "BatchTopKSAE": (_topk_state(), lambda s, x: _exceeding(s, _pre(s, x, "b_dec"))),
    "MatryoshkaBatchTopKSAE": (
        _matryoshka_state(),
        lambda s, x: _exceeding(s, _pre(s, x, "b_dec")),
    ),
}
"""What each class stores, and what its encode() computes."""


def _decoded(s: State, latents: Tensor) -> Tensor:
    bias = next(s[name] for name in ("b_dec", "bias", "decoder.bias", "decoder_bias") if name in s)
    return latents @ (s["W_dec"] if "W_dec" in s else s["decoder.weight"].T) + bias


def _save(folder: Path, held: Any, trainer: dict[str, Any] | None, name: str = "ae.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(held, folder / name)
    if trainer is not None:
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dictlearn_standard", "AutoEncoder"),
        ("dictlearn_topk", "AutoEncoderTopK"),
        ("dictlearn_batchtopk", "BatchTopKSAE"),
    ],
)
@pytest.mark.parametrize("place", ["checkpoint", "checkpoint/ae.pt"])
def test_latents_and_reconstruction_are_the_peers_own(name: str, kind: str, place: str) -> None:
    imported = interchange.read(DATA / name / place)
    assert imported.format == f"dictionary_learning {kind}"
    then = expected(name)
    require_same(imported.model, then["x"], then["latents"], then["reconstruction"])


@pytest.mark.parametrize("kind", MATHS)
def test_each_class_has_the_latents_of_its_encode(tmp_path: Path, kind: str) -> None:
    state, encode = MATHS[kind]
    _save(tmp_path, state, {"dict_class": kind, "k": K, "activation_dim": D, "dict_size": N})
    x = 2 * torch.randn(200, D)
    imported = interchange.read(tmp_path)
    assert imported.format == f"dictionary_learning {kind}"
    latents = encode(state, x)
    require_same(imported.model, x, latents, _decoded(state, latents))


@pytest.mark.parametrize("kind", [kind for kind in MATHS if kind != "BatchTopKSAE"])
def test_a_class_is_known_by_its_tensors_where_no_config_tells_it(
    tmp_path: Path, kind: str
) -> None:
    state, encode = MATHS[kind]
    x = torch.randn(100, D)
    imported = interchange.read(_save(tmp_path, state, None) / "ae.pt")
    assert imported.format == f"dictionary_learning {kind}"
    require_same(imported.model, x, encode(state, x))
    assert bool(imported.notes) == (kind == "AutoEncoderTopK")


@pytest.mark.parametrize("folder", ["saes_batch_top_k/trainer_0", "BatchTopK-16k"])
def test_a_batch_topk_without_a_config_is_known_by_its_path(tmp_path: Path, folder: str) -> None:
    state, encode = MATHS["BatchTopKSAE"]
    x = torch.randn(100, D)
    imported = interchange.read(_save(tmp_path / folder, state, None))
    assert "read as BatchTopKSAE by its path" in imported.notes[0]
    require_same(imported.model, x, encode(state, x))


def test_a_plain_pair_of_linear_layers_under_another_name_is_not_taken(tmp_path: Path) -> None:
    state, _ = MATHS["AutoEncoderNew"]
    _save(tmp_path, state, None, "sae_final.pt")
    assert interchange.read(tmp_path / "sae_final.pt").format == "clip_sae"


def test_a_matryoshka_keeps_its_groups_as_prefixes(tmp_path: Path) -> None:
    trainer = {"dict_class": "MatroyshkaBatchTopKSAE"}  # as it was spelt at first
    folder = _save(tmp_path, _matryoshka_state(), trainer)
    assert interchange.read(folder).model.config.prefixes == (4, 12, 24)


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_threshold_that_was_never_learned_keeps_every_positive_latent(
    tmp_path: Path, kind: str
) -> None:
    state = {**MATHS[kind][0], "threshold": torch.tensor(-1.0)}
    imported = interchange.read(_save(tmp_path, state, {"dict_class": kind}))
    assert "never learned" in imported.notes[0]
    x = torch.randn(100, D)
    require_same(imported.model, x, _pre(state, x, "b_dec").relu())


def test_an_old_topk_has_its_k_in_the_config_alone(tmp_path: Path) -> None:
    state = {name: value for name, value in _topk_state().items() if name not in ("k", "threshold")}
    encoded = _largest(_pre(state, x := torch.randn(100, D), "b_dec"))
    trainer = {"dict_class": "AutoEncoderTopK", "k": K}
    require_same(interchange.read(_save(tmp_path / "a", state, trainer)).model, x, encoded)
    rows = {**state, "decoder": state["decoder.weight"].T.contiguous()}
    del rows["decoder.weight"]
    model = interchange.read(_save(tmp_path / "b", rows, trainer)).model
    require_same(model, x, encoded, _decoded(state, encoded))


def test_a_compiled_module_has_the_same_tensors(tmp_path: Path) -> None:
    state, encode = MATHS["AutoEncoderTopK"]
    held = {f"_orig_mod.{name}": value for name, value in state.items()}
    x = torch.randn(50, D)
    require_same(interchange.read(_save(tmp_path, held, None)).model, x, encode(state, x))


@pytest.mark.parametrize("kind", MATHS)
def test_a_backup_of_training_is_scaled_back_to_raw_embeddings(tmp_path: Path, kind: str) -> None:
    factor, (state, encode) = 2.5, MATHS[kind]
    held = {
        "step": 100,
        "ae": state,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]},
        "config": {"dict_class": kind, "k": K, "norm_factor": factor},
        "norm_factor": factor,
    }
    x = torch.randn(200, D)
    latents = factor * encode(state, x / factor)
    model = interchange.read(_save(tmp_path, held, None)).model
    x_hat = factor * _decoded(state, latents / factor)
    require_same(model, x, latents, x_hat)


def test_a_finished_sae_is_not_scaled_again(tmp_path: Path) -> None:
    state, encode = MATHS["AutoEncoder"]
    folder = _save(tmp_path, state, {"dict_class": "AutoEncoder", "norm_factor": 2.5})
    x = torch.randn(50, D)
    require_same(interchange.read(folder).model, x, encode(state, x))


@pytest.mark.parametrize("below", ["checkpoints", "autoencodertopk"])
def test_a_checkpoint_of_training_finds_the_config_above_it(tmp_path: Path, below: str) -> None:
    state, encode = MATHS["BatchTopKSAE"]
    _save(tmp_path, _topk_state(9.0), {"dict_class": "BatchTopKSAE"})
    _save(tmp_path / below, state, None, "ae_100.pt")
    x = torch.randn(50, D)
    imported = interchange.read(tmp_path / below / "ae_100.pt")
    assert imported.format == "dictionary_learning BatchTopKSAE"
    require_same(imported.model, x, encode(state, x))
    of_folder = interchange.read(tmp_path).model  # the finished one, not the checkpoint
    assert float(of_folder.threshold) == pytest.approx(9)


def test_several_saes_are_asked_to_be_named(tmp_path: Path) -> None:
    for number in range(2):
        _save(tmp_path / f"trainer_{number}", _topk_state(), None)
    with pytest.raises(UserError, match=r"2 SAEs \(trainer_0/ae.pt, trainer_1/ae.pt\); name one"):
        interchange.read(tmp_path)


def test_a_file_of_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    state, encode = MATHS["AutoEncoder"]
    held = {name: value.bfloat16() for name, value in state.items()}
    x = torch.randn(50, D)
    latents = encode({name: value.float() for name, value in held.items()}, x)
    require_same(interchange.read(_save(tmp_path, held, None)).model, x, latents)


@pytest.mark.parametrize(
    ("more", "trainer", "message"),
    [
        ({}, {"dict_class": "CrossCoder"}, "'CrossCoder' has no counterpart"),
        ({}, {"dict_class": "AutoEncoderTopK", "k": 5}, "tell k 5, but the tensors have 3"),
        ({}, {"dict_class": "AutoEncoderTopK", "dict_size": 25}, "dict_size 25.*have 24"),
        ({"act_mean": torch.zeros(D)}, {"dict_class": "AutoEncoderTopK"}, "also holds act_mean"),
        ({"b_dec": torch.zeros(D + 1)}, {"dict_class": "AutoEncoderTopK"}, r"\(9,\).*\(8,\)"),
        ({}, {"dict_class": "GatedAutoEncoder"}, "lacks the tensor 'r_mag'"),
    ],
)
def test_what_cannot_be_right_is_refused(
    tmp_path: Path, more: State, trainer: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        interchange.read(_save(tmp_path, _topk_state() | more, trainer))
    assert refusal.value.exit_code == USAGE


def _referee(kind: str) -> nn.Module:
    pytest.importorskip("dictionary_learning")
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

    if kind == "MatryoshkaBatchTopKSAE":
        made = matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(D, N, K, GROUPS.tolist())
    elif kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        module = top_k if kind == "AutoEncoderTopK" else batch_top_k
        made = getattr(module, kind)(D, N, K)
    else:
        made = getattr(dictionary, kind)(D, N)
    assert isinstance(made, nn.Module)
    return made


@pytest.mark.parametrize("kind", MATHS)
def test_the_original_library_agrees(tmp_path: Path, kind: str) -> None:
    theirs = _referee(kind)
    theirs.load_state_dict(MATHS[kind][0])
    x = 2 * torch.randn(200, D)
    with torch.no_grad():
        x_hat, latents = theirs(x), theirs.encode(x)
    folder = _save(tmp_path, theirs.state_dict(), {"dict_class": kind})
    require_same(interchange.read(folder).model, x, latents, x_hat)
