"""MaPLe's prompts on a CLIP: numbers as in a second computation, tokens as without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor

from sae.clip.adapters.maple import maple_text
from sae.clip.adapters.maple_file import read_maple
from sae.clip.class_vectors import class_vectors
from sae.clip.model import Clip, load_clip
from sae.core.errors import UserError
from tests.support.sae.maple_checkpoint import maple_weights, write_maple
from tests.support.sae.maple_reference import image_features, image_rows, text_features
from tests.support.sae.small_clip import RESNET, VIT, small_clip

N_BLOCKS, N_CTX = 10, 2
DEPTHS = (1, 3, 9)
TOLERANCE = 1e-5
DEEP_VIT = {**VIT, "layers": N_BLOCKS}
OPENAI_TEXTS = {"vocab_size": 49408, "context_length": 77, "tokenizer_kwargs": {}}
"""With the vocabulary of OpenAI's CLIP, in which each word of "a photo of a" is one token."""


@pytest.fixture(scope="module")
def base(folder: Path) -> str:
    """A ViT of ten blocks in both towers."""
    return small_clip(folder / "deep", DEEP_VIT, texts={"layers": N_BLOCKS})


@pytest.fixture(scope="module")
def weights(base: str) -> dict[str, Tensor]:
    return weights_of(base)


def weights_of(base: str) -> dict[str, Tensor]:
    """Of a CLIP, as they lie in its file."""
    path = Path(base.removeprefix("local-dir:")) / "open_clip_model.safetensors"
    return {name: value.float() for name, value in load_file(path).items()}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def adapted(
    base: str, path: Path, depth: int, n_ctx: int = N_CTX
) -> tuple[Clip, dict[str, Tensor]]:
    maple = maple_weights(n_ctx, depth, 64, 64)
    return load_clip(f"{base}+maple:{write_maple(path, maple)}", "cpu"), maple


@pytest.mark.parametrize("depth", DEPTHS)
def test_features_and_tokens_of_every_block_equal_a_second_computation(
    base: str, weights: dict[str, Tensor], pixels: Tensor, tmp_path: Path, depth: int
) -> None:
    clip, maple = adapted(base, tmp_path / "maple.pth.tar-5", depth)
    rows = image_rows(weights, maple, pixels, N_BLOCKS)
    for block in range(N_BLOCKS):
        found = clip.embed_images(pixels, str(block), "all")
        torch.testing.assert_close(found, rows[block], atol=TOLERANCE, rtol=TOLERANCE)
    expected = image_features(weights, maple, pixels, N_BLOCKS)
    found = clip.embed_images(pixels)[:, 0]
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    plain = load_clip(base, "cpu").embed_images(pixels)[:, 0]
    assert (found - plain).abs().max() > 0.01  # the prompts are read


@pytest.mark.parametrize("depth", DEPTHS)
def test_classes_equal_a_second_computation_on_the_texts_of_the_authors(
    folder: Path, tmp_path: Path, depth: int
) -> None:
    texts = {**OPENAI_TEXTS, "layers": N_BLOCKS}
    base = small_clip(folder / "wordy", {**VIT, "layers": depth}, texts=texts)
    weights, n_ctx = weights_of(base), {1: 4, 3: 6, 9: 2}[depth]
    clip, maple = adapted(base, tmp_path / "maple.pth", depth, n_ctx)
    names = ["cup", "fire engine", "umbrella"]
    words = "a photo of a" if n_ctx <= 4 else " ".join(["X"] * n_ctx)
    tokens = SimpleTokenizer()([f"{words} {name}." for name in names])
    expected = text_features(weights, maple, tokens, N_BLOCKS)
    # Our template makes "an umbrella"; MaPLe's authors write "a umbrella".
    texts = [f"a photo of a {name}" for name in names]
    torch.testing.assert_close(clip.embed_texts(texts), expected, atol=TOLERANCE, rtol=TOLERANCE)
    if n_ctx < 4:
        found = class_vectors(clip, names[:2], ["a photo of a {}"])
        torch.testing.assert_close(found, expected[:2], atol=TOLERANCE, rtol=TOLERANCE)


