from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.clip.model import Clip
from sae.data.split import holdout_rows
from sae.steering.edits import Edit
from sae.steering.probe import load_probe
from sae.steering.segment.steer import Steered, edit_three_ways
from tests.sae.steering.segment.conftest import HEIGHT, WIDTH, Painted
from tests.support.commands import sae

HOLDOUT, LIMIT = 0.4, 0.7
P = 16
"""Pixels a patch; the grid is 4 x 4."""


def command(painted: Painted, out: Path, *words: object) -> int:
    places = (painted.sae, painted.store.path, "--masks", painted.masks, "--out", out)
    return sae("steer", "segment", *places, "--max-frequency", LIMIT, "--holdout", HOLDOUT, *words)


def patches_behind(clip: Clip, image: Path, tokens: torch.Tensor | None) -> NDArray[np.float64]:
    """The last block's patch tokens after the norm, (16, 64); `tokens` (16, 64) replace those of
    block 1, which come back where none are given."""
    visual, last = clip._model.visual, []

    def replace(_module: object, _inputs: object, row: torch.Tensor) -> torch.Tensor | None:
        if tokens is None:
            return None
        return torch.cat([row[:, :1], tokens[None]], dim=1)

    hooks = [
        visual.transformer.resblocks[1].register_forward_hook(replace),
        visual.transformer.resblocks[-1].register_forward_hook(lambda *call: last.append(call[2])),
    ]
    with torch.no_grad():
        visual(clip.preprocess(Image.open(image).convert("RGB"))[None])
        found = visual.ln_post(last[0][0, 1:])
    for hook in hooks:
        hook.remove()
    return found.double().numpy()


def patch_truth(path: Path) -> NDArray[np.uint8]:
    """(16,): the class of most pixels, of a mask squashed to 64 x 64 by nearest neighbours."""
    mask = np.asarray(Image.open(path))
    ys = ((np.arange(64) + 0.5) * HEIGHT / 64).astype(int)
    xs = ((np.arange(64) + 0.5) * WIDTH / 64).astype(int)
    seen = mask[ys][:, xs]
    cells = [seen[y : y + P, x : x + P] for y in range(0, 64, P) for x in range(0, 64, P)]
    return np.array([np.bincount(cell.ravel()).argmax() for cell in cells], np.uint8)


