from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.core.errors import UserError
from sae.interchange.load import load
from sae.model.match import require_match
from sae.model.sae import SAE, Codes, SAEConfig
from sae.model.sparsity import RULES, RULES_WITH_K, BatchTopK, TopK


@pytest.fixture
def model() -> SAE:
    """d 5, 12 latents, k 3, with every parameter and buffer away from its default."""
    generator = torch.Generator().manual_seed(0)
    model = SAE(SAEConfig(d=5, n_latents=12, k=3, clip="tiny", layer="projected", tokens="cls"))
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator))
        model.scale.fill_(0.25)
    model.normalise_decoder()
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(1))


def dense_reference(pre: Tensor, k: int) -> Tensor:
    """ReLU, then all but the k largest of each row to zero."""
    acts = pre.clamp(min=0)
    order = acts.argsort(dim=1, descending=True, stable=True)
    return acts.scatter(1, order[:, k:], 0)


def test_codes_hold_the_largest_activations_first() -> None:
    codes = TopK(2).keep(torch.tensor([[0.5, -1.0, 3.0, 2.0]]))
    assert codes.acts.tolist() == [[3.0, 2.0]]
    assert codes.latents.tolist() == [[2, 3]]


def test_codes_are_padded_with_zero_where_fewer_fire() -> None:
    pre = torch.tensor([[-1.0, 4.0, -3.0], [-1.0, -2.0, -3.0]])
    codes = TopK(2).keep(pre)
    assert codes.acts.tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert codes.dense(3).tolist() == [[0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]


def test_padding_does_not_erase_an_activation_of_the_same_latent() -> None:
    codes = Codes(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 1]]))
    assert codes.dense(3).tolist() == [[0.0, 2.0, 0.0]]


def test_encode_equals_the_dense_reference(model: SAE, x: Tensor) -> None:
    pre = ((x - model.mean) / model.scale - model.b_dec) @ model.W_enc.T + model.b_enc
    torch.testing.assert_close(model.encode_pre(x), pre)
    torch.testing.assert_close(model.encode(x).dense(12), dense_reference(pre, 3))


def test_ties_keep_exactly_k_different_latents_of_the_right_size() -> None:
    pre = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0, 1.0]]).repeat(5, 1)
    codes = TopK(3).keep(pre)
    assert torch.equal(codes.acts, dense_reference(pre, 3).sort(descending=True).values[:, :3])
    assert torch.equal(pre.gather(1, codes.latents), codes.acts)
    assert all(len(set(row)) == 3 for row in codes.latents.tolist())


def test_decode_equals_the_dense_product_in_raw_scale(model: SAE, x: Tensor) -> None:
    codes = model.encode(x)
    expected = (codes.dense(12) @ model.W_dec + model.b_dec) * model.scale + model.mean
    torch.testing.assert_close(model.decode(codes), expected)
    torch.testing.assert_close(model(x).x_hat, expected)


def test_float16_embeddings_are_encoded_in_float32(model: SAE, x: Tensor) -> None:
    codes = model.encode(x.half())
    assert codes.acts.dtype == torch.float32
    torch.testing.assert_close(codes.acts, model.encode(x.half().float()).acts)


def test_embeddings_of_another_width_are_refused(model: SAE) -> None:
    with pytest.raises(ValueError, match=r"expected embeddings \(n, 5\), got \(2, 6\)"):
        model.encode(torch.zeros(2, 6))


def test_the_projected_gradient_has_no_part_along_the_decoder_rows(model: SAE, x: Tensor) -> None:
    (model(x).x_hat - x).square().sum().backward()
    gradient = model.W_dec.grad
    assert gradient is not None
    before = (gradient * model.W_dec).sum(1).detach()
    assert before.abs().max() > 1e-3
    model.project_decoder_gradient()
    along = (gradient * model.W_dec).sum(1)
    assert along.abs().max() < 1e-5 * before.abs().max()


