"""Purity, names and scores against the planted truth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.bench.truth import find_planted, fires_in_both, measure, read_truth
from interp.evidence.reader import EvidenceReader
from interp.records.types import Explanation
from interp.score.judge import Judgement
from sae.core.errors import UserError
from sae.interchange.load import load
from sae.world import PLANTED
from tests.support.commands import Walk


class Guesser:
    """A judge that says of every picture that it cannot tell."""

    name, prompt = "guesser", ""

    async def judge(self, label: str, description: str, pictures: Any, about: str) -> Judgement:
        return Judgement(dict.fromkeys((tile.letter for tile in pictures()), 50.0))


def named(latent: int, label: str | None) -> Explanation:
    return Explanation(
        latent=latent,
        label=label,
        second_label=None,
        description="",
        verdict="single",
        level="",
        confidence=None,
        failure=None if label else "refused",
        lint=(),
        model="test",
        provider=None,
        prompt="",
        codes={},
        candidates=(),
        calls=(),
        usd=0.0,
    )


def test_rare_concept_wins_over_one_that_is_everywhere() -> None:
    ids = [f"{n:02d}" for n in range(40)]
    truth = pd.DataFrame(False, index=ids, columns=[c.name for c in PLANTED])
    truth.loc[ids[:30], "sketch"] = True
    truth.loc[ids[:4], "boat"] = True
    rows = [
        {"latent": 0, "side": "score", "kind": "top", "rank": n, "image_id": ids[n]}
        for n in range(4)
    ]
    unseen = [{**rows[0], "side": "explain", "image_id": ids[39]}]
    reader: Any = SimpleNamespace(
        examples=pd.DataFrame(rows + unseen), info=SimpleNamespace(n_latents=2)
    )
    found = find_planted(reader, truth)
    assert found.names[found.concept[0]] == "boat"
    assert found.purity[0] == 1.0
    assert found.pure.tolist() == [True, False]


def test_right_names_count_and_wrong_ones_do_not(walk: Walk) -> None:
    reader, model = EvidenceReader(walk.run), load(walk.sae)
    truth = read_truth(walk.world / "truth.parquet")
    found = find_planted(reader, truth)
    right = {n: named(n, f"A {found.names[found.concept[n]]}") for n in reader.live()}
    wrong = {n: named(n, "wheelbarrow") for n in reader.live()}
    good = measure(reader, model, truth, right, Guesser(), reader.image)
    bad = measure(reader, model, truth, wrong, Guesser(), reader.image)
    assert good.n_live == bad.n_live == len(reader.live())
    assert good.named_true == pytest.approx(good.pure)
    assert bad.named_true == 0
    if good.pure > 0:
        assert good.named_pure == 1.0
        assert bad.named_pure == 0.0
        assert good.auroc_true == 0.5


def test_latent_fires_in_both_domains_as_counted_by_hand(walk: Walk) -> None:
    reader, model = EvidenceReader(walk.run), load(walk.sae)
    truth = read_truth(walk.world / "truth.parquet")
    found = find_planted(reader, truth)
    images = reader.store.images
    x = reader.store.read(np.arange(len(images)))[:, 0].float()
    active = model.encode(x).dense(model.n_latents).detach().numpy() > 0
    latent = reader.live()[0]
    true = truth.loc[images["image_id"], found.names[found.concept[latent]]].to_numpy()
    recalls = [
        active[true & (images["domain"] == domain).to_numpy(), latent].mean()
        for domain in ("sketch", "photo")
    ]
    assert fires_in_both(reader, model, truth, found)[latent] == (min(recalls) > 0.1)


def test_missing_truth_names_the_command_that_writes_it(walk: Walk) -> None:
    with pytest.raises(UserError, match="sae world"):
        read_truth(walk.run / "truth.parquet")
