"""Stores of several tokens an image: what counts as dense, how tokens become one activation, and
what stands in for silent images where a latent has too few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.reader import EvidenceReader
from interp.records.split import split_of
from interp.records.types import SIDES
from interp.score.sampling import SampleConfig, draw_sample
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from tests.support.commands import interp
from tests.support.interp.collected import D, embeddings, image_rows, make_sae, write_store
from tests.support.interp.one_pass import SMALL

N, GRID = 240, [2, 3]
EVERYWHERE = 11
"""On one patch of every image, and on two of every second: 1/4 of 6 patches, all images."""


def tokens(t: int) -> torch.Tensor:
    x = embeddings(N, t)
    x[:, :, EVERYWHERE] = 0
    rng = np.random.default_rng(3)
    for row in range(N):
        places = t - 6 + rng.permutation(6)[: 1 + row % 2]
        x[row, places, EVERYWHERE] = torch.from_numpy(rng.integers(1, 200, len(places))).float()
    return x


@pytest.fixture(scope="module", params=[6, 7], ids=["patch", "all"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("tokens") / "store"
    return write_store(place, tokens(request.param), image_rows(N), GRID)


@pytest.fixture(scope="module")
def reader(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    run = tmp_path_factory.mktemp("run")
    collect(store, make_sae(D), run, SMALL, n_images=50)
    return EvidenceReader(run)


def of_tokens(store: EmbeddingStore) -> NDArray[np.float32]:
    """(n_images, t, D): every latent's activation on every token."""
    return store.read(np.arange(N)).float().numpy()


def pooled(x: NDArray[np.float32], pool: str) -> NDArray[np.float32]:
    return {"max": x.max(1), "mean": x.mean(1), "sum": x.sum(1), "cls": x[:, 0]}[pool]


def test_status_goes_by_the_share_of_tokens_and_frequency_stays_per_image(reader, store) -> None:
    active = of_tokens(store) > 0
    share = active.mean((0, 1))
    for latent in range(D):
        stats = reader.stats(latent)
        assert stats.frequency == pytest.approx(active[:, :, latent].any(1).mean(), abs=1e-12)
        assert stats.token_frequency == pytest.approx(share[latent], abs=1e-12)
        expected = "dead" if not share[latent] else "dense" if share[latent] > 0.1 else "live"
        assert stats.status == expected
    assert reader.stats(EVERYWHERE).frequency == 1
    assert set(reader.status) == {"live", "dead", "dense"}
    loose = CollectConfig(**{**vars(SMALL), "dense_above": 0.3})
    assert collect(store, make_sae(D), reader.run_dir, loose, overwrite=True).n_dense == 1
    collect(store, make_sae(D), reader.run_dir, SMALL, overwrite=True)


@pytest.mark.parametrize("pool", ["max", "mean", "sum", "cls"])
def test_an_images_activation_is_pooled_as_asked(pool: str, store, tmp_path) -> None:
    config = CollectConfig(**{**vars(SMALL), "pool": pool})
    if pool == "cls" and store.info.tokens == "patch":
        with pytest.raises(
            UserError, match=r"--pool cls: .* patches alone; .*--tokens all"
        ) as said:
            collect(store, make_sae(D), tmp_path, config)
        assert "\n" not in str(said.value)
        assert not (tmp_path / "collect").exists()
        return
    info = collect(store, make_sae(D), tmp_path, config, n_images=50)
    found = EvidenceReader(tmp_path)
    x = of_tokens(store)
    acts = pooled(x, pool)
    frame = found.examples
    expected = acts[frame["row"], frame["latent"]]
    np.testing.assert_allclose(frame["act"], expected, rtol=1e-6)
    counted = x[:, :1] if pool == "cls" else x
    for latent in range(D):
        stats, mine = found.stats(latent), acts[:, latent]
        assert stats.n_active == (mine > 0).sum()
        assert stats.max_act == pytest.approx(mine.max(), rel=1e-6)
        assert stats.token_frequency == pytest.approx((counted[:, :, latent] > 0).mean(), abs=1e-12)
        tops = found.of(latent).of("explain", "top")
        assert [e.act for e in tops] == sorted((e.act for e in tops), reverse=True)
    assert (info.pool, info.dense_by) == (pool, "images" if pool == "cls" else "tokens")


def test_the_peak_patch_is_kept_whatever_the_pooling(store, tmp_path) -> None:
    collect(store, make_sae(D), tmp_path, CollectConfig(**{**vars(SMALL), "pool": "mean"}))
    patches = of_tokens(store)[:, -6:]
    n_known = 0
    for example in (e for i in range(D) for e in EvidenceReader(tmp_path).of(i).examples):
        mine = patches[example.row, :, example.latent]
        is_known = example.is_positive and mine.max() > 0
        assert example.peak == (mine.argmax() if is_known else -1)
        n_known += is_known
    assert n_known > 500


