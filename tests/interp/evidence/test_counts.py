"""Statistics of a latent over a stream equal those of everything at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.evidence.collect import collect
from interp.evidence.reader import EvidenceReader
from interp.evidence.stream import counts
from interp.evidence.stream.counts import Histogram
from interp.records.split import split_of
from tests.support.interp.collected import (
    DEAD,
    DENSE,
    RARE,
    D,
    make_sae,
)
from tests.support.interp.one_pass import SMALL


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


def test_the_score_side_is_counted_by_domain(reader, store, acts) -> None:
    held = np.array([split_of(one) == "score" for one in store.images["image_id"]])
    for latent in (DENSE, RARE, DEAD, 11):
        for domain, active, silent in reader.of(latent).stats.held_out:
            there = acts[held & (store.images["domain"] == domain).to_numpy(), latent] > 0
            assert (active, silent) == (there.sum(), (~there).sum())
    assert [one.domain for one in reader.stats(11).held_out] == reader.info.domains


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
    found = np.cumsum(histogram.rebin(values.max(keepdims=True))[0])
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
        results.append(histogram.rebin(values.max(keepdims=True)).tolist())
    assert results[0] == results[1] == results[2]


def test_histogram_of_known_values() -> None:
    histogram = Histogram(2)
    histogram.update(np.zeros(3, np.int64), np.array([1.0, 31.9, 15.5], np.float32))
    histogram.update(np.zeros(1, np.int64), np.array([32.0], np.float32))
    hist = histogram.rebin(np.array([32.0, 0.0], np.float32))
    assert np.flatnonzero(hist[0]).tolist() == [1, 15, 31]
    assert hist[0, 31] == 2
    assert not hist[1].any()
