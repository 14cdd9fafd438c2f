"""Strength moves an embedding by the decoder's row and nothing else; a stand-in draws it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sae.clip.model import Clip
from sae.core.errors import UserError
from sae.steering.generate import pipelines
from sae.steering.generate.config import GenerateConfig
from sae.steering.generate.pipelines import KANDINSKY_CLIP, make_painter
from sae.steering.generate.run import Scene, draw_pictures, look_at, move
from tests.sae.steering.generate.conftest import LATENT, asked, make_sae
from tests.support.commands import sae


class StandIn:
    """Takes what Kandinsky's decoder takes; its pictures tell the embedding and the seed."""

    def __init__(self, d: int) -> None:
        config = SimpleNamespace(encoder_hid_dim=d)
        self.unet = SimpleNamespace(config=config, device=torch.device("cpu"), dtype=torch.float32)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **arguments: Any) -> Any:
        noise = torch.rand(64, 64, 3, generator=arguments["generator"])
        self.calls.append(arguments)
        tone = arguments["image_embeds"][0, :3].sigmoid()
        pixels = ((noise + tone) * 127).byte().numpy()
        return SimpleNamespace(images=[Image.fromarray(pixels)])


@pytest.mark.parametrize("rows", ["raw", "unit"])
def test_strength_0_is_the_embedding_bit_for_bit_and_twice_the_strength_moves_twice_as_far(
    clip: Clip, picture: Path, rows: str
) -> None:
    scene = look_at(make_sae(clip, rows), clip, Image.open(picture).convert("RGB"))
    e = scene.embedding
    assert move(scene, LATENT, 0.0).numpy().tobytes() == e.numpy().tobytes()
    step = move(scene, LATENT, 1.5) - e
    torch.testing.assert_close(
        (move(scene, LATENT, 3.0) - e).norm(), 2 * step.norm(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(move(scene, LATENT, -1.5) - e, -step, rtol=1e-4, atol=1e-5)
    length = float(e.norm()) if rows == "unit" else 1.0
    row = 1.5 * length * scene.model.scale * scene.model.W_dec[LATENT]
    torch.testing.assert_close(step[0], row, rtol=1e-4, atol=1e-5)


def test_a_picture_for_each_strength_and_seed_differs_by_the_edit_alone(scene: Scene) -> None:
    stand_in = StandIn(scene.clip.d_embed)
    painter = make_painter(stand_in, asked(encoder=scene.clip.name, steps=2), scene.clip, IMAGE)
    drawn = list(draw_pictures(scene, painter, LATENT, [-2.0, 0.0, 2.0], [0, 1], "a cup"))
    assert [(one.strength, one.seed) for one in drawn] == [
        (strength, seed) for strength in (-2, 0, 2) for seed in (0, 1)
    ]
    passed = [call["image_embeds"] for call in stand_in.calls]
    assert passed[2].numpy().tobytes() == scene.embedding.numpy().tobytes()
    assert passed[4].equal(move(scene, LATENT, 2.0))
    assert drawn[2].moved == 0
    assert drawn[4].moved == pytest.approx(2 * 1.7, rel=1e-4)
    blank = scene.clip.embed_images(torch.zeros(1, 3, 64, 64))[:, 0]
    assert all(call["negative_image_embeds"].equal(blank) for call in stand_in.calls)
    assert all(call["num_inference_steps"] == 2 for call in stand_in.calls)
    assert "height" not in stand_in.calls[0]
    text = scene.clip.embed_texts(["a cup"])
    seen = scene.clip.image_features(scene.clip.preprocess(drawn[3].image)[None])
    assert drawn[3].clip_score == pytest.approx(100 * float(seen @ text.T), abs=1e-4)


IMAGE = Image.new("RGB", (64, 64), (200, 30, 90))


@pytest.mark.parametrize(
    ("d", "encoder", "words"),
    [
        (32, "", KANDINSKY_CLIP),
        (32, "tiny", "takes embeddings of tiny (width 32), but the SAE reads those of local-dir:"),
        (
            48,
            "tiny",
            "takes embeddings of tiny, of width 48, but the SAE reads those of local-dir:",
        ),
    ],
)
def test_a_pipeline_of_another_clip_is_refused_with_both(
    clip: Clip, d: int, encoder: str, words: str
) -> None:
    with pytest.raises(UserError) as found:
        make_painter(StandIn(d), asked(encoder=encoder), clip, IMAGE)
    assert words in str(found.value)
    assert clip.name in str(found.value)


def test_an_encoder_of_the_pipeline_is_compared_by_what_it_sees(clip: Clip) -> None:
    class Encoder:
        device, dtype = torch.device("cpu"), torch.float32
        config = SimpleNamespace(
            projection_dim=32, hidden_size=64, num_hidden_layers=3, patch_size=16, image_size=64
        )

        def __init__(self, factor: Tensor | float) -> None:
            self.factor = factor

        def __call__(self, pixels: Tensor) -> Any:
            return SimpleNamespace(image_embeds=clip.embed_images(pixels)[:, 0] * self.factor)

    pipe = StandIn(32)
    pipe.image_encoder = Encoder(1.0)  # type: ignore[attr-defined]
    painter = make_painter(pipe, asked(), clip, IMAGE)
    painter.draw(torch.zeros(1, 32), 0)
    assert pipe.calls[0]["prompt"] == ""
    assert "64 wide, 3 blocks" in painter.encoder
    pipe.image_encoder = Encoder(torch.linspace(-1, 1, 32))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"is not the SAE's local-dir:.* makes another embedding"):
        make_painter(pipe, asked(), clip, IMAGE)
    Encoder.config.image_size = 224
    with pytest.raises(UserError, match="224 pixels a side"):
        make_painter(pipe, asked(), clip, IMAGE)


@pytest.mark.parametrize("strength", ["a lot", "1,nan", "inf"])
def test_a_strength_that_is_no_number_is_refused(strength: str) -> None:
    with pytest.raises(UserError, match="not a list of numbers"):
        _ = asked(strength=strength).strengths


def test_strength_0_is_always_among_them() -> None:
    assert asked(strength="3,-1").strengths == [-1.0, 0.0, 3.0]


def test_an_sae_of_a_block_is_refused(clip: Clip) -> None:
    with pytest.raises(UserError, match="reads block 2"):
        look_at(make_sae(clip, layer="2"), clip, IMAGE)
    with pytest.raises(UserError, match="has width 48"):
        look_at(make_sae(clip, d=48), clip, IMAGE)


@pytest.fixture
def command(clip: Clip, picture: Path, tmp_path: Path) -> list[object]:
    make_sae(clip).save(tmp_path / "sae")
    latent = ("--latent", LATENT, "--pipeline", tmp_path / "pipe", "--strength", "-2,2")
    return ["steer", "generate", tmp_path / "sae", picture, *latent, "--out", tmp_path / "out"]


def test_the_command_writes_a_sheet_and_what_it_did(
    command: list[object], clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(said: GenerateConfig, clip: Clip, image: Image.Image) -> Any:
        return make_painter(StandIn(clip.d_embed), said, clip, image)

    monkeypatch.setattr(pipelines, "load_pipeline", load)
    labels, figures = tmp_path / "labels.csv", tmp_path / "figures.json"
    labels.write_text(f"latent_id,label\n{LATENT},a cup\n")
    more = ("--seeds", 2, "--encoder", clip.name, "--labels", labels, "--json", figures)
    assert sae(*command, *more) == 0
    out = tmp_path / "out"
    report = json.loads((out / "generate.json").read_text())
    assert report["strengths"] == [-2, 0, 2]
    assert (report["label"], report["latent"], report["image"]) == ("a cup", LATENT, "000.png")
    assert str(tmp_path) not in json.dumps(report)
    files = [one["file"] for one in report["pictures"]]
    assert sorted(p.name for p in out.glob("*.png")) == sorted([*files, "sheet.png"])
    assert Image.open(out / "sheet.png").width > 400
    assert json.loads(figures.read_text())["-2/moved"] == pytest.approx(3.4, rel=1e-4)
    assert sae(*command, *more, "--seeds", 1) == 0  # fewer pictures take the place of those
    assert len(list(out.glob("picture-*.png"))) == 3


@pytest.mark.parametrize("missing", ["diffusers", "transformers", "accelerate"])
def test_without_the_extra_one_line_says_so(
    command: list[object],
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("accelerate", "transformers", "diffusers"):
        there = None if name == missing else SimpleNamespace()
        monkeypatch.setitem(sys.modules, name, there)  # type: ignore[arg-type]
    assert sae(*command) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'sae-interp[generate]'" in said[-1]
    assert missing in said[-1]
    assert not (Path(str(command[-1])) / "generate.json").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--latent", 99), "the SAE has the latents 0 to 15"),
        (("--strength", "much"), "not a list of numbers"),
        (("--clip", "tiny"), "the SAE was trained on clip"),
        (("--size", 65), "no multiple of 8"),
    ],
)
def test_a_word_that_does_not_fit_is_refused(
    command: list[object], more: tuple[object, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae(*command, *more) == 2
    assert words in capsys.readouterr().err
