from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sae.clip.model import Clip, load_clip
from sae.clip.store_images import read_store_image
from sae.core.errors import UserError
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.steering.fit_probe import fit_logistic, fit_probe
from sae.steering.probe import Probe, load_probe, require_fits
from tests.support.commands import sae
from tests.support.sae.embedded import Images, run
from tests.support.sae.small_clip import RESNET, small_clip


@pytest.fixture
def store(images: Images, tmp_path: Path, clip: Clip) -> EmbeddingStore:
    """12 sketches and 11 photos of two classes; its own tokens are not what a probe reads."""
    run(images, tmp_path / "store", clip, "0", "patch")
    return EmbeddingStore.open(tmp_path / "store")


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


def test_a_probe_is_the_optimum_of_the_penalised_likelihood_on_what_clip_pools(
    store: EmbeddingStore, clip: Clip
) -> None:
    c = 0.5
    probe = fit_probe(store, clip, 0.3, [c])
    visual = clip._model.visual
    projection, visual.proj = visual.proj, None
    pixels = torch.stack([clip.preprocess(read_store_image(store, row)) for row in range(23)])
    with torch.no_grad():
        pooled = visual(pixels).double().numpy()
    visual.proj = projection
    held_out = holdout_rows(store.images, 0.3)
    assert 0 < held_out.sum() < 23
    x, mean, deviation = pooled, pooled[~held_out].mean(0), pooled[~held_out].std(0)
    z = (x - mean) / deviation
    y = np.array([int(label[-1]) for label in store.images["label"]])
    weight = probe.weight.double().numpy() * deviation
    logits = x @ probe.weight.double().numpy().T + probe.bias.double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Of two classes scikit-learn penalises the difference w of the rows: C sum CE + |w|^2 / 2.
    error = (p[:, 1] - y)[~held_out]
    gradient = c * error @ z[~held_out] + (weight[1] - weight[0])
    assert abs(gradient).max() < 1e-2 * abs(c * error @ z[~held_out]).max()
    assert abs(error.sum()) < 1e-3
    right = (logits.argmax(1) == y)[held_out]
    assert probe.info is not None
    assert probe.classes == ("class0", "class1")
    assert (probe.info.accuracy, probe.info.n_test) == (right.mean(), held_out.sum())


def test_with_more_classes_the_gradient_is_zero_and_c_is_the_best_of_five_folds() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    x = (rng.normal(size=(150, 4)) + 1.5 * np.eye(3, 4)[y]).astype(np.float32) * [1, 5, 0.1, 2] + 3
    folds = np.arange(150) % 5
    found = fit_logistic(x.astype(np.float32), y, folds, 4, [1e-5, 0.03, 30.0])
    assert found.c == max(found.cv_accuracy, key=found.cv_accuracy.__getitem__) != 1e-5
    logits = x @ found.weight.T + found.bias  # the fourth class is not there, and never wins
    assert set(logits.argmax(1)) == {0, 1, 2}
    p = np.exp(logits[:, :3]) / np.exp(logits[:, :3]).sum(1, keepdims=True)
    z = standardised(x)
    pull = found.c * (p - np.eye(3)[y]).T @ z
    assert abs(pull + found.weight[:3] * x.std(0)).max() < 1e-2
    alone = fit_logistic(
        x.astype(np.float32)[folds != 0], y[folds != 0], folds[folds != 0], 3, [30]
    )
    hits = [(x[folds == 0] @ alone.weight.T + alone.bias).argmax(1) == y[folds == 0]]
    assert np.mean(hits) > 0.5  # what a fold is measured by does not see the fold


def test_a_probe_comes_back_from_its_folder_as_it_was(
    store: EmbeddingStore, clip: Clip, tmp_path: Path
) -> None:
    probe = fit_probe(store, clip, 0.3, [0.1, 1.0])
    probe.save(tmp_path / "probe")
    again = load_probe(tmp_path / "probe")
    assert again.info == probe.info
    assert again.classes == probe.classes
    assert torch.equal(again.weight, probe.weight)
    assert torch.equal(again.bias, probe.bias)
    require_fits(again, clip, tmp_path / "probe")
    other = replace(probe.info, clip_sha="0" * 16)  # type: ignore[type-var]
    with pytest.raises(UserError, match=r"was fitted on .* with weights 0000"):
        require_fits(again._replace(info=other), clip, tmp_path / "probe")
    info = replace(probe.info, reads="patches")  # type: ignore[type-var]
    with pytest.raises(UserError, match="reads patches"):
        require_fits(again._replace(info=info), clip, tmp_path / "probe")
    (tmp_path / "probe" / "probe.json").unlink()
    with pytest.raises(
        UserError, match=r"probe.json is missing .unfinished.*sae probe STORE --out"
    ):
        load_probe(tmp_path / "probe")