def test_a_saved_and_loaded_model_gives_identical_codes(
    model: SAE, x: Tensor, tmp_path: Path
) -> None:
    model.save(tmp_path / "sae")
    loaded = load(tmp_path / "sae")
    assert loaded.config == model.config
    assert torch.equal(loaded.encode(x).acts, model.encode(x).acts)
    assert torch.equal(loaded.encode(x).latents, model.encode(x).latents)
    assert torch.equal(loaded(x).x_hat, model(x).x_hat)
    assert sorted(path.name for path in (tmp_path / "sae").iterdir()) == [
        "config.json",
        "sae.safetensors",
    ]


def test_a_save_that_fails_leaves_no_config(
    model: SAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path)
    monkeypatch.setattr(
        "safetensors.torch.save_file", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        model.save(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(tmp_path)


def test_loading_names_what_is_wrong(model: SAE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "sae.safetensors").read_bytes()

    (tmp_path / "config.json").write_text(json.dumps(config | {"n_latents": 13}))
    with pytest.raises(UserError, match=r"W_dec has shape \(12, 5\).*asks for \(13, 5\)"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 2}))
    with pytest.raises(UserError, match="format 2"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"activation": "gelu"}))
    with pytest.raises(UserError, match="'gelu' is not known; known: 'topk', 'signed_topk'"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"activation": "jumprelu"}))
    with pytest.raises(UserError, match=r"log_threshold has shape None.*asks for \(12,\)"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "sae.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path)
    (tmp_path / "sae.safetensors").unlink()
    with pytest.raises(UserError, match=r"sae\.safetensors is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 13}, "k 13 is larger than n_latents 12"),
        ({"k": 0}, "at least 1"),
        ({"k": 0, "activation": "batch_topk"}, "at least 1"),
        ({"k": -1, "activation": "relu"}, "at least 1"),
        ({"n_latents": 0}, "at least 1"),
        ({"prefixes": (4, 8)}, "must rise, from 1 at least to n_latents 12"),
        ({"prefixes": (8, 4, 12)}, "must rise"),
        ({"prefixes": (4, 4, 12)}, "must rise"),
        ({"prefixes": (0, 12)}, "must rise"),
    ],
)
def test_an_impossible_shape_is_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SAEConfig(**({"d": 5, "n_latents": 12, "k": 3} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", RULES)
def test_every_rule_survives_saving(activation: str, x: Tensor, tmp_path: Path) -> None:
    k = 3 if activation in RULES_WITH_K else 0
    model = SAE(SAEConfig(d=5, n_latents=12, k=k, activation=activation, prefixes=(4, 12)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=generator) - 0.3)
        model.scale.fill_(0.25)
    model.save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    codes, again = model.encode(x), loaded.encode(x)
    assert torch.equal(codes.acts, again.acts)
    assert torch.equal(codes.latents, again.latents)
    assert codes.acts.any()
    changed = SAE.load(tmp_path)
    for name in ("threshold", "log_threshold"):
        if name in changed.state_dict():
            changed.state_dict()[name].add_(0.5)
            assert not torch.equal(changed.encode(x).dense(12), codes.dense(12))


def test_the_rules_with_thresholds_are_the_only_ones_that_have_them() -> None:
    names = {
        activation: set(SAE(SAEConfig(d=2, n_latents=3, k=1, activation=activation)).state_dict())
        for activation in RULES
    }
    plain = {"W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale"}
    assert names["topk"] == names["signed_topk"] == names["relu"] == plain
    assert names["batch_topk"] == plain | {"threshold"}
    assert names["jumprelu"] == plain | {"log_threshold"}


def test_a_config_from_before_the_other_rules_still_loads(
    model: SAE, x: Tensor, tmp_path: Path
) -> None:
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"format": 1, "d": 5, "n_latents": 12, "k": 3, "activation": "topk", "clip": "tiny", '
        '"layer": "projected", "tokens": "cls", "store": "", "holdout": 0.1, "seed": 0, '
        '"version": "0.1.0"}'
    )
    loaded = load(tmp_path)
    assert loaded.sparsity == TopK(3)
    assert loaded.config.prefixes == ()
    assert torch.equal(loaded.encode(x).acts, model.encode(x).acts)


def test_a_threshold_moves_with_the_model() -> None:
    model = SAE(SAEConfig(d=2, n_latents=3, k=1, activation="batch_topk")).double()
    assert isinstance(model.sparsity, BatchTopK)
    model.sparsity.learn(torch.tensor(2.0, dtype=torch.float64))
    assert model.threshold == 2
    assert model.threshold.dtype == torch.float64


@pytest.mark.parametrize("activation", RULES)
def test_a_prefix_encodes_as_the_whole_without_the_later_latents(
    activation: str, x: Tensor
) -> None:
    k = 3 if activation in RULES_WITH_K else 0
    model = SAE(SAEConfig(d=5, n_latents=12, k=k, activation=activation)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.W_enc.copy_(torch.randn(12, 5, generator=generator))
        model.W_dec.copy_(torch.randn(12, 5, generator=generator))
    whole = model.encode(x).dense(12)
    part = model.encode(x, n_latents=4)
    assert torch.equal(part.dense(12)[:, :4], whole[:, :4])
    assert whole[:, :4].any()
    assert not part.dense(12)[:, 4:].any()
    assert (part.acts.diff(dim=1) <= 0).all()
    expected = whole[:, :4] @ model.W_dec[:4] + model.b_dec
    torch.testing.assert_close(model.decode(part), expected)
    assert torch.equal(model.encode(x, n_latents=12).dense(12), whole)


def test_a_store_of_another_layer_is_refused_and_unknown_origin_is_not() -> None:
    config = SAEConfig(d=5, n_latents=12, k=3, clip="tiny", layer="3", tokens="all")
    info = SimpleNamespace(d=5, clip="tiny", layer="3", tokens="patch", rows="raw")
    require_match(config, info)  # type: ignore[arg-type]
    require_match(replace(config, clip="", layer=""), info)  # type: ignore[arg-type]
    for name, value in (("d", 6), ("clip", "other"), ("layer", "projected")):
        other = SimpleNamespace(**(vars(info) | {name: value}))
        with pytest.raises(UserError, match=f"{name} .* but the store has"):
            require_match(config, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("theirs", ["raw", "unit", ""])
@pytest.mark.parametrize("ours", ["raw", "unit", "", "before it was written down"])
def test_unit_and_raw_rows_are_not_taken_for_each_other(ours: str, theirs: str) -> None:
    written = "" if ours.startswith("before") else ours
    origin = "x" if ours else ""  # of another lab's SAE nobody knows
    config = SAEConfig(d=5, n_latents=12, k=3, clip="tiny" * bool(ours), store=origin, rows=written)
    info = SimpleNamespace(d=5, clip="tiny", layer="", rows=theirs)
    is_unit = {"": None, "raw": False, "unit": True}.get(ours, False)
    if "" in (ours, theirs) or is_unit == (theirs == "unit"):
        require_match(config, info)  # type: ignore[arg-type]
    else:
        remedy = "embed again with --normalise" if is_unit else "again with no --normalise"
        with pytest.raises(UserError, match=remedy):
            require_match(config, info)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale"])
def test_weights_that_are_no_numbers_do_not_load(
    name: str, bad: float, model: SAE, tmp_path: Path
) -> None:
    model.save(tmp_path)
    state = load_file(tmp_path / "sae.safetensors")
    state[name].view(-1)[-1] = bad
    save_file(state, tmp_path / "sae.safetensors")
    with pytest.raises(UserError, match=rf"sae.safetensors: {name} .* 1 values .* not finite"):
        SAE.load(tmp_path)


def test_a_scale_that_is_not_above_0_does_not_load(model: SAE, tmp_path: Path) -> None:
    with torch.no_grad():
        model.scale.zero_()
    model.save(tmp_path)
    with pytest.raises(UserError, match="scale is 0, not above 0"):
        SAE.load(tmp_path)