def test_weak_images_fill_what_silent_ones_lack(reader, store) -> None:
    """The least pooled activations below the median, in the domain mix of the active ones."""
    acts = pooled(of_tokens(store), "max")
    sides = store.images["image_id"].map(split_of).to_numpy()
    domains = store.images["domain"].to_numpy()
    for side in SIDES:
        evidence = reader.of(EVERYWHERE)
        assert evidence.of(side, "silent") == evidence.of(side, "hard") == ()
        weak = evidence.of(side, "weak")
        assert [e.rank for e in weak] == list(range(SMALL.n_silent))
        for domain in ("sketch", "photo"):
            here = np.flatnonzero((sides == side) & (domains == domain))
            mine = acts[here, EVERYWHERE]
            found = [e for e in weak if e.domain == domain]
            share = SMALL.n_silent * len(here) / (sides == side).sum()
            assert abs(len(found) - share) < 1
            assert [e.act for e in found] == np.sort(mine)[: len(found)].tolist()
            assert all(0 < e.act < np.median(mine) and e.row in here for e in found)
            assert [acts[e.row, EVERYWHERE] for e in found] == [e.act for e in found]


def test_a_latent_that_is_silent_on_enough_has_no_weak_images(reader, store) -> None:
    frame = reader.examples
    weak = set(frame["latent"][frame["kind"] == "weak"])
    usual = (pooled(of_tokens(store), "max") > 0).mean(0) <= 0.5
    assert EVERYWHERE in weak
    assert not weak & set(np.flatnonzero(usual))


def test_positives_beside_weak_negatives_are_of_the_stronger_half(reader) -> None:
    evidence = reader.of(EVERYWHERE)
    sample = draw_sample(evidence, SampleConfig(n_positive=6, n_negative=6, n_least=3))
    assert {e.kind for e in sample.negatives} == {"weak"}
    assert len(sample.positives) == len(sample.negatives) == 6
    for domain in {e.domain for e in sample.positives}:
        acts = [e.act for e in evidence.of("score", "quantile") if e.domain == domain]
        strong = [e.act for e in sample.positives if e.domain == domain]
        assert min(strong) > sorted(acts)[(len(acts) - 1) // 2]
        assert min(strong) > max(e.act for e in evidence.of("score", "weak") if e.domain == domain)
    ordinary = next(i for i in reader.live() if not reader.of(i).of("score", "weak"))
    assert reader.of(ordinary).positives("score", "top") == reader.of(ordinary).of("score", "top")


def test_weak_negatives_are_counted_aloud(store, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    make_sae(D).save(tmp_path / "sae")
    few = ("--n-silent", 8, "--dense-above", 0.3)
    assert interp("collect", "sae", store.path, *few, "--json", "figures.json") == 0
    said = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    frame = EvidenceReader(tmp_path / "results/sae").examples
    weak = frame[frame["kind"] == "weak"]["latent"]
    n_live = sum(EvidenceReader(tmp_path / "results/sae").status[i] == "live" for i in set(weak))
    assert figures["n_weak"] == n_live > 0
    assert f"{n_live} live ones are silent on too few images" in said
    assert interp("collect", "sae", store.path, "--run", "other", "--pool", "meam") == 2
    assert "pool is 'meam'; choose one of max, mean, sum, cls; did you mean" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_evidence_of_before_tokens_were_counted_is_read_and_not_taken_for_new(
    reader, store, tmp_path
) -> None:
    old = as_before(reader.run_dir, tmp_path / "old")
    found = EvidenceReader(old)
    assert (found.info.pool, found.info.dense_by, found.info.n_weak) == ("max", "images", 0)
    assert np.isnan(found.stats(EVERYWHERE).token_frequency)
    assert found.stats(EVERYWHERE).held_out == ()
    assert {e.peak for e in found.of(EVERYWHERE).examples} == {-1}
    assert found.of(EVERYWHERE).of("score", "top")[0].act > 0
    with pytest.raises(UserError, match=r"dense_by 'images', not 'tokens'; add --overwrite"):
        collect(store, make_sae(D), old, SMALL)


def as_before(run: Path, out: Path) -> Path:
    """A copy of the evidence as 498be9d wrote it."""
    (out / "collect").mkdir(parents=True)
    for name, added in (("latents", ["token_frequency", "held_out"]), ("examples", ["peak"])):
        table = pq.read_table(run / f"collect/{name}.parquet").drop_columns(added)
        pq.write_table(table, out / f"collect/{name}.parquet")
    info = json.loads((run / "collect/collect.json").read_text())
    kept = {
        name: value for name, value in info.items() if name not in ("pool", "n_weak", "dense_by")
    }
    (out / "collect/collect.json").write_text(json.dumps(kept))
    return out
