"""Which foils a latent has, and what is made of their grades."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace

import pytest

from interp.llm.types import Question, Reply, Usage
from interp.records.types import Explanation, Score
from interp.score.kinds.checks import n_again
from interp.score.kinds.detect import VlmJudge
from interp.score.latent import score_latent
from interp.score.nulls.foils import LEAST_LATENTS, Foil, FoilJudge, Foils
from interp.score.nulls.suite import says_the_same
from tests.support.interp.latents import explained, make_evidence, paint

LABELS = dict(enumerate(("red", "cup", "two cups", "red wheel", "boat", "hat", "moss", "fern")))
EVIDENCE = make_evidence(0)


def test_foils_say_neither_what_is_tested_nor_the_same_twice() -> None:
    drawn = Foils(LABELS, 1.0, 8).draw(EVIDENCE, "red")
    assert len(drawn) == 3
    assert {foil.kind for foil in drawn} == {"shuffled"}
    said = [foil.label for foil in drawn]
    assert set(said) <= set(LABELS.values()) - {"red", "red wheel"}
    assert not any(says_the_same(a, b) for a in said for b in said if a != b)


def test_a_control_is_not_held_against_the_latents_own_label_either() -> None:
    labels = {0: "red", 1: "red wheel", 2: "boat"}
    drawn = Foils(labels, 1.0, 3).draw(EVIDENCE, "moss")
    assert [foil.label for foil in drawn if foil.kind == "shuffled"] == ["boat"]


def test_where_labels_are_few_a_domain_and_a_generic_label_stand_in() -> None:
    drawn = Foils({0: "red", 1: "boat"}, 1.0, 2).draw(EVIDENCE, "red")
    domain = max(
        ("sketch", "photo"), key=[e.domain for e in EVIDENCE.examples if e.side == "score"].count
    )
    assert drawn == (
        Foil("shuffled", "boat"),
        Foil("domain", f"a {domain}"),
        Foil("generic", "an image"),
    )


def test_a_further_label_in_the_run_changes_few_draws() -> None:
    words = {n: f"thing{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)}
    few, more = (Foils({n: words[n] for n in range(k)}, 1.0, k) for k in (150, 151))
    evidence = [replace(EVIDENCE, stats=replace(EVIDENCE.stats, latent=n)) for n in range(100)]
    before, after = ([f.draw(e, words[n]) for n, e in enumerate(evidence)] for f in (few, more))
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 8
    assert len(set(before)) > 90
    assert before == [few.draw(e, words[n]) for n, e in enumerate(evidence)]


def test_a_share_of_the_latents_has_foils_those_asked_again_among_them_and_few_all() -> None:
    foils = Foils({}, 0.2, 1000)
    chosen = [n for n in range(1000) if foils.has(n)]
    assert len(chosen) == pytest.approx(200, abs=2)
    assert all(foils.has(n) for n in range(1000) if n_again(0.05, 4, n))
    assert all(Foils({}, 0.2, LEAST_LATENTS).has(n) for n in range(50))
    assert sum(Foils({}, 0.2, 50).has(n) for n in range(50)) == pytest.approx(LEAST_LATENTS, abs=1)
    assert not any(Foils({}, 0.0, 5).has(n) for n in range(50))


class Scripted:
    """A `VisionModel` whose first `lost` answers leave out the foil."""

    name = "fake/vision"

    def __init__(self, lost: int) -> None:
        self.lost, self.n = lost, 0

    async def ask(self, question: Question) -> Reply:
        self.n += 1
        assert question.schema is not None
        codes = [code for code in question.schema["required"] if len(code) == 1]
        answer: dict[str, object] = {c: (7 * n) % 100 for n, c in enumerate(codes)}
        if self.n > self.lost:
            answer["rule_2"] = [(11 * n) % 100 for n in range(len(codes))]
        return Reply(json.dumps(answer), self.name, None, Usage(1, 1, 0.5), "stop", f"k{self.n}")


def judged(lost: int) -> Score:
    judge = FoilJudge(VlmJudge(Scripted(lost)), (Foil("shuffled", "boat"),))
    test: Explanation = explained(7)
    asked = score_latent(make_evidence(), test, judge, paint, nulls=judge)
    return asyncio.run(asked)


def test_a_foil_counts_on_the_images_that_have_a_grade_by_it() -> None:
    whole, part, lost = judged(0), judged(1), judged(3)
    for score in (whole, part, lost):
        assert score.failure is None
        assert score.n_missing == 0
        assert score.auroc == whole.auroc
        assert score.nulls is not None
        assert score.nulls.how == "foils"
        assert score.nulls.prompt
    assert whole.nulls
    assert part.nulls
    assert lost.nulls
    (all_images,), (some_images,) = whole.nulls.nulls, part.nulls.nulls
    assert lost.nulls.nulls == ()  # three of four questions have no grades by it
    assert all_images.auroc != some_images.auroc
    assert not math.isnan(some_images.gain_low)
    assert whole.auroc - all_images.auroc == pytest.approx(all_images.gain)
