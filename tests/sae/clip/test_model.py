import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sae.clip.class_vectors import class_vectors
from sae.clip.model import Clip, load_clip, resolve_device
from sae.core.errors import UserError
from tests.support.sae.small_clip import PREPROCESS, RESNET, VIT, small_clip

VIT_REGISTERS = {"timm_model_name": "test_vit2", "timm_pool": "avg", "image_size": 160}
VIT_CLS_REGISTERS = {
    "timm_model_name": "sae_test_registers",
    "timm_pool": "token",
    "image_size": 160,
}
VIT_TIMM = {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}
CLS_LESS = {"timm_model_name": "sae_test_cls_less", "timm_pool": "avg", "image_size": [96, 160]}
SIGLIP = {
    "timm_model_name": "sae_test_cls_less",
    "timm_pool": "map",
    "timm_proj": "none",
    "image_size": 64,
}
WIDE = {**VIT, "image_size": [48, 80]}
SWIN = {"timm_model_name": "sae_test_swin", "timm_pool": "avg", "image_size": 64}
CONVNEXT = {"timm_model_name": "test_convnext", "timm_pool": "avg", "image_size": 160}


@timm.models.register_model
def sae_test_registers(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """CLS, two registers, patches."""
    made: torch.nn.Module = timm.create_model("test_vit", reg_tokens=2, **options)
    return made


@timm.models.register_model
def sae_test_cls_less(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """Patches alone, as SigLIP's towers have them."""
    options = {"global_pool": "avg", **options, "class_token": False}
    made: torch.nn.Module = timm.create_model("test_vit", **options)
    return made


@timm.models.register_model
def sae_test_swin(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """Windows that shift, and patches that are merged on the way."""
    small = {"depths": (1, 1), "embed_dim": 16, "num_heads": (1, 2), "window_size": 4}
    small |= {"img_size": 64}
    name = "swin_tiny_patch4_window7_224"
    made: torch.nn.Module = timm.create_model(name, **{**small, **options})
    return made


@pytest.fixture(scope="module")
def towers(folder: Path, clip: Clip) -> dict[str, Clip]:
    visions: dict[str, dict[str, Any]] = {
        "average": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
        "attention": {**VIT, "attentional_pool": True, "attn_pooler_queries": 4},
        "timm": VIT_TIMM,
        "registers": VIT_REGISTERS,
        "cls and registers": VIT_CLS_REGISTERS,
        "cls-less": CLS_LESS,
        "wide": WIDE,
        "swin": SWIN,
        "resnet": RESNET,
        "convnext": CONVNEXT,
    }
    made = {n: load_clip(small_clip(folder / n, v), "cpu") for n, v in visions.items()}
    made["siglip"] = load_clip(small_clip(folder / "siglip", SIGLIP, siglip=True), "cpu")
    return {"vit": clip, **made}


def pixels_for(clip: Clip, n: int = 3) -> Tensor:
    size = clip._model.visual.preprocess_cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn((n, 3, height, width), generator=torch.Generator().manual_seed(0))


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def says(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_folder_is_loaded_with_its_own_vocabulary(clip: Clip, folder: Path) -> None:
    assert clip.name == f"local-dir:{folder / 'vit'}"
    assert (clip.d_embed, clip.n_blocks, clip.image_size, clip.grid()) == (32, 3, 64, (4, 4))
    assert clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    assert clip._tokenizer.vocab_size == clip._model.vocab_size < 49408


def test_float16_weights_are_computed_with_in_float32(clip: Clip, folder: Path) -> None:
    stored = load_file(folder / "vit" / "open_clip_model.safetensors")["visual.proj"]
    assert stored.dtype == torch.float16
    assert clip._model.visual.proj.dtype == torch.float32
    assert torch.equal(clip._model.visual.proj, stored.float())
    assert not clip._model.training
    assert not any(p.requires_grad for p in clip._model.parameters())


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (97, 41), (33, 200), (1, 1)])
def test_preprocessing_is_open_clip_s_own_bit_for_bit(
    mode: str, size: tuple[int, int], folder: Path
) -> None:
    from sae.clip.model import Preprocess

    settings = open_clip.transform.PreprocessCfg(size=64, **{**PREPROCESS, "resize_mode": mode})
    own = open_clip.transform.image_transform_v2(settings, is_train=False)
    ours = pickle.loads(pickle.dumps(Preprocess(own)))  # as a worker gets it
    assert torch.equal(ours(picture(*size)), own(picture(*size)))


def test_preprocessing_a_batch_equals_one_at_a_time(clip: Clip) -> None:
    images = [picture(64 + i, 80) for i in range(3)]
    whole = torch.from_numpy(np.stack([clip.preprocess.resize(i) for i in images]))
    together = clip.preprocess.normalise(whole)
    assert torch.equal(together, torch.stack([clip.preprocess(i) for i in images]))
    assert whole.dtype == torch.uint8


@pytest.mark.parametrize(
    "tower",
    ["vit", "average", "attention", "timm", "registers", "siglip", "resnet", "convnext", "swin"],
)
def test_projected_is_encode_image_for_every_tower(tower: str, towers: dict[str, Clip]) -> None:
    clip = towers[tower]
    pixels = pixels_for(clip)
    with torch.no_grad():
        known = clip._model.encode_image(pixels)
    got = clip.embed_images(pixels)
    assert got.shape == (3, 1, clip.d_embed)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    assert torch.equal(got[:, 0], known)
    assert torch.allclose(clip.image_features(pixels), F.normalize(known, dim=-1))
    assert clip.width("projected") == clip.d_embed == (64 if tower == "siglip" else 32)


@pytest.mark.parametrize(
    "tower", ["vit", "wide", "average", "attention", "timm", "cls-less", "siglip"]
)
def test_every_block_s_tokens_are_what_leaves_the_block_in_one_pass_over_the_network(
    tower: str, towers: dict[str, Clip]
) -> None:
    clip = towers[tower]
    blocks = clip._blocks().blocks
    seen: list[Tensor] = []
    computed: list[int] = []
    hooks = [block.register_forward_hook(lambda *a: seen.append(a[2])) for block in blocks]
    projected = clip.embed_images(pixels_for(clip))
    for hook in hooks:
        hook.remove()
    hooks = [block.mlp.register_forward_hook(lambda *_: computed.append(1)) for block in blocks]
    layers = [str(block) for block in range(clip.n_blocks)]
    together = clip.run_through(pixels_for(clip), [*layers[1:], "projected", "0"])
    for hook in hooks:
        hook.remove()
    assert len(computed) == clip.n_blocks
    tokens = "all" if clip._blocks().has_cls else "patch"
    for halfway in together:
        known = projected if halfway.layer == "projected" else seen[int(halfway.layer)]
        assert torch.allclose(clip.tokens_at(halfway, tokens), known, atol=1e-6)
    for layer in layers:
        alone = clip.embed_images(pixels_for(clip), layer, tokens)
        assert torch.allclose(alone, seen[int(layer)], atol=1e-6)


@pytest.mark.parametrize("tower", ["wide", "cls-less"])
def test_a_patch_is_token_row_times_columns_plus_column(
    tower: str, towers: dict[str, Clip]
) -> None:
    clip = towers[tower]
    pixels = pixels_for(clip, 1)
    h, w = clip.grid()
    side = pixels.shape[-1] // w
    assert h != w
    assert (h * side, w * side) == pixels.shape[-2:]
    changed = pixels.clone()
    changed[:, :, side : 2 * side, 3 * side : 4 * side] += 3  # row 1, column 3
    before, after = (clip.embed_images(p, "0", "patch")[0] for p in (pixels, changed))
    assert int((after - before).norm(dim=-1).argmax()) == w + 3


def test_blocks_that_are_no_row_of_tokens_are_refused_by_name(towers: dict[str, Clip]) -> None:
    known = {"resnet": "ModifiedResNet", "convnext": "ConvNeXt", "swin": "SwinTransformer"}
    for tower, name in known.items():
        for layer in ("0", "-1"):
            message = says(
                lambda t=tower, la=layer: towers[t].embed_images(pixels_for(towers[t]), la)
            )  # type: ignore[misc]
            assert f"its {name} is no row of tokens" in message
            assert "'projected' only" in message


def test_a_network_with_other_tokens_than_its_grid_has_is_refused(towers: dict[str, Clip]) -> None:
    odd = copy.copy(towers["siglip"])
    odd._tower = replace(odd._blocks(), grid=(4, 5))
    said = says(lambda: odd.embed_images(pixels_for(odd), "1", "patch"))
    assert "16 tokens at block 1, not 20" in said


@pytest.mark.parametrize("tower", ["vit", "timm"])
def test_all_is_cls_and_then_the_patches(tower: str, towers: dict[str, Clip]) -> None:
    clip = towers[tower]
    cls, patch, whole = (
        clip.embed_images(pixels_for(clip), "1", t) for t in ("cls", "patch", "all")
    )
    h, w = clip.grid()
    assert patch.shape == (3, h * w, clip.width("1"))
    assert torch.equal(whole, torch.cat([cls, patch], dim=1))
    for tokens, x in (("cls", cls), ("patch", patch), ("all", whole)):
        assert clip.tokens_per_image("1", tokens) == x.shape[1]


def test_registers_are_neither_cls_nor_patches(towers: dict[str, Clip]) -> None:
    clip = towers["cls and registers"]
    assert clip._tower is not None
    assert clip._tower.n_prefix == 3
    seen: list[Tensor] = []
    hook = clip._tower.blocks[1].register_forward_hook(lambda *a: seen.append(a[2]))
    clip.embed_images(pixels_for(clip))
    hook.remove()
    without = torch.cat([seen[0][:, :1], seen[0][:, 3:]], dim=1)
    assert torch.allclose(clip.embed_images(pixels_for(clip), "1", "all"), without, atol=1e-6)
    assert torch.equal(clip.embed_images(pixels_for(clip), "1", "cls")[:, 0], seen[0][:, 0])


def test_the_last_block_s_cls_normed_and_projected_is_the_embedding(clip: Clip) -> None:
    visual = clip._model.visual
    cls = clip.embed_images(pixels_for(clip), "-1", "cls")[:, 0]
    by_hand = visual.ln_post(cls) @ visual.proj
    assert torch.allclose(by_hand, clip.embed_images(pixels_for(clip))[:, 0], atol=1e-5)


CASES = [
    ("vit", "0", "cls"),
    ("vit", "1", "patch"),
    ("vit", "2", "all"),
    ("vit", "projected", "cls"),
    ("average", "2", "all"),
    ("attention", "1", "patch"),
    ("timm", "3", "all"),
    ("registers", "2", "patch"),
    ("siglip", "0", "patch"),
    ("siglip", "5", "patch"),
    ("cls-less", "4", "patch"),
    ("cls and registers", "2", "all"),
    ("resnet", "projected", "cls"),
]


@pytest.mark.parametrize(("tower", "layer", "tokens"), CASES)
def test_an_edit_gets_what_embed_images_gives_and_putting_it_back_changes_nothing(
    tower: str, layer: str, tokens: str, towers: dict[str, Clip]
) -> None:
    clip = towers[tower]
    pixels = pixels_for(clip)
    given: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        given.append(x.clone())
        return x

    features = clip.image_features(pixels, layer, tokens, keep)
    assert torch.allclose(features, clip.image_features(pixels), atol=1e-6)
    assert torch.allclose(given[0], clip.embed_images(pixels, layer, tokens), atol=1e-6)


@pytest.mark.parametrize(("tower", "layer", "tokens"), CASES)
def test_an_edit_that_changes_the_tokens_changes_the_features(
    tower: str, layer: str, tokens: str, towers: dict[str, Clip]
) -> None:
    clip = towers[tower]
    pixels = pixels_for(clip)
    noise = torch.randn(clip.embed_images(pixels, layer, tokens).shape)
    features = clip.image_features(pixels, layer, tokens, lambda x: x + noise)
    assert (features - clip.image_features(pixels)).abs().max() > 1e-3
    assert torch.allclose(features.norm(dim=-1), torch.ones(3))
    assert torch.equal(clip.image_features(pixels), clip.image_features(pixels, edit=None))


def test_an_edit_of_the_last_block_s_cls_is_normed_and_projected(clip: Clip) -> None:
    pixels = pixels_for(clip)
    visual = clip._model.visual
    edited = clip.embed_images(pixels, "2", "cls")[:, 0] * 0.5 + 1
    by_hand = F.normalize(visual.ln_post(edited) @ visual.proj, dim=-1)
    features = clip.image_features(pixels, "2", "cls", lambda x: x * 0.5 + 1)
    assert torch.allclose(features, by_hand, atol=1e-5)


def test_tokens_that_are_not_covered_stay(clip: Clip) -> None:
    pixels = pixels_for(clip)
    # Only CLS leaves the last block, so editing its patches cannot show.
    features = clip.image_features(pixels, "2", "patch", lambda x: x * 100)
    assert torch.equal(features, clip.image_features(pixels))
    one_patch = clip.image_features(
        pixels, "1", "all", lambda x: x + (torch.arange(17) == 5)[:, None]
    )
    same = clip.image_features(pixels, "1", "patch", lambda x: x + (torch.arange(16) == 4)[:, None])
    assert torch.equal(one_patch, same)
    assert not torch.equal(one_patch, clip.image_features(pixels))


def test_blocks_that_are_not_batch_first_are_edited_alike(clip: Clip) -> None:
    turned = copy.copy(clip)
    turned._model = copy.deepcopy(clip._model)
    transformer = turned._model.visual.transformer
    transformer.batch_first = False
    for block in transformer.resblocks:
        block.attn.batch_first = False
    from sae.clip.tower import find_tower

    turned._tower = find_tower(turned._model.visual)
    pixels = pixels_for(clip)
    for tokens in ("cls", "patch", "all"):
        expected = clip.image_features(pixels, "1", tokens, lambda x: x.cumsum(1))
        got = turned.image_features(pixels, "1", tokens, lambda x: x.cumsum(1))
        assert torch.allclose(got, expected, atol=1e-5)


def test_an_edit_that_fails_leaves_no_hook(clip: Clip) -> None:
    def fail(_: Tensor) -> Tensor:
        raise ZeroDivisionError

    before = clip.image_features(pixels_for(clip))
    with pytest.raises(ZeroDivisionError):
        clip.image_features(pixels_for(clip), "0", "cls", fail)
    with pytest.raises(ValueError, match="edit made"):
        clip.image_features(pixels_for(clip), "0", "cls", lambda x: x[:, :, :2])
    assert torch.equal(clip.image_features(pixels_for(clip)), before)
    assert clip._tower is not None
    assert not any(block._forward_hooks for block in clip._tower.blocks)
    assert not any("forward" in vars(block) for block in clip._tower.blocks)


@pytest.mark.parametrize("tower", ["vit", "average", "attention", "timm", "cls and registers"])
def test_a_network_that_was_stopped_once_is_finished_again_and_again(
    tower: str, towers: dict[str, Clip]
) -> None:
    clip = towers[tower]
    pixels = pixels_for(clip)
    tokens = "all" if clip._blocks().has_cls else "patch"
    calls: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda *_, n=n: calls.append(n))
        for n, block in enumerate(clip._blocks().blocks)
    ]
    halfway = clip.run_to(pixels, "1")
    assert calls == [0, 1]
    x = clip.tokens_at(halfway, tokens)
    for hook in hooks:
        hook.remove()
    plain, changed = clip.finish(halfway), clip.finish(halfway, tokens, x.cumsum(1))
    assert torch.equal(plain, clip.image_features(pixels))
    where = torch.tensor(clip._blocks().positions(tokens))

    def add_up(_module: object, _inputs: object, row: Tensor) -> Tensor:
        return row.index_copy(1, where, row[:, where].cumsum(1))

    hook = clip._blocks().blocks[1].register_forward_hook(add_up)
    assert torch.allclose(changed, clip.image_features(pixels), atol=1e-6)
    hook.remove()
    assert (changed - plain).abs().max() > 1e-4
    assert torch.equal(clip.finish(halfway), plain)


