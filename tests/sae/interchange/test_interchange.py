"""Foreign checkpoints: the peers' own latents come out, and nothing of a hostile file runs."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sae
from sae import interchange
from sae.core.errors import USAGE, Notice, UserError
from sae.interchange import foreign
from sae.interchange.formats import patchsae, sparsify
from sae.model.sae import SAE, Codes, SAEConfig
from sae.untrusted.fields import settings_of
from sae.untrusted.found import Found
from sae.untrusted.pickle_names import Stub
from sae.untrusted.torch_file import torch_dict
from tests.support.paths import DATA
from tests.support.sae.peer_fixtures import require_same

FIXTURES = {
    "ttt_topk_pt": "ttt TopK",
    "ttt_topk_pt_nobias": "ttt TopK",
    "ttt_topk_hf": "ttt TopK",
    "clipsae_relu": "clip_sae",
    "patchsae_cfg_dataclass": "patchsae",
    "hugofry_cfg_dataclass": "patchsae",
    "sparsify_topk": "sparsify",
    "sparsify_topk_fewpos": "sparsify",
}
EVIL = {
    "bad_cfg_mismatch/checkpoint": "33.*32",
    "bad_lfs_pointer": "Git LFS pointer",
    "bad_nan_weights/checkpoint": r"W_dec \(128, 32\) has 1 values that are not finite",
    "bad_shape_mismatch/checkpoint": r"\(127, 32\).*\(128, 32\)",
    "bad_truncated_safetensors/checkpoint": "sae.safetensors is truncated or damaged",
    "pt_cfg_key/checkpoint.pt": "eval",
    "pt_in_config/checkpoint.pt": "posix.system",
    "pt_root/checkpoint.pt": "posix.system",
    "saev/sae.pt": "posix.system",
}
EXPECTED_SHAPES = {"W_enc": (8, 24), "b_enc": (24,), "W_dec": (24, 8), "b_dec": (8,)}


def _checkpoint(name: str) -> Path:
    file = DATA / name / "checkpoint.pt"
    return file if file.exists() else DATA / name / "checkpoint"


def _patchsae_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn(shape) for name, shape in EXPECTED_SHAPES.items()}


@pytest.mark.parametrize("name", FIXTURES)
def test_latents_and_reconstruction_are_the_peers_own(name: str) -> None:
    imported = interchange.read(_checkpoint(name))
    assert imported.format == FIXTURES[name]
    expected = load_file(DATA / name / "expected.safetensors")
    with torch.no_grad():
        x_hat, codes = imported.model(expected["x"])
        assert torch.equal(imported.model.decode(codes), x_hat)
    latents = codes.dense(imported.model.n_latents)
    assert torch.equal(latents != 0, expected["latents"] != 0)
    for ours, theirs in ((latents, expected["latents"]), (x_hat, expected["reconstruction"])):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("name", ["ttt_topk_pt", "ttt_topk_pt_nobias", "ttt_topk_hf"])
def test_ttt_s_latents_are_those_of_unit_rows_whatever_the_rows_length(name: str) -> None:
    model = interchange.read(_checkpoint(name)).model
    expected = load_file(DATA / name / "expected.safetensors")
    length = torch.linspace(0.2, 30, len(expected["x"]))[:, None]
    with torch.no_grad():
        x_hat, codes = model(expected["x"] * length)
    latents = codes.dense(model.n_latents)
    assert torch.equal(latents != 0, expected["latents"] != 0)
    torch.testing.assert_close(latents, expected["latents"], atol=1e-6, rtol=0)
    torch.testing.assert_close(x_hat / length, expected["reconstruction"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("place", EVIL)
def test_a_hostile_or_damaged_file_is_refused_and_nothing_runs(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=EVIL[place]) as refusal:
        interchange.read(DATA / "evil" / place)
    assert refusal.value.exit_code == USAGE
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_an_imported_sae_is_saved_and_loaded_as_ours(tmp_path: Path) -> None:
    imported = interchange.import_sae(_checkpoint("ttt_topk_pt"), tmp_path / "ours")
    x = load_file(DATA / "ttt_topk_pt" / "expected.safetensors")["x"]
    assert torch.equal(sae.load(tmp_path / "ours").encode(x).acts, imported.model.encode(x).acts)
    assert sae.load(tmp_path / "ours").config.source == "ttt TopK"


def test_load_recognises_a_foreign_file() -> None:
    with pytest.warns(Notice, match="trained on raw image features by one project"):
        assert sae.load(_checkpoint("clipsae_relu")).config.source == "clip_sae"


@pytest.mark.parametrize("save", ["gzipped pickle", "old torch", "config dict"])
def test_patchsae_is_read_from_each_way_it_was_saved(tmp_path: Path, save: str) -> None:
    state, path = _patchsae_state(), tmp_path / "sae.pt"
    held: dict[str, Any] = {"cfg": {"d_in": 8}, "state_dict": state}
    if save == "gzipped pickle":
        path = tmp_path / "sae.pkl.gz"
        path.write_bytes(gzip.compress(pickle.dumps(held)))
    elif save == "old torch":
        torch.save(held, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"config": {"d_in": 8}, "state_dict": state}, path)
    x = torch.randn(16, 8)
    latents = interchange.read(path).model.encode(x).dense(24)
    expected = ((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"]).relu()
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["patchsae_cfg_dataclass", "hugofry_cfg_dataclass"])
def test_a_pickled_object_becomes_a_stub_with_its_settings(name: str) -> None:
    config = torch_dict(_checkpoint(name))["cfg"]
    assert isinstance(config, Stub)
    assert config.peer.endswith("sae_training.config.ViTSAERunnerConfig")
    assert settings_of(config)["d_in"] == 32


def test_a_gated_sae_is_a_jumprelu_with_other_numbers() -> None:
    torch.manual_seed(0)
    W, r, gate, mag = torch.randn(24, 8), torch.randn(24), torch.randn(24), torch.randn(24)
    x = torch.randn(200, 8)
    on = (x @ W.T + gate) > 0
    expected = on * (x @ (W * r.exp()[:, None]).T + mag).relu()
    W_enc, b_enc, threshold = foreign.jumprelu_of_gated(W, r, gate, mag)
    pre = x @ W_enc.T + b_enc
    torch.testing.assert_close(pre * (pre > threshold), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm"])
def test_a_row_norm_is_undone_in_the_reconstruction(norm: Any) -> None:
    eye = torch.eye(8)
    both = torch.cat([eye, -eye])
    zeros = torch.zeros(16), torch.zeros(8)
    mirror = foreign.Foreign(
        format="mirror",
        W_enc=both,
        b_enc=zeros[0],
        W_dec=both,
        b_dec=zeros[1],
        rule="relu",
        input_norm=norm,
    )
    model, x = foreign.to_sae(mirror), 5 * torch.randn(10, 8) + 3
    torch.testing.assert_close(model(x).x_hat, x, atol=1e-3, rtol=1e-4)
    assert model.centre(x).square().mean() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm", "centred_layer_norm"])
def test_codes_carry_what_decoding_puts_back_also_when_they_are_changed(norm: str) -> None:
    torch.manual_seed(0)
    model = SAE(SAEConfig(d=8, n_latents=24, k=4, input_norm=norm))
    with torch.no_grad():
        for value in (*model.parameters(), model.mean):
            value.copy_(torch.randn_like(value))
        model.scale.fill_(0.4)
    x = torch.cat([torch.randn(20, 8), 50 * torch.randn(20, 8) + 9])
    codes = model.encode(x)
    assert torch.equal(model.decode(codes), model(x).x_hat)
    changed = codes._replace(acts=2 * codes.acts)
    assert torch.equal(model.decode(changed), model.rebuild(x, changed))
    assert torch.equal(model.decode(model.encode(x, 9)), model.rebuild(x, codes.first(9)))
    with pytest.raises(UserError, match=r"_replace\(acts=...\), or decode with model.rebuild"):
        model.decode(Codes(codes.acts, codes.latents))


def test_sparsify_written_by_us_has_our_latents(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SAE(SAEConfig(d=8, n_latents=24, k=4))
    with torch.no_grad():
        for value in (*model.parameters(), model.mean):
            value.copy_(torch.randn_like(value))
        model.scale.fill_(3.0)
    x = 4 * torch.randn(50, 8)
    back = interchange.read(sparsify.write(model, tmp_path / "out")).model
    torch.testing.assert_close(back.encode(x).dense(24), model.encode(x).dense(24))
    torch.testing.assert_close(back(x).x_hat, model(x).x_hat, atol=1e-4, rtol=1e-5)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "sae.pkl.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(UserError, match="twice its size"):
        torch_dict(tmp_path / "sae.pkl.gz")


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="more values than the 1 stored"):
        torch_dict(tmp_path / "a.pt")


def _flipped(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(min(len(data), 1500))] = rng.randrange(256)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(1, len(data))])


def _tail(data: bytearray, rng: random.Random) -> bytes:
    data[-rng.randint(1, 900)] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("mutate", [_flipped, _cut, _tail])
@pytest.mark.parametrize("kind", ["zip", "old torch", "pickle", "safetensors"])
def test_of_a_mutated_file_only_our_error_escapes(
    tmp_path: Path, kind: str, mutate: Callable[[bytearray, random.Random], bytes]
) -> None:
    rng, path = random.Random(0), tmp_path / "sae.pt"
    held = {"cfg": {"d_in": 8}, "state_dict": _patchsae_state()}
    if kind == "safetensors":
        path = tmp_path / "sae.safetensors"
        source = DATA / "sparsify_topk" / "checkpoint" / "layers.10"
        (tmp_path / "cfg.json").write_bytes((source / "cfg.json").read_bytes())
        whole = (source / "sae.safetensors").read_bytes()
    elif kind == "pickle":
        whole = pickle.dumps(held)
    else:
        torch.save(held, path, _use_new_zipfile_serialization=kind == "zip")
        whole = path.read_bytes()
    n_refused = 0
    for _ in range(150):
        path.write_bytes(mutate(bytearray(whole), rng))
        try:
            form = sparsify if kind == "safetensors" else patchsae
            interchange.read_as(form, Found.at(path))
        except UserError:
            n_refused += 1
    # A flipped bit among safetensors' weights is another weight: nothing tells.
    assert n_refused > 0 or (kind, mutate) == ("safetensors", _tail)


def test_a_folder_with_one_torch_file_stands_for_it(tmp_path: Path) -> None:
    shutil.copytree(DATA / "ttt_topk_pt", tmp_path / "repo" / "weights")
    (tmp_path / "repo" / "README.md").write_text("# An SAE\n")
    direct = interchange.read(DATA / "ttt_topk_pt" / "checkpoint.pt").model
    assert torch.equal(interchange.read(tmp_path / "repo").model.W_dec, direct.W_dec)
    imported = interchange.import_sae(tmp_path / "repo", tmp_path / "out").model
    data = (DATA / "ttt_topk_pt" / "checkpoint.pt").read_bytes()
    assert imported.config.source_sha256 == hashlib.sha256(data).hexdigest()


def test_of_several_torch_files_the_user_names_one(tmp_path: Path) -> None:
    for epoch in ("sae_epoch_1.pt", "sae_final.pt"):
        shutil.copyfile(DATA / "clipsae_relu" / "checkpoint.pt", tmp_path / epoch)
    with pytest.raises(UserError, match=r"2 files .* name one: sae_epoch_1.pt, sae_final.pt"):
        interchange.read(tmp_path)
    assert interchange.read(tmp_path / "sae_final.pt").format == "clip_sae"


def test_groupmax_of_sparsify_keeps_the_largest_of_each_group(tmp_path: Path) -> None:
    source = DATA / "sparsify_topk" / "checkpoint" / "layers.10"
    config = json.loads((source / "cfg.json").read_text()) | {"activation": "groupmax", "k": 8}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    shutil.copy(source / "sae.safetensors", tmp_path)
    state = load_file(source / "sae.safetensors")
    x = load_file(DATA / "sparsify_topk" / "expected.safetensors")["x"]
    pre = (x - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]
    groups = pre.relu().unflatten(1, (8, -1))
    latents = (groups * (groups == groups.amax(2, keepdim=True))).flatten(1)
    x_hat = latents @ state["W_dec"] + state["b_dec"]
    require_same(interchange.read(tmp_path).model, x, latents, x_hat)
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"k": 7}))
    with pytest.raises(UserError, match="n_latents 128 must be a multiple of the k 7 groups"):
        interchange.read(tmp_path)
