import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae.clip import names
from sae.clip.model import Clip, load_clip
from sae.clip.names import resolve_name
from sae.core.errors import UserError


def says(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sha_is_of_the_weights_and_of_nothing_else(clip: Clip, folder: Path) -> None:
    shutil.copytree(folder / "vit", folder / "copy")
    assert load_clip(f"local-dir:{folder / 'copy'}", "cpu").sha == clip.sha
    weights = load_file(folder / "vit" / "open_clip_model.safetensors")
    weights["ln_final.bias"][3] += 1
    save_file(weights, folder / "copy" / "open_clip_model.safetensors")
    assert load_clip(f"local-dir:{folder / 'copy'}", "cpu").sha != clip.sha
    assert len(clip.sha) == 16
    assert int(clip.sha, 16) >= 0


def test_random_weights_are_the_same_every_time_and_leave_torch_s_seed_alone(folder: Path) -> None:
    config = json.loads((folder / "vit" / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"].pop("tokenizer_kwargs")
    config["text_cfg"]["vocab_size"] = 49408
    (folder / "sae-test-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "sae-test-clip.json")
    torch.manual_seed(5)
    first = load_clip("sae-test-clip/random", "cpu")
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert load_clip("sae-test-clip/random", "cpu").sha == first.sha
    assert first.embed_texts(["a cup"]).shape == (1, 32)


def test_loading_and_computing_say_nothing(
    clip: Clip, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    logging.root.handlers.clear()
    try:
        load_clip(clip.name, "cpu").embed_images(torch.zeros(1, 3, 64, 64))
        assert logging.root.handlers == []
    finally:
        logging.root.handlers[:] = handlers
    assert logging.root.manager.disable == level
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)


def test_openai_s_weights_are_asked_for_with_the_activation_they_were_trained_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resolve_name("ViT-B-32/openai").quick_gelu
    assert not resolve_name("ViT-B-32/laion2b_s34b_b79k").quick_gelu
    assert not resolve_name("ViT-B-32/random").quick_gelu
    assert resolve_name("ViT-B/32/openai").name == "ViT-B-32/openai"
    asked: list[tuple[Any, Any]] = []

    def note(*arguments: object, **options: object) -> None:
        asked.append((arguments, options))
        raise RuntimeError("stop here")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", note)
    assert "stop here" in says(lambda: load_clip("ViT-B-32/openai", "cpu"))
    assert asked == [(("ViT-B-32", "openai"), {"force_quick_gelu": True})]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", "ViT-B-32/openai, "),
        ("ViT-B/32", "ViT-B-32/random"),
        ("ViT-B-32/", "ViT-B-32/random"),
        ("ViT-B-32/opneai", "did you mean 'openai'?"),
        ("vit-b-32/openai", "did you mean ViT-B-32/openai"),
        ("tinny", "did you mean tiny"),
        ("nothing like it", "`--clip tiny` needs no download"),
        ("", "no CLIP model ''"),
        ("hf-hub:", "hf-hub:org/name"),
        ("local-dir:", "local-dir:FOLDER"),
        ("local-dir:/nowhere/at/all", "/nowhere/at/all has no open_clip_config.json"),
    ],
)
def test_a_name_that_means_no_model_is_answered_with_what_would(name: str, expected: str) -> None:
    assert expected in says(lambda: load_clip(name, "cpu"))


def test_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to download\nweights: no network")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", offline)
    message = says(lambda: load_clip("ViT-B-32/openai", "cpu"))
    assert "Failed to download weights: no network; `--clip tiny` needs no download" in message


def broken_folder(folder: Path, name: str, damage: Callable[[Path], object]) -> str:
    shutil.copytree(folder / "vit", folder / name)
    damage(folder / name)
    return f"local-dir:{folder / name}"


def with_config(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        config = json.loads((path / "open_clip_config.json").read_text())
        edit(config)
        (path / "open_clip_config.json").write_text(json.dumps(config))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no weights": lambda p: (p / "open_clip_model.safetensors").unlink(),
    "cut weights": lambda p: os.truncate(p / "open_clip_model.safetensors", 5000),
    "no json": lambda p: (p / "open_clip_config.json").write_text("{"),
    "no model": with_config(lambda c: c.pop("model_cfg")),
    "other width": with_config(lambda c: c["model_cfg"]["vision_cfg"].update(width=96)),
    "unknown key": with_config(lambda c: c["model_cfg"]["vision_cfg"].update(colour=1)),
    "other vocabulary": with_config(lambda c: c["model_cfg"]["text_cfg"].pop("tokenizer_kwargs")),
    "no vocabulary": with_config(
        lambda c: c["model_cfg"]["text_cfg"]["tokenizer_kwargs"].update(bpe_path="none.gz")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(clip: Clip, folder: Path, damage: str) -> None:
    name = broken_folder(folder, damage, DAMAGES[damage])
    if "vocabulary" in damage:  # images need none
        load_clip(name, "cpu").embed_images(torch.zeros(1, 3, 64, 64))
    said = says(lambda: load_clip(name, "cpu").embed_texts(["a cup"]))
    assert f"cannot load the CLIP model {name!r}" in said


TEXTS = ["ViT-B-16-SigLIP/webli", "ViT-L-14-worldwide/random", "nllb-clip-base/v1"]
TOWERS = ["roberta-ViT-B-32/laion2b_s12b_b32k", "xlm-roberta-large-ViT-H-14/random"]


def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without a network: whoever would fetch something says so."""

    def fetch(*_: object, **__: object) -> None:
        raise RuntimeError("fetched")

    monkeypatch.setattr(names, "find_spec", lambda name: None)
    for name in ("create_model_from_pretrained", "create_model_and_transforms", "get_tokenizer"):
        monkeypatch.setattr(open_clip, name, fetch)


@pytest.mark.parametrize("name", [*TEXTS, *TOWERS])
def test_a_model_that_needs_transformers_names_the_extra_before_anything_is_fetched(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    said = says(lambda: load_clip(name, "cpu"))
    assert said.endswith("not installed: pip install 'sae-interp[hf]'")
    said = says(lambda: load_clip(name, "cpu", texts=False))
    needs_it = name in TOWERS or name.startswith("nllb")  # to be built at all
    assert ("sae-interp[hf]" in said, "fetched" in said) == (needs_it, not needs_it)
    monkeypatch.setattr(names, "find_spec", lambda name: "found")
    assert "fetched" in says(lambda: load_clip(name, "cpu"))


def test_images_of_a_model_whose_tokenizer_is_missing_are_embedded(
    clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = with_config(lambda c: c["model_cfg"]["text_cfg"].update(hf_tokenizer_name="x"))
    name = broken_folder(folder, "hf", change)
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    images_alone = load_clip(name, "cpu", texts=False)
    pixels = torch.ones(1, 3, 64, 64)
    assert torch.equal(images_alone.embed_images(pixels), clip.embed_images(pixels))
    for call in (lambda: images_alone.embed_texts(["a cup"]), lambda: load_clip(name, "cpu")):
        assert "pip install 'sae-interp[hf]'" in says(call)


SAME_WEIGHTS = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "OpenAI/CLIP-ViT-Base-Patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
    "hf-hub:openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "https://huggingface.co/openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "clip-vit-base-patch32": "ViT-B-32/openai",
    "google/siglip-base-patch16-224": "ViT-B-16-SigLIP/webli",
    "google/siglip-base-patch16-256-multilingual": "ViT-B-16-SigLIP-i18n-256/webli",
    "google/siglip-so400m-patch14-384": "ViT-SO400M-14-SigLIP-384/webli",
    "google/siglip-so400m-patch16-256-i18n": "ViT-SO400M-16-SigLIP-i18n-256/webli",
    "google/siglip2-so400m-patch14-384": "ViT-SO400M-14-SigLIP2-378/webli",
    "google/siglip2-giant-opt-patch16-256": "ViT-gopt-16-SigLIP2-256/webli",
    "facebook/metaclip-b32-400m": "ViT-B-32-quickgelu/metaclip_400m",
    "facebook/metaclip-h14-fullcc2.5b": "ViT-H-14-quickgelu/metaclip_fullcc",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32/laion2b_s34b_b79k",
    "apple/DFN5B-CLIP-ViT-H-14-378": "ViT-H-14-378/dfn5b",
    "timm/vit_base_patch32_clip_224.openai": "ViT-B-32/openai",
}


@pytest.mark.parametrize("name", SAME_WEIGHTS)
def test_a_name_of_the_hub_is_answered_with_open_clip_s_of_the_same_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", lambda *_, **__: 1 / 0)
    assert f"did you mean {SAME_WEIGHTS[name]}, which" in says(lambda: load_clip(name, "cpu"))
    resolve_name(SAME_WEIGHTS[name])  # which is one


@pytest.mark.parametrize(
    "name", ["hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "hf-hub:someone/siglip-like"]
)
def test_a_repository_in_open_clip_s_own_form_is_left_as_it_is(name: str) -> None:
    assert resolve_name(name).model == name


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def test_weights_that_would_run_a_command_are_refused(clip: Clip, folder: Path) -> None:
    def damage(path: Path) -> None:
        (path / "open_clip_model.safetensors").unlink()
        torch.save({"x": Evil(folder / "marker")}, path / "open_clip_pytorch_model.bin")

    name = broken_folder(folder, "evil", damage)
    assert "cannot load" in says(lambda: load_clip(name, "cpu"))
    assert not (folder / "marker").exists()


PLAIN_TEXTS = ["a photo of a cup", "  Two  Words ", "it's 3 (or 4), e.g. x-ray.", ""]
OTHER_TEXTS = ["caf\u00e9", "a &amp; b", "tab\tstop", "what?"]


def test_plain_words_are_read_without_a_look_for_wrong_encodings_and_all_others_with_one() -> None:
    tokenizer = names.open_clip_parts("tiny").make_tokenizer()
    usual = open_clip.tokenizer.get_clean_fn("lower")
    texts = PLAIN_TEXTS + OTHER_TEXTS
    assert [tokenizer.clean_fn(text) for text in texts] == [usual(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftfy.fix_text", lambda _text: "looked")
        found = [tokenizer.clean_fn(text) for text in texts]
    assert [text == "looked" for text in found] == [False] * 4 + [True] * 4