def test_target_and_other_change_are_those_of_a_network_with_a_hook(
    painted: Painted, clip: Clip, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert command(painted, out, "--value", -1, "--json", tmp_path / "figures.json") == 0
    lines = list(csv.DictReader((out / "changes.csv").open()))
    head = load_probe(out / "head")
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    images = painted.store.images
    held_out = np.flatnonzero(holdout_rows(images, HOLDOUT))
    x = painted.store.read(np.arange(len(images)))  # (n, 16, 64)
    with torch.no_grad():
        z = painted.model.encode(x.flatten(0, 1)).dense(40).numpy().reshape(len(images), 16, 40)
    trained = np.setdiff1d(np.arange(len(images)), held_out)
    w_dec = painted.model.W_dec.detach().numpy() * float(painted.model.scale)
    for number in (1, 2):
        own = [line for line in lines if line["number"] == str(number)]
        assert [line["method"] for line in own] == ["latent", "random-latent", "random-vector"]
        for line in own[:2]:
            latent, counts = int(line["latent"]), np.zeros(4, int)
            value = -1 * z[trained][:, :, latent].max()
            for row in held_out:
                truth = patch_truth(painted.masks / "photo" / images["path"][row])
                if not (truth == number).any():
                    continue
                change = (value - z[row, :, latent])[:, None] * w_dec[latent]
                edited = x[row].numpy() + change * (truth == number)[:, None]
                image = painted.images / images["path"][row]
                before, after = (
                    (patches_behind(clip, image, tokens) @ weight.T + bias).argmax(1)
                    for tokens in (None, torch.from_numpy(edited).float())
                )
                target, changed = before == number, before != after
                parts = (target, target & changed, ~target, ~target & changed)
                counts += [part.sum() for part in parts]
            names = ("n_target", "target_changed", "n_other", "other_changed")
            assert [int(line[name]) for name in names] == counts.tolist()
            assert float(line["target_change"]) == pytest.approx(counts[1] / counts[0])
            assert counts[1] > 0 or line["method"] == "random-latent"
    results = list(csv.DictReader((out / "results.csv").open()))
    columns = ["method", "target_change", "target_std", "other_change", "other_std"]
    assert list(results[0])[:5] == columns  # saev's
    for result in results:
        mine = [line for line in lines if line["method"] == result["method"]]
        for kind in ("target", "other"):
            shares = np.array([float(line[f"{kind}_change"]) for line in mine])
            assert float(result[f"{kind}_change"]) == pytest.approx(shares.mean())
            assert float(result[f"{kind}_std"]) == pytest.approx(shares.std())
            half = 12.7062 * shares.std(ddof=1) / np.sqrt(2)  # Student's t of one degree
            assert float(result[f"{kind}_high"]) == pytest.approx(shares.mean() + half, abs=1e-4)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["latent/target_change"] == pytest.approx(float(results[0]["target_change"]))


def upsampled(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) -> (64, 64), linear between the patches' middles."""
    at, middles = np.arange(64) + 0.5, (np.arange(4) + 0.5) * P
    rows = np.stack([np.interp(at, middles, column) for column in maps.T], axis=1)
    return np.stack([np.interp(at, middles, row) for row in rows])


def test_miou_is_that_of_bilinear_logits_over_held_out_pixels_without_the_background(
    painted: Painted, clip: Clip, tmp_path: Path
) -> None:
    assert command(painted, tmp_path / "out") == 0
    head = load_probe(tmp_path / "out" / "head")
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    assert head.classes == ("0", "1", "2")
    images, confusion, right = painted.store.images, np.zeros((3, 3)), []
    for row in np.flatnonzero(holdout_rows(images, HOLDOUT)):
        tokens = patches_behind(clip, painted.images / images["path"][row], None)
        logits = tokens @ weight.T + bias  # (16, 3)
        path = painted.masks / "photo" / images["path"][row]
        truth = patch_truth(path)
        right += (logits.argmax(1) == truth)[truth != 255].tolist()
        said = np.stack([upsampled(logits[:, n].reshape(4, 4)) for n in range(3)]).argmax(0)
        mask = np.asarray(Image.open(path))
        ys = ((np.arange(64) + 0.5) * HEIGHT / 64).astype(int)
        seen = mask[ys][:, ((np.arange(64) + 0.5) * WIDTH / 64).astype(int)]
        np.add.at(confusion, (seen[seen != 255], said[seen != 255]), 1)
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    report = json.loads((tmp_path / "out" / "segment.json").read_text())
    assert report["miou"] == pytest.approx(iou[1:].mean(), abs=2e-3)
    assert report["miou"] > 0.2  # the squares are found at all
    assert head.info is not None
    assert head.info.accuracy == pytest.approx(np.mean(right), abs=1e-9)
    assert head.info.reads == "patches"


def test_a_random_direction_is_as_long_as_the_edit_at_every_patch(painted: Painted) -> None:
    x = painted.store.read(np.arange(3))
    direction = torch.nn.functional.normalize(torch.randn(64), dim=0)
    plan = Steered(1, 1, Edit(3, "set", -9.0), Edit(8, "set", 4.0), direction)
    where = torch.rand(3, 16) < 0.5
    with torch.no_grad():
        edited, other, random = (way - x for way in edit_three_ways(painted.model, x, plan, where))
    torch.testing.assert_close(random.norm(dim=2), edited.norm(dim=2), rtol=1e-4, atol=1e-4)
    assert (random[where] @ direction > 0).all()
    for change in (edited, other, random):
        assert torch.equal(change[~where], torch.zeros_like(change[~where]))
        assert (change[where].norm(dim=1) > 0).all()


def test_a_class_of_one_side_alone_is_named_and_left_out(
    painted: Painted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(painted.masks, tmp_path / "masks")
    held_out = holdout_rows(painted.store.images, HOLDOUT)
    for number, row in ((7, np.flatnonzero(held_out)[0]), (8, np.flatnonzero(~held_out)[0])):
        path = tmp_path / "masks" / "photo" / painted.store.images["path"][row]
        mask = np.array(Image.open(path))
        mask[:20, :30] = number
        Image.fromarray(mask).save(path)
    changed = painted._replace(masks=tmp_path / "masks")
    assert command(changed, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "classes shown by held-out images; they are ignored: 7 (7)" in said
    assert "classes shown by training images; nothing is reported of them: 8 (8)" in said
    lines = list(csv.DictReader((tmp_path / "out" / "changes.csv").open()))
    assert {line["number"] for line in lines} == {"1", "2"}
    assert load_probe(tmp_path / "out" / "head").classes == ("0", "1", "2", "8")


def test_bad_input_is_one_line_and_writes_nothing(
    painted: Painted, clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(painted.masks, tmp_path / "masks")
    first = painted.store.images["path"][0]
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "photo" / first)
    wrong = painted._replace(masks=tmp_path / "masks")
    assert command(wrong, tmp_path / "out") == 2
    assert f"{first} has 5 x 5 pixels, but its image" in capsys.readouterr().err
    empty = painted._replace(masks=tmp_path / "blank")
    for path in painted.masks.rglob("*.png"):
        target = tmp_path / "blank" / path.relative_to(painted.masks)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT)).save(target)
    assert command(empty, tmp_path / "out") == 2
    assert "no class is left" in capsys.readouterr().err
    for folder, field, value, said in (
        ("other", "layer", "2", "the SAE was trained on layer '2', but the store has layer '1'"),
        ("cls", "tokens", "cls", "this SAE reads the CLS token alone"),
    ):
        shutil.copytree(painted.sae, tmp_path / folder)
        config = json.loads((painted.sae / "config.json").read_text()) | {field: value}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
        assert command(painted._replace(sae=tmp_path / folder), tmp_path / "out") == 2
        assert said in capsys.readouterr().err
    assert command(painted, tmp_path / "out", "--value", "nan") == 2
    assert "--value nan must be a number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