def test_prompts_never_count_as_patches(base: str, pixels: Tensor, tmp_path: Path) -> None:
    clip, _ = adapted(base, tmp_path / "maple.pth", 3)
    plain = load_clip(base, "cpu")
    for tokens in ("cls", "patch", "all"):
        assert clip.tokens_per_image("4", tokens) == plain.tokens_per_image("4", tokens)
    assert clip.grid() == plain.grid() == (4, 4)
    stopped = clip.run_to(pixels, "4")
    assert stopped.row.shape[1] == 17 + N_CTX
    patches = clip.finish(stopped, output="patches")
    assert patches.shape == (3, 16, 64)


@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
def test_a_network_that_goes_on_behind_a_block_ends_as_one_in_one_piece(
    base: str, pixels: Tensor, tmp_path: Path, layer: str
) -> None:
    clip, _ = adapted(base, tmp_path / "maple.pth", 3)
    whole = clip.image_features(pixels)
    stopped = clip.run_to(pixels, layer)
    torch.testing.assert_close(clip.finish(stopped), whole, atol=1e-6, rtol=1e-6)
    x = clip.tokens_at(stopped, "all")
    assert (clip.finish(stopped, "all", x.flip(1)) - whole).abs().max() > 1e-3
    several = clip.run_through(pixels, [layer, "5", "projected"])
    torch.testing.assert_close(several[-1].row[:, 0], clip.embed_images(pixels)[:, 0])


@pytest.mark.parametrize("words", ["a photo of a", "x x"])
def test_the_buffers_of_the_classes_tell_which_words_stand_behind_the_prompts(
    folder: Path, tmp_path: Path, words: str
) -> None:
    base = small_clip(folder / "words", texts={**OPENAI_TEXTS, "layers": 2})
    weights = weights_of(base)
    tokens = SimpleTokenizer()([f"{words} {name}." for name in ("dog", "cat")])
    behind = weights["token_embedding.weight"][tokens][:, 1 + N_CTX :].half()
    maple = maple_weights(N_CTX, 2, 64, 64, behind=behind)
    clip = load_clip(f"{base}+maple:{write_maple(tmp_path / 'maple.pth', maple)}", "cpu")
    expected = text_features(weights, maple, SimpleTokenizer()([f"{words} cup."]), 2)
    found = clip.embed_texts(["a photo of a cup"])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("text", "n_ctx", "expected"),
    [
        ("a photo of a cup", 2, "x x of a cup."),
        ("A photo of an ice cream.", 2, "x x of an ice cream."),
        ("a photo of a cup", 4, "x x x x cup."),
        ("a photo of a cup", 6, "x x x x x x cup."),
        ("a sketch of a cup", 2, "x x a sketch of a cup."),
        ("cup", 2, "x x cup."),
        ("a photo of a", 2, "x x a photo of a."),
    ],
)
def test_no_word_of_a_text_is_lost_but_those_that_prompts_stand_for(
    text: str, n_ctx: int, expected: str
) -> None:
    assert maple_text(text, n_ctx) == expected


def test_weights_of_the_clip_that_are_in_the_file_must_be_its_own(
    base: str, weights: dict[str, Tensor], pixels: Tensor, tmp_path: Path
) -> None:
    maple = maple_weights(N_CTX, 3, 64, 64)
    own = {
        f"image_encoder.{k[7:]}": v.half() for k, v in weights.items() if k.startswith("visual.")
    }
    texts = ("transformer.", "positional_embedding", "ln_final.", "text_projection")
    own |= {f"text_encoder.{k}": v.half() for k, v in weights.items() if k.startswith(texts)}
    own["logit_scale"] = weights["logit_scale"]
    whole = write_maple(tmp_path / "whole.pth", {**maple, **own})
    alone = write_maple(tmp_path / "alone.pth", maple)
    found = [
        load_clip(f"{base}+maple:{path}", "cpu").embed_images(pixels) for path in (whole, alone)
    ]
    assert found[0].equal(found[1])
    own["image_encoder.ln_post.weight"] = own["image_encoder.ln_post.weight"] + 0.1
    said = refusal(base, write_maple(tmp_path / "tuned.pth", {**maple, **own}))
    assert "other weights 'visual.ln_post.weight'" in said
    vpt = {**maple, "image_encoder.VPT": torch.zeros(2, 64)}
    assert "'visual.VPT', which" in refusal(base, write_maple(tmp_path / "vpt.pth", vpt))


