"""Real pipelines of diffusers, tiny and with random weights; skipped without the extra."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sae.clip.model import Clip, load_clip
from sae.core.errors import UserError
from sae.steering.generate.pipelines import load_pipeline
from sae.steering.generate.run import Scene, move
from tests.sae.steering.generate.conftest import LATENT, asked, make_sae
from tests.support.commands import sae
from tests.support.sae.small_clip import small_clip
from tests.support.sae.tiny_pipelines import write_kandinsky, write_unclip

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

SMALL = {"size": 32, "steps": 1}
IMAGE = Image.new("RGB", (64, 64), (200, 30, 90))


@pytest.fixture(scope="module")
def kandinsky(folder: Path, clip: Clip) -> Path:
    return write_kandinsky(folder / "kandinsky", clip.d_embed)


@pytest.fixture(scope="module")
def unclip(folder: Path, clip: Clip) -> Path:
    return write_unclip(folder / "unclip", clip)


@pytest.mark.parametrize("kind", ["kandinsky", "unclip"])
def test_a_pipeline_draws_by_the_embedding_and_the_seed(
    request: pytest.FixtureRequest, scene: Scene, kind: str
) -> None:
    place = str(request.getfixturevalue(kind))
    painter = load_pipeline(asked(place, encoder=scene.clip.name, **SMALL), scene.clip, IMAGE)
    e, moved = scene.embedding, move(scene, LATENT, 40.0)
    first, again = painter.draw(e, 0), painter.draw(e.clone(), 0)
    assert first.tobytes() == again.tobytes()
    assert first.size == (32, 32)
    assert first.tobytes() != painter.draw(moved, 0).tobytes()
    assert first.tobytes() != painter.draw(e, 1).tobytes()


def test_an_encoder_with_other_weights_is_refused(unclip: Path, folder: Path) -> None:
    other = load_clip(small_clip(folder / "other", seed=5), "cpu")
    with pytest.raises(UserError, match=r"64 wide, 3 blocks.*makes another embedding"):
        load_pipeline(asked(str(unclip), **SMALL), other, IMAGE)


def test_the_command_draws_with_kandinsky(
    kandinsky: Path, clip: Clip, picture: Path, tmp_path: Path
) -> None:
    make_sae(clip).save(tmp_path / "sae")
    words = ("--latent", LATENT, "--pipeline", kandinsky, "--encoder", clip.name, "--seeds", 1)
    out = ("--out", tmp_path / "out", "--size", 32, "--steps", 1, "--label", "a cup")
    assert sae("steer", "generate", tmp_path / "sae", picture, *words, *out) == 0
    report = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert (report["pipeline_class"], len(report["pictures"])) == ("KandinskyV22Pipeline", 3)
    assert (tmp_path / "out" / "sheet.png").exists()


def test_pickled_weights_are_not_loaded(clip: Clip, tmp_path: Path) -> None:
    pickled = write_kandinsky(tmp_path / "pickled", clip.d_embed, safe_serialization=False)
    assert list(pickled.rglob("*.bin"))
    with pytest.raises(UserError, match="cannot load the pipeline"):
        load_pipeline(asked(str(pickled), encoder=clip.name), clip, IMAGE)


def test_a_pickled_image_encoder_is_not_loaded(unclip: Path, clip: Clip, tmp_path: Path) -> None:
    import shutil

    changed = Path(shutil.copytree(unclip, tmp_path / "changed"))
    [weights] = (changed / "image_encoder").glob("*.safetensors")
    torch.save({}, weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(UserError, match="cannot load the pipeline"):
        load_pipeline(asked(str(changed)), clip, IMAGE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "draws from no image embedding"),
        ({"unet": ["os", "system"]}, "has its unet from 'os', which is not loaded"),
        ({"_class_name": ["evil", "Pipe"]}, "draws from no image embedding"),
    ],
)
def test_another_pipeline_or_strange_parts_are_refused_before_any_weights(
    kandinsky: Path, clip: Clip, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    index = json.loads((kandinsky / "model_index.json").read_text()) | changes
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError) as found:
        load_pipeline(asked(str(tmp_path), encoder=clip.name), clip, IMAGE)
    assert words in str(found.value)


def test_a_folder_that_is_not_there_is_refused_in_one_line(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError) as found:
        load_pipeline(asked(str(tmp_path / "none")), clip, IMAGE)
    assert "cannot load the pipeline" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_size_that_a_pipeline_cannot_draw_is_told_in_one_line(unclip: Path, scene: Scene) -> None:
    said = asked(str(unclip), **{**SMALL, "size": 8})
    painter = load_pipeline(said, scene.clip, IMAGE)
    with pytest.raises(UserError) as found:
        painter.draw(torch.zeros(1, 7), 0)
    assert "could not draw" in str(found.value)
    assert "\n" not in str(found.value)
