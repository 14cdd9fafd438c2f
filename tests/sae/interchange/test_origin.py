"""Where a foreign SAE was trained: its files tell, the registry fills in, who told it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sae import interchange
from sae.interchange.load import look_at
from sae.model.sae import SAE
from tests.support.commands import sae
from tests.support.paths import DATA
from tests.support.sae.peer_fixtures import expected, require_same
from tests.support.sae.stores import write_store

OWN = "its own files"
MSAE = "128_32_TopKReLU_4_False_False_0.0_{}.pth"
PRISMA = {
    "model_class_name": "HookedViT",
    "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "vit_model_cfg": None,
    "hook_point_layer": 9,
    "layer_subtype": "hook_resid_post",
    "context_size": 50,
    "use_patches_only": False,
    "cached_activations_path": "activations/blocks.9",
    "d_in": 6,
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 4},
    "cls_token_only": False,
    "max_grad_norm": 1.0,
    "initialization_method": "encoder_transpose_decoder",
    "normalize_activations": None,
    "image_size": 224,
    "device": {"__type__": "torch.device", "value": "cuda"},
    "dtype": {"__type__": "torch.dtype", "value": "torch.float32"},
    "architecture": "standard",
    "expansion_factor": 4,
    "d_sae": 24,
    "l1_coefficient": 0.3,
    "lp_norm": 1,
}


def _place(name: str) -> Path:
    """Of a fixture's checkpoint."""
    return next(p for p in (DATA / name / "checkpoint", *(DATA / name).glob("*.pt*")) if p.exists())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("saev_legacy_relu", "not known: clip, layer, tokens"),
        ("patchsae_cfg_dataclass", f"clip ViT-B-16/openai, layer 10, tokens all ({OWN})"),
        ("hugofry_cfg_dataclass", f"clip ViT-B-16/openai, layer 10, tokens cls ({OWN})"),
        ("dictlearn_batchtopk", f"layer 10 ({OWN}); not known: clip, tokens"),
        (
            "msae_topk",
            "layer projected, tokens cls (registry: format MSAE); not known: clip",
        ),
        (
            "visaebench_simple_topk",
            "tokens patch (registry: format visaebench); not known: clip, layer",
        ),
        ("sparsify_topk", f"layer 10 ({OWN}); not known: clip, tokens"),
        ("sparsify_topk_fewpos", f"layer 10 ({OWN}); not known: clip, tokens"),
        ("saelens_topk", f"layer 10 ({OWN}); not known: clip, tokens"),
        (
            "ttt_topk_hf",
            "clip ViT-B-16/openai, layer projected, tokens cls, rows unit "
            "(registry: format ttt TopK)",
        ),
        (
            "clipsae_relu",
            "layer projected, tokens cls (registry: format clip_sae); not known: clip",
        ),
        ("overcomplete_topk", "not known: clip, layer, tokens"),
    ],
)
def test_of_each_family_it_is_said_what_is_known_who_told_it_and_what_is_missing(
    name, line
) -> None:
    assert interchange.look(_place(name)).origin.line() == line


def _saev(folder: Path) -> Path:
    shutil.copytree(_place("saev_legacy_relu"), folder)
    told = {"data": {"layer": -2, "patches": "patches"}}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def _visaebench(folder: Path) -> Path:
    shutil.copytree(_place("visaebench_simple_topk"), folder)
    told = json.loads((folder / "config.json").read_text())
    told |= {"backbone": "clip_vitb16", "activation_dir": "/x/activations/clip_vitb16/layer_11"}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def _msae(folder: Path) -> Path:
    folder.mkdir()
    file = MSAE.format("cc3m_ViT-L~14_train_image_2905936_768")
    return Path(shutil.copy(_place("msae_topk"), folder / file))


def _prisma(folder: Path, **changed: object) -> Path:
    folder.mkdir()
    torch.manual_seed(0)
    shapes = {"W_enc": (6, 24), "b_enc": (24,), "W_dec": (24, 6), "b_dec": (6,)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save(tensors, folder / "n_images_2600058.pt")
    (folder / "config.json").write_text(json.dumps(PRISMA | changed))
    return folder


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (_saev, f"layer -2, tokens patch ({OWN}); not known: clip"),
        (
            _visaebench,
            f"clip ViT-B-16/openai, layer 11 ({OWN}); tokens patch (registry: format visaebench)",
        ),
        (
            _msae,
            f"clip ViT-L-14/openai ({OWN}); layer projected, tokens cls (registry: format MSAE)",
        ),
        (_prisma, f"clip ViT-B-32/datacomp_xl_s13b_b90k, layer 9, tokens all ({OWN})"),
    ],
)
def test_what_the_files_of_a_published_sae_tell_is_read(make, line, tmp_path) -> None:
    assert interchange.look(make(tmp_path / "theirs")).origin.line() == line


