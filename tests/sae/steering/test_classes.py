"""Which latents a class has: counts, means, lifts and rankings, from the issue's own words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sae.core.errors import UserError
from sae.data.classes.config import ClassConfig
from sae.data.classes.latents import ClassLatents, read_class_latents, read_counts
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.steering.classes import find_class_latents, read_latent_labels
from tests.support.interp.collected import (
    D,
    embeddings,
    image_rows,
    make_sae,
    make_store,
    write_store,
)

N, T = 90, 5
NAMES = ["cat", "wheel"]
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """Latent i of `make_sae` says of a token what stands in its dimension i."""
    return make_store(tmp_path_factory.mktemp("store") / "s", N, t=T, grid=[2, 2])


@pytest.fixture(scope="module")
def folder(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "classes"
    find_class_latents(make_sae(), store, out, ClassConfig(threshold=4, top=5))
    return out


def by_numpy(store: EmbeddingStore, pool: str, threshold: float) -> Arrays:
    """(n_classes, D) both: tokens above the threshold, and the mean of the pooled activation."""
    z = store.read(np.arange(N)).double().numpy()  # (N, T, D)
    pooled = {"max": z.max(1), "mean": z.sum(1), "sum": z.sum(1), "cls": z[:, 0]}[pool]
    labels = store.images["label"].to_numpy()
    counts = [(z[labels == name] > threshold).sum((0, 1)) for name in NAMES]
    means = [pooled[labels == name].mean(0) for name in NAMES]
    return np.array(counts, float), np.array(means) / (T if pool == "mean" else 1)


def read(folder: Path) -> ClassLatents:
    return read_class_latents(folder, D, sae_identity(make_sae()), NAMES)


@pytest.mark.parametrize("pool", ["max", "mean", "sum", "cls"])
@pytest.mark.parametrize("by", ["count", "mean", "lift"])
def test_counts_means_lifts_and_ranks_are_those_of_plain_numpy(
    store: EmbeddingStore, tmp_path: Path, pool: str, by: str
) -> None:
    how = ClassConfig(threshold=7, pool=pool, by=by, top=14, max_classes=0.6)
    info = find_class_latents(make_sae(), store, tmp_path / "c", how)
    counts, means = by_numpy(store, pool, 7)
    sizes = np.array([(store.images["label"] == name).sum() for name in NAMES])
    overall = (means * sizes[:, None]).sum(0) / sizes.sum()
    lifts = np.where(overall > 0, means / np.maximum(overall, 1e-30), 0)
    found = np.load(tmp_path / "c/cls_sae_cnt.npy")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, counts.T)  # (n_latents, n_classes), as PatchSAE says
    np.testing.assert_allclose(np.load(tmp_path / "c/cls_sae_mean.npy"), means.T, rtol=1e-6)

    scores = {"count": counts, "mean": means, "lift": lifts}[by]
    scores = scores.astype(np.float32).round(4) if by == "lift" else scores
    firsts = [
        sorted(range(D), key=lambda i: (-s[i], -m[i], i))
        for s, m in zip(scores, means, strict=True)
    ]
    shown = [[i for i in first[:14] if s[i] > 0] for first, s in zip(firsts, scores, strict=True)]
    shared = {i for i in range(D) if sum(i in one for one in shown) > 0.6 * 2}
    assert shared  # some belong to no class
    assert info.n_left_out == len(shared)
    table = pd.read_parquet(tmp_path / "c/classes.parquet")
    for number, name in enumerate(NAMES):
        part = table[table["class"] == name]
        kept = [i for i in firsts[number] if i not in shared and scores[number, i] > 0][:14]
        assert part["latent"].tolist() == kept
        assert part["rank"].tolist() == list(range(1, len(kept) + 1))
        np.testing.assert_array_equal(part["count"], counts[number, kept])
        np.testing.assert_allclose(part["mean"], means[number, kept], rtol=1e-6)
        np.testing.assert_allclose(part["lift"], lifts[number, kept], rtol=1e-5)
        last = [i for i in firsts[number] if i in shared]
        assert read(tmp_path / "c").order[number].tolist()[-len(last) :] == last


def test_images_without_a_class_count_for_none_and_labels_stand_beside_the_latents(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/labels.csv").write_text("latent_id,label\n0,round\n5,'=red\n2,\n", "utf-8-sig")
    how = ClassConfig(max_classes=1)
    info = find_class_latents(make_sae(), store, tmp_path / "c", how, tmp_path / "run")
    assert (info.names, sum(info.n_images)) == (NAMES, int((store.images["label"] != "").sum()))
    table = pd.read_parquet(tmp_path / "c/classes.parquet")
    words = dict(zip(table["latent"], table["label"], strict=True))
    assert (words[0], words[1], words.get(5, "=red")) == ("round", "", "=red")
    (tmp_path / "theirs.csv").write_text("latent_id,interpretation\n1,wheels\n")
    assert read_latent_labels(tmp_path / "theirs.csv", 3) == ["", "wheels", ""]


def test_a_guess_keeps_its_mark_and_gets_one_where_an_older_table_has_none(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(
        "latent_id,interpretation,label,verdict\n0,circle,circle,unclear\n1,face,face,single\n"
    )
    assert read_latent_labels(tmp_path / "old.csv", 2) == ["circle (unclear)", "face"]
    (tmp_path / "new.csv").write_text(
        "latent_id,interpretation,label,verdict\n"
        "0,circle (unclear),circle (unclear),unclear\n1,face; also cloud,face,several\n"
    )
    assert read_latent_labels(tmp_path / "new.csv", 2) == ["circle (unclear)", "face; also cloud"]


def test_patchsaes_own_files_are_read_whichever_way_they_lie(
    folder: Path, store: EmbeddingStore, tmp_path: Path
) -> None:
    counts, _ = by_numpy(store, "max", 4)
    for lies in (counts, counts.T):  # as its code writes it, and as its README says
        np.save(tmp_path / "cls_sae_cnt.npy", lies)
        bare = read(tmp_path)
        np.testing.assert_array_equal(bare.counts, counts)
        assert bare.names == NAMES
        assert bare.order[0].tolist() == sorted(range(D), key=lambda i: (-counts[0, i], i))
    (tmp_path / "export.json").write_text(json.dumps({"class_names": ["a_b", "wheel", "a-b"]}))
    np.save(tmp_path / "cls_sae_cnt.npy", np.stack([counts[0], counts[1], 2 * counts[0]]))
    merged = read(tmp_path)  # two folders of one class
    assert merged.names == ["a b", "wheel"]
    np.testing.assert_array_equal(merged.counts, np.stack([3 * counts[0], counts[1]]))
    square = np.arange(9.0).reshape(3, 3)
    np.save(tmp_path / "square.npy", square)
    np.testing.assert_array_equal(read_counts(tmp_path / "square.npy", 3, 3), square.T)
    np.testing.assert_array_equal(read_counts(tmp_path / "square.npy", 3, 3, "classes"), square)
    with pytest.raises(UserError, match="nothing says which axis is which"):
        read_counts(tmp_path / "square.npy", 3, 3, "")


def test_what_does_not_fit_is_refused_in_a_line(
    folder: Path, store: EmbeddingStore, tmp_path: Path
) -> None:
    def refused(words: str, place: Path, n_latents: int = D, identity: str = "") -> None:
        with pytest.raises(UserError, match=words) as error:
            read_class_latents(place, n_latents, identity or sae_identity(make_sae()), NAMES)
        assert "\n" not in str(error.value)

    refused("is no folder", tmp_path / "gone")
    refused("cls_sae_cnt.npy is missing", tmp_path)
    refused(f"{D} latents, this one has 7", folder, n_latents=7)
    refused("of another SAE", folder, identity="0" * 64)
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    np.save(changed / "cls_sae_cnt.npy", np.ones((D + 1, 2)))
    refused(rf"holds \({D + 1}, 2\) float64, but the SAE has {D} latents", changed)
    np.save(changed / "cls_sae_cnt.npy", np.full((D, 2), np.nan))
    refused("no counts", changed)
    np.save(changed / "cls_sae_cnt.npy", np.array([object()]), allow_pickle=True)
    refused("no array of numbers", changed)
    shutil.copy(folder / "cls_sae_cnt.npy", changed)
    table = pd.read_parquet(changed / "classes.parquet")
    table.replace({"class": {"cat": "dog"}}).to_parquet(changed / "classes.parquet", index=False)
    refused("has the class 'dog', classes.json has not", changed)


def test_settings_that_cannot_be_are_refused_before_any_work(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    for wrong, words in (
        ({"threshold": -1.0}, "threshold is -1"),
        ({"pool": "min"}, "pool 'min' is none of max, mean, sum, cls"),
        ({"by": "size"}, "by 'size' is none of count, mean, lift"),
        ({"top": 0}, "top is 0"),
        ({"max_classes": 0.0}, "max_classes is 0"),
    ):
        with pytest.raises(UserError, match=words):
            ClassConfig(**wrong)  # type: ignore[arg-type]
    one = write_store(
        tmp_path / "one", embeddings(9), [row._replace(label="cat") for row in image_rows(9)]
    )
    with pytest.raises(UserError, match="has 1 classes; two are needed"):
        find_class_latents(make_sae(), one, tmp_path / "c", ClassConfig())
    patches = make_store(tmp_path / "p", 9, t=4, grid=[2, 2])
    with pytest.raises(UserError, match="pool 'cls' needs CLS tokens"):
        find_class_latents(make_sae(), patches, tmp_path / "c", ClassConfig(pool="cls"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        find_class_latents(make_sae(), store, tmp_path / "full", ClassConfig())
    with pytest.raises(UserError, match=r"no .*labels.csv; `interp explain` writes it"):
        read_latent_labels(tmp_path, D)
    for text, words in (
        ("latent_id,label\n99,x\n", f"has {D} latents, none is 99"),
        ("latent_id,label\nx,x\n", "cannot be read as a table of labels"),
        ("a,b\n1,2\n", "no columns latent_id and label"),
    ):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            read_latent_labels(tmp_path / "labels.csv", D)
    assert not (tmp_path / "c").exists()


def test_an_sae_with_negative_activations_counts_what_is_above_the_threshold(
    tmp_path: Path,
) -> None:
    x = torch.tensor([[[3.0, -2.0], [1.0, 0.5]], [[-4.0, 1.0], [0.1, -0.3]]])
    whole = torch.zeros(2, 2, D)
    whole[..., :2] = x
    rows = [row._replace(label=name) for row, name in zip(image_rows(2), "ab", strict=True)]
    store = write_store(tmp_path / "s", whole, rows, grid=[1, 2])
    model = make_sae(k=D)
    model.config = replace(model.config, activation="signed_topk")
    find_class_latents(model, store, tmp_path / "c", ClassConfig(threshold=0.2, pool="sum"))
    np.testing.assert_array_equal(np.load(tmp_path / "c/cls_sae_cnt.npy")[:2], [[2, 0], [1, 1]])
    means = np.load(tmp_path / "c/cls_sae_mean.npy")[:2]
    np.testing.assert_allclose(means, [[4, -3.9], [-1.5, 0.7]], rtol=1e-3)