def test_what_is_pooled_gives_the_projected_features(towers: dict[str, Clip]) -> None:
    for tower in ("vit", "average", "timm"):
        clip = towers[tower]
        halfway = clip.run_to(pixels_for(clip), "0")
        pooled = clip.finish(halfway, output="pooled")
        visual = clip._model.visual
        projected = pooled @ visual.proj if hasattr(visual, "proj") else visual.head(pooled)
        assert pooled.shape == (3, clip.width("0"))
        assert torch.allclose(F.normalize(projected, dim=-1), clip.finish(halfway), atol=1e-6)


def test_patches_are_the_last_block_s_behind_its_norm(towers: dict[str, Clip]) -> None:
    for tower, norm in (("vit", "ln_post"), ("timm", "norm")):
        clip = towers[tower]
        pixels = pixels_for(clip)
        last = clip.embed_images(pixels, "-1", "patch")
        visual = clip._model.visual
        expected = getattr(getattr(visual, "trunk", visual), norm)(last)
        for layer in ("0", "-1"):
            got = clip.finish(clip.run_to(pixels, layer), output="patches")
            assert torch.allclose(got, expected, atol=1e-5)


def test_behind_the_projected_layer_there_is_nothing_to_pool(clip: Clip) -> None:
    halfway = clip.run_to(pixels_for(clip), "projected")
    assert torch.equal(clip.finish(halfway), clip.image_features(pixels_for(clip)))
    for output in ("pooled", "patches"):
        assert "use a block" in says(lambda o=output: clip.finish(halfway, output=o))