def test_vit_prisma_as_it_is_published_has_its_own_latents(tmp_path) -> None:
    folder = _prisma(tmp_path / "theirs")
    state, x = torch.load(folder / "n_images_2600058.pt"), torch.randn(20, 6)
    pre = ((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"]).relu()
    latents = torch.zeros_like(pre).scatter(1, pre.topk(4).indices, pre.topk(4).values)
    imported = interchange.read(folder)
    require_same(imported.model, x, latents, latents @ state["W_dec"] + state["b_dec"])
    assert imported.format == "vit_prisma"


def test_what_is_taken_of_a_block_is_no_layer(tmp_path) -> None:
    folder = _prisma(tmp_path / "theirs", layer_subtype="hook_mlp_out", cls_token_only=True)
    imported = interchange.read(folder)
    assert "layer" in imported.origin.missing
    assert imported.origin["tokens"] == "cls"
    assert "trained on hook_mlp_out of a block" in imported.notes[0]


def _registry(path: Path, **entry: object) -> Path:
    lines = (f"{name} = {json.dumps(value)}" for name, value in entry.items())
    path.write_text("[[sae]]\n" + "\n".join(lines) + "\n")
    return path


def test_the_files_go_before_the_registry_and_a_user_before_both_aloud(tmp_path) -> None:
    mine = _registry(tmp_path / "mine.toml", format="patchsae", clip="ViT-B-16/openai", layer=9)
    path = _place("patchsae_cfg_dataclass")
    origin = interchange.look(path, mine).origin
    assert origin["layer"] == "10"
    [note] = origin.notes
    assert f"layer 10 ({OWN}) is taken, not 9 (registry: format patchsae)" in note
    named = interchange.look(path, mine, {"layer": "9"}).origin
    assert named["layer"] == "9"
    assert f"layer 9 (as named) is taken, not 10 ({OWN})" in named.notes[0]


def test_a_repository_of_the_hub_is_known_by_where_its_files_are_kept(hub, tmp_path) -> None:
    hub.add("lab/one", {"sae.pt": (_place("saev_legacy_relu") / "sae.pt").read_bytes()})
    mine = _registry(tmp_path / "mine.toml", repo="lab/*", clip="ViT-B-16/openai", layer=-2)
    before = look_at("hf:lab/one", mine, fetch=False)
    assert (before.origin["clip"], before.d) == ("ViT-B-16/openai", 0)
    assert not hub.asked
    looked = look_at("hf:lab/one", mine)
    line = "clip ViT-B-16/openai, layer 10 (registry: repo lab/*); not known: tokens"
    assert (looked.origin.line(), looked.d, looked.n_latents) == (line, 32, 128)


def test_a_folder_of_another_machine_is_not_taken_for_the_clip_of_a_stranger(hub, tmp_path) -> None:
    model = interchange.read(_place("ttt_topk_pt"), named={"clip": "local-dir:/somewhere"}).model
    model.save(tmp_path / "ours")
    assert look_at(str(tmp_path / "ours")).origin["clip"] == "local-dir:/somewhere"
    names = ("config.json", "sae.safetensors")
    hub.add("ann/ours", {name: (tmp_path / "ours" / name).read_bytes() for name in names})
    assert look_at("ann/ours").origin["clip"] != "local-dir:/somewhere"


def test_import_fills_in_says_and_checks_where_an_sae_was_trained(tmp_path, capsys) -> None:
    x = expected("sparsify_topk")["x"][:, None]
    store = write_store(tmp_path / "store", x, layer="9").path
    mine = _registry(tmp_path / "mine.toml", format="sparsify", clip="tiny", tokens="cls")
    words = ("import", _place("sparsify_topk"), "--registry", mine, "--out", tmp_path / "ours")
    assert sae(*words, "--store", store, "--json", tmp_path / "figures.json") == 0
    said = capsys.readouterr().out
    assert "clip tiny, tokens cls (registry: format sparsify)" in said
    assert f"the store has layer 9, the SAE 10 ({OWN})" in said
    assert "FVU 0." in said
    config = SAE.load(tmp_path / "ours").config
    assert (config.clip, config.layer, config.tokens) == ("tiny", "10", "cls")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["clip"], figures["layer"], figures["tokens"]) == ("tiny", "10", "cls")


def test_import_says_how_to_name_what_nobody_tells(tmp_path, capsys) -> None:
    words = ("import", _place("sparsify_topk"), "--out", tmp_path / "ours")
    assert sae(*words) == 0
    said = capsys.readouterr().out
    assert "--overwrite --clip NAME --tokens cls|patch|all" in said
    assert sae(*words, "--overwrite", "--clip", "tiny", "--tokens", "content") == 0
    assert "clip tiny, tokens patch (as named)" in capsys.readouterr().out
    assert SAE.load(tmp_path / "ours").config.tokens == "patch"
