"""The baseline that costs nothing: terms fitted on the whole explain side."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from interp.bench.config import BenchSettings
from interp.local.clip_encoder import ClipEncoder
from interp.local.linear import (
    LEAST_ACTIVE,
    Fit,
    LinearNamer,
    Sample,
    choose_fitted,
    fit_terms,
    join_terms,
    weigh,
)
from interp.local.models import LocalJudge
from interp.local.vocabulary import Term
from interp.pipeline.settings import JudgeSettings
from interp.records.split import LeakError
from interp.records.types import TOO_FEW, Evidence, Explanation
from interp.records.wording import alternatives
from sae.core.errors import UserError
from tests.support.interp.latents import (
    COLOURS,
    ColourClip,
    make_evidence,
    paint,
    plain_with_ids,
)

TERMS = [Term(name, (f"a photo of {name}", name)) for name in COLOURS]
BACKGROUND = ("blue", "blue", "green", "white", "yellow", "red")
N_WORDS = 60


def explain(evidence: Evidence) -> Explanation:
    namer = LinearNamer(ClipEncoder(ColourClip()), TERMS, plain_with_ids(*BACKGROUND))
    return asyncio.run(namer.explain(evidence, paint))


def fitted(seed: int, *weights: float, n: int = 112, noise: float = 0.3) -> Fit:
    """The fit where the first words have these weights and 60 others say nothing."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, N_WORDS))
    acts = z[:, : len(weights)] @ np.array(weights) + noise * rng.normal(size=n)
    return fit_terms(Sample(z, acts, np.ones(n)), np.arange(n) % 5)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.7), (1.0, 0.8, 0.6)])
def test_as_many_terms_are_found_as_make_the_activation_and_no_more(
    weights: tuple[float, ...],
) -> None:
    for seed in range(10):
        found = fitted(seed, *weights)
        assert found.terms == tuple(range(len(weights)))
        assert found.weights == tuple(sorted(found.weights, reverse=True))
        assert found.r2 > 0.8


def test_a_term_that_speaks_against_the_activation_is_never_taken() -> None:
    for seed in range(5):
        assert fitted(seed, 1.0, -1.0).terms[0] == 0
        assert 1 not in fitted(seed, 1.0, -1.0).terms


def test_words_that_fit_by_chance_alone_predict_nothing_that_was_left_out() -> None:
    r2 = [fitted(seed, noise=1.0).r2 for seed in range(20)]
    assert max(r2) < 0.2
    assert np.mean(r2) < 0


def test_images_count_as_often_as_they_stand_for_others() -> None:
    rng = np.random.default_rng(0)
    z, acts = rng.normal(size=(80, 3)), rng.random(80)
    acts[:40] = z[:40, 0] + 0.1 * acts[:40]  # here word 0 tells, elsewhere word 1
    acts[40:] = z[40:, 1] + 0.1 * acts[40:]
    for heavy, word in ((0, 0), (1, 1)):
        weights = np.where(np.arange(80) // 40 == heavy, 50.0, 1.0)
        assert fit_terms(Sample(z, acts, weights), np.arange(80) % 5).terms[0] == word


def test_weights_are_those_of_all_images_of_the_explain_side() -> None:
    evidence = make_evidence()  # active on .02 of the sketches and .01 of the photos
    shown = choose_fitted(evidence)
    weights = weigh(shown, evidence.stats)
    for domain, rate in evidence.stats.domain_rate.items():
        kinds = {
            kind: sum(
                w
                for e, w in zip(shown, weights, strict=True)
                if (e.kind, e.domain) == (kind, domain)
            )
            for kind in ("quantile", "silent")
        }
        assert kinds["quantile"] / (kinds["quantile"] + kinds["silent"]) == pytest.approx(rate)
    hard = {w for e, w in zip(shown, weights, strict=True) if e.kind == "hard"}
    assert hard == {1.0}  # 60 of the explain side's 60 active images were drawn


def test_the_whole_range_is_shown_each_image_once_and_no_held_out_one() -> None:
    evidence = make_evidence()
    shown = choose_fitted(evidence)
    assert {e.kind for e in shown} == {"quantile", "silent", "hard"}
    assert len({e.image_id for e in shown}) == len(shown) == 60 + 32 + 16
    stray = dataclasses.replace(evidence.of("score", "silent")[0], side="explain")
    with pytest.raises(LeakError, match="explain side"):
        choose_fitted(dataclasses.replace(evidence, examples=(stray, *evidence.examples)))


def test_the_label_says_what_the_images_differ_in_with_its_weight() -> None:
    explanation = explain(make_evidence())
    assert explanation.label == "red"
    assert explanation.model == "local:linear:colours"
    assert " red " in explanation.provenance
    assert "of 108 images" in explanation.provenance
    assert len(explanation.codes) == 108
    assert explanation.confidence is not None
    assert explanation.verdict == "single"


def test_too_few_images_or_all_of_one_activation_give_no_label() -> None:
    assert explain(make_evidence(n_active=LEAST_ACTIVE - 1)).failure == TOO_FEW
    evidence = make_evidence()
    examples = tuple(dataclasses.replace(e, act=1.0) for e in evidence.examples)
    flat = dataclasses.replace(evidence, examples=examples)
    assert explain(flat).failure == TOO_FEW


def test_terms_are_joined_and_read_apart_again() -> None:
    for names in (["cup"], ["cup", "zigzag"], ["cup", "lined paper", "zigzag"]):
        assert alternatives(join_terms(names)) == tuple(names)
    assert alternatives("cat with open or closed eyes") == ("cat with open or closed eyes",)
    assert alternatives("orange") == ("orange",)


def test_the_local_judge_grades_alternatives_by_the_better_one() -> None:
    judge = LocalJudge(ClipEncoder(ColourClip()), plain_with_ids(*BACKGROUND))
    rows = judge.encoder.encode(plain_with_ids("red", "blue", "green"))
    both, red, blue = judge.grade(["red or blue", "red", "blue"], rows)
    assert both.tolist() == [red[0], blue[1], max(red[2], blue[2])]


def test_the_baseline_is_no_judge_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not judge; judge with local"):
        JudgeSettings(model="local:linear")
    chosen = BenchSettings().of("local:linear:tiny-conv", "easy")
    assert (chosen.model, chosen.clip, chosen.is_local) == ("local:linear", "tiny-conv", True)
