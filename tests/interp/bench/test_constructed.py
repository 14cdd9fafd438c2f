"""Latents of known meaning: what they answer to is what they say, in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.bench.constructed import (
    LEAST,
    MOST_SHARED,
    NOISY,
    Acts,
    construct,
    read_constructed,
    write_constructed,
)
from interp.bench.kinds import KINDS, PARTS
from interp.bench.truth import read_truth
from interp.evidence.reader import EvidenceReader
from sae.core.errors import OK, UserError
from sae.data.store import EmbeddingStore
from tests.support.commands import Walk, interp

N = 2000


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """Twelve concepts of 4 to 15% of the images, one too rare and one too frequent."""
    rng = np.random.default_rng(0)
    rates = {f"c{i}": 0.04 + 0.01 * i for i in range(12)} | {"rare": 0.005, "everywhere": 0.6}
    flags = {name: rng.random(N) < rate for name, rate in rates.items()}
    flags["c1"] |= flags["c0"] & (rng.random(N) < 0.3)  # something to absorb
    return pd.DataFrame({"domain": rng.choice(["sketch", "photo"], N), **flags})


@pytest.fixture(scope="module")
def x() -> Acts:
    return np.random.default_rng(1).standard_normal((N, 8)).astype(np.float32)


def test_every_latent_answers_to_what_it_says(truth: pd.DataFrame, x: Acts) -> None:
    made = construct(truth, dict.fromkeys(KINDS, 6), 3, x)
    assert made.acts.shape == (N, 6 * len(KINDS))
    assert [m.kind for m in made.latents] == [kind for kind in KINDS for _ in range(6)]
    for acts, meaning in zip(made.acts.T, made.latents, strict=True):
        assert len(meaning.concepts) == PARTS[meaning.kind]
        assert not set(meaning.concepts) & {"rare", "everywhere", "domain"}
        active, one, two = (
            acts > 0,
            *(truth[c].to_numpy() for c in (*meaning.concepts, "c0", "c0")[:2]),
        )
        if meaning.kind == "pure":
            assert (active == one).all()
        elif meaning.kind == "noisy":
            n = one.sum()
            assert active.sum() == n
            assert (active & ~one).sum() == round(NOISY * n)
        elif meaning.kind in ("even", "uneven"):
            assert not (active & ~one & ~two).any()
            times = (active & one).sum() / (active & ~one).sum()
            assert times == pytest.approx(1 if meaning.kind == "even" else 3, rel=0.15)
            assert (one & two).sum() <= MOST_SHARED * min(one.sum(), two.sum())
        elif meaning.kind == "absorbed":
            assert (active == (one & ~two)).all()
            assert 0.1 <= (one & two).sum() / one.sum() <= 0.5
        elif meaning.kind == "domain":
            assert (active == (one & (truth["domain"] == meaning.domain))).all()
            assert active.sum() >= LEAST
        else:
            assert 0.03 <= active.mean() <= 0.2


def test_noise_and_shuffled_latents_know_nothing_and_a_direction_is_one(
    truth: pd.DataFrame, x: Acts
) -> None:
    made = construct(truth, {"noise": 20, "shuffled": 20, "random": 5}, 0, x)
    flags = truth.select_dtypes(bool).to_numpy(float)
    active = (made.acts > 0).astype(float)
    hits = (active.T @ flags) / active.sum(0)[:, None]  # (latents, concepts) share of the active
    z = (hits - flags.mean(0)) / np.sqrt(
        flags.mean(0) * (1 - flags.mean(0)) / active.sum(0)[:, None]
    )
    assert np.abs(z[:40]).max() < 5
    assert z[:40].mean() == pytest.approx(0, abs=0.2)
    for acts in made.acts.T[40:]:
        order = acts.argsort()[::-1][: round(0.05 * N)]
        fit = np.linalg.lstsq(x[order], acts[order] + 1, rcond=None)[0]
        assert np.corrcoef(x[order] @ fit, acts[order])[0, 1] > 0.99


def test_a_latent_does_not_depend_on_how_many_others_there_are(truth: pd.DataFrame) -> None:
    few, many = construct(truth, {"even": 2}, 5), construct(truth, {"pure": 3, "even": 4}, 5)
    np.testing.assert_array_equal(few.acts, many.acts[:, 3:5])
    assert few.latents == many.latents[3:5]
    other = construct(truth, {"even": 2}, 6)
    assert not (few.acts == other.acts).all()


def test_what_cannot_be_constructed_is_said(truth: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="odd"):
        construct(truth, {"odd": 1})
    with pytest.raises(UserError, match="embeddings"):
        construct(truth, {"random": 1})
    with pytest.raises(UserError, match="larger world"):
        construct(truth[["domain", "rare"]], {"pure": 1})
    with pytest.raises(UserError, match="kind domain"):
        construct(truth.assign(domain="photo"), {"domain": 1})


def test_written_latents_are_collected_with_the_worlds_own_images(
    walk: Walk, tmp_path: Path
) -> None:
    store, out = EmbeddingStore.open(walk.store), tmp_path / "constructed"
    truth = read_truth(walk.world / "truth.parquet")
    made = write_constructed(out, store, truth, {"pure": 3, "noise": 1, "random": 2}, 7)
    assert read_constructed(out) == made.latents
    assert interp("collect", out, "--run", tmp_path / "run", "--dense-above", 0.5) == OK
    reader = EvidenceReader(tmp_path / "run")
    assert reader.info.n_live == 6
    assert reader.store.domains == store.domains
    for example in reader.of(0).examples[:5]:
        assert bool(truth.loc[example.image_id, made.latents[0].concepts[0]]) == (example.act > 0)
        assert reader.image(example).size == (128, 128)
    with pytest.raises(UserError, match="not know"):
        write_constructed(tmp_path / "other", store, truth.iloc[:-1], {"pure": 1})
    assert not (tmp_path / "other").exists()