@pytest.mark.parametrize(
    ("layer", "resolved"),
    [("projected", "projected"), (0, "0"), ("2", "2"), (-1, "2"), ("-3", "0")],
)
def test_layers_count_from_either_end(clip: Clip, layer: str | int, resolved: str) -> None:
    assert clip.resolve_layer(layer) == resolved


@pytest.mark.parametrize("layer", ["3", "-4", "last", "", "1.0"])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(clip: Clip, layer: str) -> None:
    assert "'projected' and blocks 0..2" in says(lambda: clip.resolve_layer(layer))


def test_tokens_that_are_not_there_are_refused(towers: dict[str, Clip]) -> None:
    refuse = {
        "vit": [("projected", "patch"), ("0", "register")],
        "registers": [("0", "cls"), ("0", "all")],
        "resnet": [("0", "cls"), ("-1", "patch")],
        "convnext": [("1", "all")],
    }
    for tower, cases in refuse.items():
        for layer, tokens in cases:
            message = says(lambda t=tower, la=layer, to=tokens: towers[t].tokens_per_image(la, to))  # type: ignore[misc]
            assert tokens in message or "only" in message
    assert "only" in says(towers["resnet"].grid)


def test_texts_become_unit_rows_as_open_clip_makes_them(clip: Clip) -> None:
    texts = [f"a sketch of {i} cups" for i in range(300)]
    rows = clip.embed_texts(texts)
    known = clip._model.encode_text(clip._tokenizer(texts[250:270]), normalize=True)
    assert rows.shape == (300, 32)
    assert torch.allclose(rows.norm(dim=-1), torch.ones(300))
    assert torch.allclose(rows[250:270], known, atol=1e-5)
    assert clip.embed_texts([]).shape == (0, 32)


