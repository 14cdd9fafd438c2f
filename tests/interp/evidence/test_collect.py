"""interp/collect.py: one pass finds what a look at everything at once would find."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.evidence.collect import CollectConfig, collect
from interp.evidence.reader import EvidenceReader
from interp.evidence.stream import counts
from interp.evidence.stream.activations import Look, Pairs, sae_identity, second_look, see
from interp.evidence.stream.counts import Histogram
from interp.evidence.stream.first_pass import ImageIndex, Survey
from interp.evidence.stream.negatives import Candidates, choose_hard, neighbours, quotas
from interp.evidence.stream.top_k import image_digits, splitmix64
from interp.records.split import split_of
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from tests.support.interp.collected import (
    DEAD,
    DENSE,
    RARE,
    D,
    embeddings,
    image_acts_at_once,
    image_rows,
    make_sae,
    make_store,
    write_store,
)

N = 900
SMALL = CollectConfig(n_top=5, n_sample=15, n_silent=8, n_hard=6, n_neighbours=4, reservoir=120)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("cls") / "store", N)


@pytest.fixture(scope="module")
def reader(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    run = tmp_path_factory.mktemp("run")
    collect(store, make_sae(), run, SMALL, n_images=64)
    return EvidenceReader(run)


@pytest.fixture(scope="module")
def acts(store: EmbeddingStore) -> np.ndarray:
    return image_acts_at_once(store)


def test_counts_and_sums_equal_those_at_once(reader, store, acts) -> None:
    frame = reader.latents
    active = acts > 0
    assert frame["n_active"].tolist() == active.sum(0).tolist()
    np.testing.assert_allclose(frame["frequency"], active.mean(0))
    np.testing.assert_array_equal(frame["max_act"], acts.max(0))
    alive = np.arange(D) != DEAD
    means = acts.sum(0)[alive] / active.sum(0)[alive]
    np.testing.assert_allclose(frame["mean_act"][alive], means, rtol=1e-6)
    assert np.isnan(frame["mean_act"][DEAD])
    sketch = (store.images["domain"] == "sketch").to_numpy()
    rates = {"sketch": active[sketch].mean(0), "photo": active[~sketch].mean(0)}
    for domain, rate in rates.items():
        np.testing.assert_allclose([r[domain] for r in frame["domain_rate"]], rate)
    share = rates["sketch"][alive] / (rates["sketch"] + rates["photo"])[alive]
    np.testing.assert_allclose(frame["sketch_share"][alive], share)


def test_latents_are_dead_dense_or_live(reader) -> None:
    status = reader.latents["status"]
    assert status[DEAD] == "dead"
    assert status[DENSE] == "dense"
    assert status[RARE] == "live"
    assert reader.info.n_dead == 1
    assert RARE in reader.live()
    assert DEAD not in reader.live()
    assert DENSE not in reader.live()


def test_classes_equal_those_at_once_and_leave_out_the_unnamed(reader, store, acts) -> None:
    for latent in (DENSE, RARE, 11):
        labels = store.images["label"][acts[:, latent] > 0]
        counts = labels[labels != ""].value_counts()
        found = dict(reader.of(latent).stats.top_classes)
        assert found == counts.to_dict()
        share = counts / counts.sum()
        entropy = -(share * np.log2(share)).sum()
        assert reader.of(latent).stats.class_entropy == pytest.approx(entropy)


def test_too_many_classes_are_counted_in_the_sample(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(counts, "MAX_CLASS_CELLS", 1)
    info = collect(store, make_sae(), tmp_path, SMALL)
    assert not info.exact_classes
    evidence = EvidenceReader(tmp_path).of(RARE)
    labels = pd.Series(
        [e.label for e in evidence.examples if e.kind == "quantile" and e.label]
    ).value_counts()
    assert dict(evidence.stats.top_classes) == labels.to_dict()


@pytest.mark.parametrize("scale", [1.0, 1e-6, 3e5])
def test_histogram_is_off_by_at_most_a_fine_bin(scale: float) -> None:
    rng = np.random.default_rng(0)
    values = (rng.gamma(2.0, 1.0, 4000) * scale).astype(np.float32)
    histogram = Histogram(1)
    for part in np.array_split(values, 37):
        histogram.update(np.zeros(len(part), np.int64), part)
    found = np.cumsum(histogram.rebinned(values.max(keepdims=True))[0])
    edges = np.arange(1, 33) / 32
    share = values / values.max()
    for slack, compare in ((-1 / 256, np.greater_equal), (1 / 256, np.less_equal)):
        bound = np.array([(share <= e + slack).sum() for e in edges])
        assert compare(found, bound).all()
    assert found[-1] == len(values)


def test_histogram_does_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 3, 500)).astype(np.float32)
    results = []
    for order in (np.arange(500), np.argsort(values), np.argsort(-values)):
        histogram = Histogram(1)
        for value in values[order]:
            histogram.update(np.zeros(1, np.int64), np.array([value]))
        results.append(histogram.rebinned(values.max(keepdims=True)).tolist())
    assert results[0] == results[1] == results[2]


def test_histogram_of_known_values() -> None:
    histogram = Histogram(2)
    histogram.update(np.zeros(3, np.int64), np.array([1.0, 31.9, 15.5], np.float32))
    histogram.update(np.zeros(1, np.int64), np.array([32.0], np.float32))
    hist = histogram.rebinned(np.array([32.0, 0.0], np.float32))
    assert np.flatnonzero(hist[0]).tolist() == [1, 15, 31]
    assert hist[0, 31] == 2
    assert not hist[1].any()


def test_no_image_of_the_score_side_is_ever_on_the_explain_side(reader) -> None:
    frame = reader.examples
    assert set(frame["side"]) == {"explain", "score"}
    assert len(frame) == reader.info.n_examples > 1000
    for side, image_id in zip(frame["side"], frame["image_id"], strict=True):
        assert split_of(image_id) == side
    shown, tested = (set(frame["row"][frame["side"] == s]) for s in ("explain", "score"))
    assert not shown & tested


def test_top_images_over_a_stream_equal_top_images_at_once(reader, store, acts) -> None:
    images, digits = store.images, image_digits(store.images["image_id"].tolist())
    sides = images["image_id"].map(split_of)
    for latent in range(D):
        ties = splitmix64(digits ^ np.uint64(latent)) >> np.uint64(32)
        for side in ("explain", "score"):
            expected = []
            for domain in store.domains:
                here = (sides == side) & (images["domain"] == domain) & (acts[:, latent] > 0)
                rows = sorted(np.flatnonzero(here), key=lambda r: (-acts[r, latent], -int(ties[r])))
                expected += rows[: SMALL.n_top]
            expected.sort(key=lambda r: (-acts[r, latent], -int(ties[r])))
            found = reader.of(latent).of(side, "top")
            assert [e.row for e in found] == expected
            assert [e.rank for e in found] == list(range(len(expected)))
            assert [e.act for e in found] == [acts[r, latent] for r in expected]


def test_examples_say_what_the_store_says_of_their_image(reader, store, acts) -> None:
    frame, images = reader.examples, store.images
    for name in ("image_id", "domain", "label", "path"):
        assert frame[name].astype(str).tolist() == images[name][frame["row"]].tolist()
    np.testing.assert_array_equal(frame["act"], acts[frame["row"], frame["latent"]])


def test_quantile_images_are_active_and_as_many_as_asked(reader, store, acts) -> None:
    sides = store.images["image_id"].map(split_of).to_numpy()
    for latent in range(D):
        for side in ("explain", "score"):
            found = reader.of(latent).of(side, "quantile")
            n_active = int(((acts[:, latent] > 0) & (sides == side)).sum())
            assert len({e.row for e in found}) == len(found) == min(SMALL.n_sample, n_active)
            assert all(acts[e.row, latent] > 0 for e in found)


def test_strata_are_equal_and_rise_with_activation(reader) -> None:
    found = reader.of(DENSE).of("score", "quantile")
    assert np.bincount([e.stratum for e in found]).tolist() == [3, 3, 3, 3, 3]
    assert [e.stratum for e in found] == sorted((e.stratum for e in found), reverse=True)
    assert [e.act for e in found] == sorted((e.act for e in found), reverse=True)


def test_quantile_sample_is_even_over_activations(reader, acts) -> None:
    """Mean percentile of some 600 sampled images is .5, with a standard error of .012."""
    percentiles = []
    for latent in np.flatnonzero((acts > 0).sum(0) > 80):
        ranks = pd.Series(acts[:, latent][acts[:, latent] > 0]).rank(pct=True)
        lookup = dict(zip(acts[:, latent][acts[:, latent] > 0], ranks, strict=True))
        examples = reader.of(int(latent)).examples
        percentiles += [lookup[np.float32(e.act)] for e in examples if e.kind == "quantile"]
    assert len(percentiles) > 500
    assert np.mean(percentiles) == pytest.approx(0.5, abs=0.05)


def test_negatives_leave_the_latent_at_zero_and_appear_once(reader, acts) -> None:
    frame = reader.examples
    negative = frame[frame["kind"].isin(["silent", "hard"])]
    assert not acts[negative["row"], negative["latent"]].any()
    assert not negative.duplicated(["latent", "row"]).any()


def test_negatives_have_the_domain_mix_of_the_positives(reader, store, acts) -> None:
    sides = store.images["image_id"].map(split_of).to_numpy()
    domains = store.images["domain"].to_numpy()
    for latent in reader.live():
        for side in ("explain", "score"):
            active = (acts[:, latent] > 0) & (sides == side)
            n_sketch = int((active & (domains == "sketch")).sum())
            found = reader.of(latent).of(side, "silent")
            assert len(found) == SMALL.n_silent
            exact = SMALL.n_silent * n_sketch / active.sum()
            assert abs(sum(e.domain == "sketch" for e in found) - exact) < 1
            assert [e.rank for e in found] == list(range(len(found)))


def test_no_negatives_of_a_domain_in_which_the_latent_is_never_active(tmp_path) -> None:
    x, rows = embeddings(300), image_rows(300)
    photo = torch.tensor([row.domain == "photo" for row in rows])
    x[photo, :, 11] = 0
    store = write_store(tmp_path / "store", x, rows)
    collect(store, make_sae(), tmp_path / "run", SMALL)
    examples = EvidenceReader(tmp_path / "run").of(11).examples
    assert {e.kind for e in examples} == {"top", "quantile", "silent", "hard"}
    assert {e.domain for e in examples} == {"sketch"}


def test_hard_images_are_strongest_for_a_near_latent(reader, store, acts) -> None:
    near = neighbours(make_sae().W_dec, acts.any(0), SMALL.n_neighbours)
    by_latent = {n: {e.row for e in reader.of(n).examples if e.kind == "top"} for n in range(D)}
    n_found = 0
    for latent in reader.live():
        allowed = set().union(*(by_latent[n] for n in near[latent]))
        hard = [e for e in reader.of(latent).examples if e.kind == "hard"]
        assert {e.row for e in hard} <= allowed
        n_found += len(hard)
    assert n_found > 10 * len(reader.live())  # of at most 12: a few candidates are active


def test_hard_images_fill_each_domains_quota_and_are_mixed_from_the_first() -> None:
    zeros = np.zeros(8, np.int64)
    domains = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    found = Candidates(zeros, zeros, domains, np.array([1, 2, 1, 3, 4, 11, 12, 13]))
    silent = np.array([True, False, True, True, True, True, True, True])
    chosen = choose_hard(found, silent, np.array([[[2, 1], [0, 0]]]))
    assert chosen.rows.tolist() == [1, 11, 3]
    assert chosen.ranks.tolist() == [0, 1, 2]


def test_a_kept_positive_is_never_a_negative_even_if_the_second_look_differs(
    store, tmp_path, monkeypatch
) -> None:
    def rounded_away(*args: Any, **kwargs: Any) -> Look:
        look = second_look(*args, **kwargs)
        return Look(np.zeros_like(look.acts), look.heat, Pairs(*np.zeros((2, 0), np.int64)))

    monkeypatch.setattr("interp.evidence.collect.second_look", rounded_away)
    collect(store, make_sae(), tmp_path, SMALL)
    frame = EvidenceReader(tmp_path).examples
    positive = frame["kind"].isin(["top", "quantile"])
    pairs = [
        set(zip(f["latent"], f["row"], strict=True)) for f in (frame[positive], frame[~positive])
    ]
    assert all(pairs)
    assert not pairs[0] & pairs[1]


def test_neighbours_are_the_nearest_living_rows_by_cosine() -> None:
    w_dec = torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.01]])
    alive = np.array([True, True, True, True, False])
    assert neighbours(w_dec, alive, 2).tolist()[0] == [1, 2]
    assert neighbours(w_dec, alive, 9)[0].tolist() == [1, 2, 3, -1, -1, -1, -1, -1, -1]


def test_quotas_follow_the_active_images_and_add_up() -> None:
    n_active = np.array([[[30, 10], [0, 0]], [[1, 1], [1, 2]]])
    assert quotas(n_active, 9).tolist() == [[[7, 2], [0, 0]], [[5, 4], [3, 6]]]


@pytest.mark.parametrize(("t", "grid"), [(6, [2, 3]), (7, [2, 3])])
def test_heat_maps_equal_those_at_once(t: int, grid: list[int], tmp_path) -> None:
    store = make_store(tmp_path / "store", 200, t, grid)
    collect(store, make_sae(), tmp_path / "run", SMALL, n_images=33)
    reader = EvidenceReader(tmp_path / "run")
    x, acts = store.read(np.arange(200)).float().numpy(), image_acts_at_once(store)
    seen = {"top": 0, "quantile": 0, "silent": 0, "hard": 0}
    for example in (e for latent in range(D) for e in reader.of(latent).examples):
        seen[example.kind] += 1
        assert example.act == acts[example.row, example.latent]
        if example.kind in ("silent", "hard"):
            assert example.heat is None
            continue
        tokens = x[example.row, :, example.latent]
        expected = np.round(255 * tokens / tokens.max())[-6:].astype(int)
        assert list(example.heat) == expected.tolist()
    assert min(seen.values()) > 20


@pytest.mark.parametrize("n_images", [7, 100, 1000])
def test_result_does_not_depend_on_the_batch_size(n_images: int, reader, store, tmp_path) -> None:
    run = tmp_path / "run"
    collect(store, make_sae(), run, SMALL, n_images=n_images)
    for name in ("latents.parquet", "examples.parquet"):
        one, other = (folder / "collect" / name for folder in (run, reader.run_dir))
        assert one.read_bytes() == other.read_bytes()


def test_result_does_not_depend_on_the_order_of_images(reader, tmp_path) -> None:
    x, rows = embeddings(N), image_rows(N)
    order = np.random.default_rng(5).permutation(N)
    store = write_store(tmp_path / "store", x[order], [rows[i] for i in order])
    collect(store, make_sae(), tmp_path / "run", SMALL)
    columns = ["latent", "side", "kind", "rank", "stratum", "image_id", "act"]
    one, other = (
        r.examples[columns].astype({"image_id": str})
        for r in (reader, EvidenceReader(tmp_path / "run"))
    )
    pd.testing.assert_frame_equal(one, other)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("interp.evidence.stream.top_k._MIN_PENDING", 64)
    sizes = []
    for n_images in (500, 1500, 6000):  # the first warms Python's own caches up
        store = make_store(tmp_path / str(n_images), n_images)
        index = ImageIndex.of(store.images, tuple(store.domains))
        tracemalloc.start()
        survey = Survey(index, D, SMALL.n_top, SMALL.n_sample, SMALL.reservoir)
        # As many batches each time: torch holds on to some 100 bytes a call.
        for seen in see(store, make_sae(), torch.device("cpu"), n_images=n_images // 15):
            survey.update(seen)
        del seen
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert sizes[2] < 1.15 * sizes[1]


def test_a_finished_folder_is_left_alone(store, tmp_path) -> None:
    model, calls = make_sae(), []
    first = collect(store, model, tmp_path, SMALL, progress=lambda *seen: calls.append(seen))
    assert calls[-1][0] == calls[-1][1] > N
    before = _stamps(tmp_path)
    calls.clear()
    assert collect(store, model, tmp_path, SMALL, progress=lambda *s: calls.append(s)) == first
    assert not calls
    assert _stamps(tmp_path) == before


def test_other_settings_are_refused_unless_overwritten(store, tmp_path) -> None:
    collect(store, make_sae(), tmp_path, SMALL)
    with pytest.raises(UserError, match=r"n_top 5, not 16; add --overwrite"):
        collect(store, make_sae(), tmp_path)
    other = make_sae()
    with torch.no_grad():
        other.b_enc[0] += 0.5
    with pytest.raises(UserError, match="sae_identity"):
        collect(store, other, tmp_path, SMALL)
    info = collect(store, make_sae(), tmp_path, CollectConfig(n_top=2), overwrite=True)
    assert info.n_top == EvidenceReader(tmp_path).info.n_top == 2


def test_a_stopped_collect_is_unfinished_and_goes_on(store, tmp_path, monkeypatch) -> None:
    collect(store, make_sae(), tmp_path, SMALL)

    def stop(*_: object) -> Iterator[None]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("interp.evidence.collect.example_table", stop)
        with pytest.raises(KeyboardInterrupt):
            collect(store, make_sae(), tmp_path, SMALL, overwrite=True)
    with pytest.raises(UserError, match="interp collect"):
        EvidenceReader(tmp_path)
    collect(store, make_sae(), tmp_path, SMALL)
    assert EvidenceReader(tmp_path).info.n_live > 0


def test_a_store_that_moved_is_found_again(store, tmp_path) -> None:
    shutil.copytree(store.path, tmp_path / "old")
    collect(EmbeddingStore.open(tmp_path / "old"), make_sae(), tmp_path / "run", SMALL)
    (tmp_path / "old").rename(tmp_path / "new")
    info = collect(EmbeddingStore.open(tmp_path / "new"), make_sae(), tmp_path / "run", SMALL)
    assert info.store == "../new"
    assert json.loads((tmp_path / "run/collect/collect.json").read_text())["store"] == "../new"
    assert EvidenceReader(tmp_path / "run").store.info.n_images == N


def test_an_embedding_that_is_not_finite_is_named(tmp_path) -> None:
    x = embeddings(60)
    x[41, 0, 3] = float("nan")
    store = write_store(tmp_path / "store", x, image_rows(60))
    with pytest.raises(UserError, match=r"row 41 \(.*41\.png\) is not finite"):
        collect(store, make_sae(), tmp_path / "run", SMALL)


def test_a_store_of_another_width_is_refused(tmp_path) -> None:
    store = make_store(tmp_path / "store", 30)
    other = make_sae()
    other.config = type(other.config)(d=D + 1, n_latents=D, k=6)
    with pytest.raises(UserError, match="25"):
        collect(store, other, tmp_path / "run", SMALL)


def test_an_sae_that_never_fires_is_all_dead(tmp_path) -> None:
    store = write_store(tmp_path / "store", torch.zeros(30, 1, D), image_rows(30))
    info = collect(store, make_sae(), tmp_path / "run", SMALL)
    assert (info.n_dead, info.n_examples) == (D, 0)
    assert EvidenceReader(tmp_path / "run").of(0).examples == ()


@pytest.mark.parametrize(
    "bad", [{"n_top": 0}, {"n_silent": 3000}, {"dense_above": 1.5}, {"n_hard": -1}]
)
def test_settings_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        CollectConfig(**bad)


def _stamps(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "collect").iterdir()}


def test_what_an_sae_does_to_its_input_is_part_of_its_identity() -> None:
    plain = SAE(SAEConfig(d=4, n_latents=8, k=2))
    others = [
        SAE(replace(plain.config, **c)) for c in ({"input_norm": "layer_norm"}, {"soft_cap": 30.0})
    ]
    assert len({sae_identity(model) for model in (plain, *others)}) == 3
    assert sae_identity(plain) == sae_identity(SAE(replace(plain.config, layer="3")))