def write_saev_head(path: Path, linear: nn.Linear, **told: int) -> Path:
    """As saev's classification and segmentation trainings do: a line of JSON, then torch's zip."""
    header = {"in_features": linear.in_features, "out_features": linear.out_features, **told}
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(linear.state_dict(), file)
    return path


def test_saevs_heads_give_their_own_logits(tmp_path: Path) -> None:
    linear, x = nn.Linear(6, 3), torch.randn(5, 6)
    path = write_saev_head(tmp_path / "model.pt", linear)
    for place in (path, tmp_path):
        probe = load_probe(place)
        torch.testing.assert_close(probe.logits(x), linear(x))
        assert (probe.classes, probe.info) == (("0", "1", "2"), None)
    assert load_probe(path, ["cat", "dog", "eel"]).classes == ("cat", "dog", "eel")
    assert load_probe(path, ["cat", "dog"]).classes == ("0", "1", "2")


def test_what_is_no_probe_is_refused_in_one_line(tmp_path: Path, clip: Clip) -> None:
    linear = nn.Linear(6, 3)
    told = write_saev_head(tmp_path / "told.pt", linear, out_features=4)
    with pytest.raises(UserError, match="the settings tell classes 4, but the tensors have 3"):
        load_probe(told)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(write_saev_head(tmp_path / "model_step9.pt", linear).read_bytes()[:-99])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_probe(cut)
    torch.save(linear.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(UserError, match="is no probe: neither a folder of `sae probe`"):
        load_probe(tmp_path / "plain.pt")
    with pytest.raises(UserError, match="does not exist; `sae probe STORE --out"):
        load_probe(tmp_path / "none")
    with torch.no_grad():
        linear.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        load_probe(write_saev_head(tmp_path / "nan.pt", linear))
    wide = Probe(torch.zeros(2, 9), torch.zeros(2), ("a", "b"))
    with pytest.raises(UserError, match=r"reads vectors of 9 numbers, but .* pools 64"):
        require_fits(wide, clip, tmp_path / "wide.pt")


def test_the_command_writes_a_probe_and_refuses_what_it_cannot_fit(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"
    words = ("probe", store.path, "--out", out, "--json", tmp_path / "figures.json")
    assert sae(*words, "--holdout", 0.3, "--c", ".1,1") == 0
    assert "held-out images" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["n_train"] + figures["n_test"] == 23
    assert figures["c"] in (0.1, 1.0)
    assert sorted(path.name for path in out.iterdir()) == ["probe.json", "probe.safetensors"]
    assert sae(*words, "--c", "0,1") == 2
    assert "--c '0,1' is no list of numbers above 0" in capsys.readouterr().err
    assert sae("probe", store.path, "--out", tmp_path / "sketch") == 2
    assert "holds something else, no probe" in capsys.readouterr().err


def test_images_of_one_class_are_no_ground_for_a_probe(
    images: Images, tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(images, tmp_path / "store", clip, "0", "patch")
    store = EmbeddingStore.open(tmp_path / "store")
    store.images["label"] = ["cat"] * 12 + [""] * 11
    with pytest.raises(UserError, match="has 1 classes in the images to fit on"):
        fit_probe(store, clip, 0.0, [1.0])


def test_a_tower_without_blocks_is_refused_by_its_name(
    images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resnet = load_clip(small_clip(tmp_path / "resnet", RESNET), "cpu")
    run(images, tmp_path / "store", resnet, "projected", "cls")
    assert sae("probe", tmp_path / "store", "--out", tmp_path / "probe") == 2
    assert "of its ModifiedResNet is no row of tokens" in capsys.readouterr().err
    assert not (tmp_path / "probe").exists()