def test_a_class_is_the_mean_over_the_templates(clip: Clip) -> None:
    got = class_vectors(clip, ["cup", "{odd} name"], ["a sketch of {}", "{}, a photo"])
    texts = ["a sketch of cup", "cup, a photo"]
    mean = clip.embed_texts(texts).mean(0)
    assert torch.allclose(got[0], mean / mean.norm(), atol=1e-5)
    assert got.shape == (2, 32)
    assert "'a photo'" in says(lambda: class_vectors(clip, ["cup"], ["a photo"]))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert "has no 'cuda' device" in says(lambda: resolve_device("cuda"))
    assert "no such device: 'gpu'" in says(lambda: resolve_device("gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda")
    assert "has 1 CUDA devices" in says(lambda: resolve_device("cuda:3"))


@pytest.mark.cuda
def test_cuda_gives_what_the_cpu_gives(clip: Clip) -> None:
    on_gpu = load_clip(clip.name, "cuda")
    for layer, tokens in (("projected", "cls"), ("1", "all")):
        there = on_gpu.embed_images(pixels_for(clip), layer, tokens)
        assert there.device.type == "cuda"
        here = clip.embed_images(pixels_for(clip), layer, tokens)
        assert torch.allclose(there.cpu(), here, rtol=1e-2, atol=1e-2)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.allclose(
        on_gpu.embed_texts(["a cup"]).cpu(), clip.embed_texts(["a cup"]), atol=1e-2
    )
