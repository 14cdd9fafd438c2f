"""PatchSAE's files: what its own scripts would leave, and which images they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.evidence.patchsae_export import ExportInfo, export_patchsae
from sae.core.errors import OK, USAGE, UserError
from sae.core.files import read_config
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from tests.support.commands import interp
from tests.support.interp.collected import (
    CLASSES,
    DEAD,
    D,
    embeddings,
    image_rows,
    make_sae,
    make_store,
    write_store,
)
from tests.support.sae.foreign_stores import LATENTS

N, T = 150, 5
FILES = {
    "max_activating_image_indices.pt": ((D, 10), torch.float32),
    "max_activating_image_values.pt": ((D, 10), torch.float32),
    "max_activating_image_label_indices.pt": ((D, 10), torch.int64),
    "sae_mean_acts.pt": ((D,), torch.float32),
    "sae_sparsity.pt": ((D,), torch.float32),
}


def _load(folder: Path, name: str) -> torch.Tensor:
    found = torch.load(folder / f"{name}.pt", weights_only=True)
    assert isinstance(found, torch.Tensor)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("store") / "s", N, t=T, grid=[2, 2])


@pytest.fixture(scope="module")
def out(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "patchsae"
    export_patchsae(store, make_sae(), folder, threshold=4.0)
    return folder


@pytest.fixture(scope="module")
def tokens(store: EmbeddingStore) -> torch.Tensor:
    """(N, T, D): what every latent says of every token."""
    return store.read(np.arange(N)).float()


def test_shapes_types_and_names_are_patchsaes(out: Path) -> None:
    for name, (shape, dtype) in FILES.items():
        found = torch.load(out / name, weights_only=True)
        assert (tuple(found.shape), found.dtype) == (shape, dtype)
    others = {"cls_sae_cnt.npy", "images.parquet", "export.json"}
    assert {path.name for path in out.iterdir()} == set(FILES) | others


def test_statistics_are_those_of_its_own_formulas(out: Path, tokens: torch.Tensor) -> None:
    score = tokens.mean(1)  # (N, D)
    active = score > 0
    torch.testing.assert_close(_load(out, "sae_sparsity"), active.float().mean(0))
    mean_acts = _load(out, "sae_mean_acts")
    torch.testing.assert_close(mean_acts, score.sum(0) / active.sum(0), equal_nan=True)
    assert mean_acts.isnan().nonzero().tolist() == [[DEAD]]
    values, rows = (_load(out, f"max_activating_image_{n}") for n in ("values", "indices"))
    torch.testing.assert_close(values, score.T.topk(10).values)
    found = score.T.gather(1, rows.long())
    torch.testing.assert_close(values[values > 0], found[values > 0])
    assert (rows[values == 0] == 0).all()
    assert (values[DEAD] == 0).all()


def test_classes_are_counted_by_token_above_the_threshold(
    out: Path, store: EmbeddingStore, tokens: torch.Tensor
) -> None:
    counts = np.load(out / "cls_sae_cnt.npy", allow_pickle=False)
    labels = store.images["label"].to_numpy()
    names = sorted(set(CLASSES) - {""})
    expected = np.stack([(tokens[labels == name] > 4).sum((0, 1)).numpy() for name in names])
    assert counts.dtype == np.float64
    np.testing.assert_array_equal(counts, expected)
    indices = _load(out, "max_activating_image_indices").long()
    numbers = np.array([names.index(label) if label else -1 for label in labels])
    found = _load(out, "max_activating_image_label_indices").numpy()
    np.testing.assert_array_equal(found, numbers[indices.numpy()])


def test_the_rows_images_and_the_origin_lie_beside(out: Path, store: EmbeddingStore) -> None:
    images = pd.read_parquet(out / "images.parquet")
    assert images["row"].tolist() == list(range(N))
    for name in ("image_id", "path", "domain", "label"):
        assert images[name].tolist() == store.images[name].tolist()
    info = read_config(out / "export.json", ExportInfo)
    assert (info.store_identity, info.threshold) == (store.info.identity, 4.0)
    named = [info.class_names[i] if i >= 0 else "" for i in images["label_index"]]
    assert named == store.images["label"].tolist()


def test_without_classes_the_files_of_classes_are_left_out(tmp_path: Path) -> None:
    rows = [row._replace(label="") for row in image_rows(12)]
    store = write_store(tmp_path / "s", embeddings(12), rows)
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text("{}")
    (out / "cls_sae_cnt.npy").write_bytes(b"of an earlier export")
    export_patchsae(store, make_sae(), out)
    assert "cls_sae_cnt.npy" not in {path.name for path in out.iterdir()}
    assert len(list(out.glob("*.pt"))) == 4
    assert _load(out, "max_activating_image_values").shape == (D, 10)  # of 12 images
    with pytest.raises(UserError, match="is a file"):
        export_patchsae(store, make_sae(), out / "export.json")


def test_collect_exports_on_request_also_when_it_has_collected_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("collect", LATENTS, "--run", tmp_path / "run")
    assert interp(*words) == OK
    assert interp(*words, "--export", "patchsae", tmp_path / "out") == OK
    assert _load(tmp_path / "out", "sae_sparsity").shape == (128,)
    assert f"export:   {tmp_path / 'out'}" in capsys.readouterr().out
    assert interp(*words, "--export", "csv", tmp_path / "b") == USAGE
    assert "--export 'csv' is not known" in capsys.readouterr().err


def test_all_files_are_those_of_plain_numpy_for_a_relu_sae(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    model = SAE(SAEConfig(d=D, n_latents=40, k=0, activation="relu"))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.from_numpy(0.05 * rng.normal(size=value.shape)))
        model.b_enc[3] = -1000  # a latent that never fires
    export_patchsae(store, model, tmp_path / "out", threshold=0.2)
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    x = store.read(np.arange(N)).double().numpy()  # (N, T, D)
    z = np.maximum((x - w["b_dec"]) @ w["W_enc"].T + w["b_enc"], 0)
    score = z.mean(1)  # an image's: the mean over all its tokens
    first = np.argsort(-score, axis=0, kind="stable")[:10].T  # (40, 10)
    near = {"rtol": 4e-6, "atol": 4e-6}
    values = _load(tmp_path / "out", "max_activating_image_values").numpy()
    np.testing.assert_allclose(values, np.take_along_axis(score.T, first, 1), **near)
    fired = np.arange(40) != 3
    rows = _load(tmp_path / "out", "max_activating_image_indices").numpy()
    np.testing.assert_array_equal(rows[fired], first[fired])
    with np.errstate(invalid="ignore"):
        mean_acts = score.sum(0) / (score > 0).sum(0)
    np.testing.assert_allclose(_load(tmp_path / "out", "sae_mean_acts").numpy(), mean_acts, **near)
    sparsity = _load(tmp_path / "out", "sae_sparsity").numpy()
    np.testing.assert_allclose(sparsity, (score > 0).mean(0), **near)
    labels = store.images["label"].to_numpy()
    names = sorted(set(labels) - {""})
    assert not ((z > 0.2 - 1e-6) & (z < 0.2 + 1e-6)).any()  # nothing at the threshold itself
    expected = np.stack([(z[labels == name] > 0.2).sum((0, 1)) for name in names])
    np.testing.assert_array_equal(np.load(tmp_path / "out/cls_sae_cnt.npy"), expected)
    numbers = np.array([names.index(label) if label else -1 for label in labels])
    found = _load(tmp_path / "out", "max_activating_image_label_indices").numpy()
    np.testing.assert_array_equal(found[fired], numbers[first[fired]])