Change = Callable[[dict[str, Any]], None]
DEEP = "prompt_learner.compound_prompts_text.1"
SUFFIX = "prompt_learner.token_suffix"
SHIFT = "prompt_learner.compound_prompt_projections.0.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("prompt_learner.ctx"), "lacks 'prompt_learner.ctx'"),
        (lambda w: w.pop("prompt_learner.proj.bias"), "lacks 'prompt_learner.proj.bias'"),
        (lambda w: w.pop(SHIFT), f"lacks '{SHIFT}', which MaPLe of depth 3 has"),
        (lambda w: w.update({DEEP: torch.zeros(4, 64)}), f"{DEEP} has shape (4, 64), not (2, 64)"),
        (lambda w: w.update({DEEP: "a word"}), "lacks the tensor"),
        (lambda w: w.update({SUFFIX: torch.zeros(2, 9, 32)}), "token_suffix is 32 wide, but the"),
        (lambda w: w.update({DEEP: torch.full((2, 64), torch.nan)}), "no numbers"),
        (lambda w: w.update({"prompt_learner.meta_net.a": torch.zeros(1)}), "meta_net.a"),
        (lambda w: w.update({DEEP.replace("1", "99999999"): torch.zeros(2, 64)}), "one after"),
    ],
)
def test_a_key_that_lacks_or_is_not_known_is_named(
    tmp_path: Path, change: Change, words: str
) -> None:
    weights: dict[str, Any] = dict(maple_weights(N_CTX, 3, 64, 64))
    change(weights)
    path = write_maple(tmp_path / "maple.pth", weights)
    with pytest.raises(UserError) as found:
        read_maple(path)
    assert words in str(found.value)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_what_stands_beside_the_weights_is_known_too(base: str, tmp_path: Path) -> None:
    weights = maple_weights(N_CTX, 3, 64, 64)
    said = refusal(base, write_maple(tmp_path / "odd.pth", weights, ema=1))
    assert "holds 'ema'" in said
    torch.save(weights, tmp_path / "bare.pth")
    assert len(read_maple(tmp_path / "bare.pth").texts) == 3
    whole = torch.load(write_maple(tmp_path / "new.pth", weights), weights_only=False)
    torch.save(whole, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert len(read_maple(tmp_path / "old.pth").texts) == 3


def test_another_backbone_is_refused_in_one_line(base: str, tmp_path: Path) -> None:
    wide = write_maple(tmp_path / "wide.pth", maple_weights(2, 3, 64, 96))
    assert "of widths 64 (texts) and 96 (images), but" in refusal(base, wide)
    deep = write_maple(tmp_path / "deep.pth", maple_weights(2, 12, 64, 64))
    assert "prompts for 12 blocks" in refusal(base, deep)
    long = write_maple(tmp_path / "long.pth", maple_weights(75, 1, 64, 64))
    assert "has 75 prompts a text" in refusal(base, long)
    fits = write_maple(tmp_path / "maple.pth", maple_weights(2, 1, 64, 64))
    for kind in ("resnet", "siglip"):
        other = small_clip(
            tmp_path / kind, RESNET if kind == "resnet" else VIT, siglip=kind != "resnet"
        )
        assert "not built like OpenAI's ViT" in refusal(other, fits)


def test_a_file_that_is_no_checkpoint_is_refused(base: str, tmp_path: Path) -> None:
    assert "there is no file" in refusal(base, tmp_path / "nowhere.pth")
    (tmp_path / "words.txt").write_text("words")
    assert "no torch file" in refusal(base, tmp_path / "words.txt")
    with pytest.raises(UserError, match="names no file"):
        load_clip(f"{base}+maple:", "cpu")


def test_nothing_of_a_checkpoint_is_run(base: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    weights = maple_weights(N_CTX, 1, 64, 64)
    said = refusal(base, write_maple(tmp_path / "bomb.pth", weights, epoch=Bomb()))
    assert "nothing of it was run" in said
    assert not (tmp_path / "ran").exists()


def refusal(base: str, path: Path) -> str:
    """What is said of a checkpoint, in one line."""
    with pytest.raises(UserError) as found:
        load_clip(f"{base}+maple:{path}", "cpu")
    assert "\n" not in str(found.value)
    return str(found.value)
