"""Which images one pass keeps of a latent, and their heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.evidence.collect import collect
from interp.evidence.reader import EvidenceReader
from interp.evidence.stream.activations import Active, Look, look_again
from interp.evidence.stream.negatives import (
    Candidates,
    choose_hard,
    find_neighbours,
    share_by_domain,
)
from interp.evidence.stream.top_k import image_digits, splitmix64
from interp.records.split import split_of
from tests.support.interp.collected import (
    DENSE,
    D,
    embeddings,
    image_acts_at_once,
    image_rows,
    make_sae,
    make_store,
    write_store,
)
from tests.support.interp.one_pass import SMALL


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
    near = find_neighbours(make_sae().W_dec, acts.any(0), SMALL.n_neighbours)
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
        look = look_again(*args, **kwargs)
        nothing = Active(*np.zeros((2, 0), np.int64), np.zeros(0, np.float32))
        return look._replace(acts=np.zeros_like(look.acts), active=nothing)

    monkeypatch.setattr("interp.evidence.stream.together.look_again", rounded_away)
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
    assert find_neighbours(w_dec, alive, 2).tolist()[0] == [1, 2]
    assert find_neighbours(w_dec, alive, 9)[0].tolist() == [1, 2, 3, -1, -1, -1, -1, -1, -1]


def test_quotas_follow_the_active_images_and_add_up() -> None:
    n_active = np.array([[[30, 10], [0, 0]], [[1, 1], [1, 2]]])
    assert share_by_domain(n_active, 9).tolist() == [[[7, 2], [0, 0]], [[5, 4], [3, 6]]]


@pytest.mark.parametrize(("t", "grid"), [(6, [2, 3]), (7, [2, 3])])
def test_heat_maps_equal_those_at_once(t: int, grid: list[int], tmp_path) -> None:
    store = make_store(tmp_path / "store", 200, t, grid)
    collect(store, make_sae(), tmp_path / "run", SMALL, n_images=33)
    reader = EvidenceReader(tmp_path / "run")
    x, acts = store.read(np.arange(200)).float().numpy(), image_acts_at_once(store)
    seen = {"top": 0, "quantile": 0, "silent": 0, "hard": 0, "weak": 0}
    for example in (e for latent in range(D) for e in reader.of(latent).examples):
        seen[example.kind] += 1
        assert example.act == acts[example.row, example.latent]
        if not example.is_positive:
            assert example.heat is None
            continue
        tokens = x[example.row, :, example.latent]
        expected = np.round(255 * tokens / tokens.max())[-6:].astype(int)
        assert list(example.heat) == expected.tolist()
    assert min(seen.values()) > 10
