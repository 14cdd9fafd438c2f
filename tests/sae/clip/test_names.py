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
    assert f"cannot load the CLIP model {name!r}" in says(lambda: load_clip(name, "cpu"))


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
