"""Which images of a latent an explainer is shown."""

import asyncio
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.explain.answer import explain_schema
from interp.explain.examples import ShowConfig, choose_shown, medium_of
from interp.explain.explainer import ExplainConfig, VlmExplainer, explain_prompt
from interp.llm.prompts import fingerprint
from interp.pictures.grid import FIRST, SECOND
from interp.records.split import LeakError, split_of
from interp.records.types import Evidence
from tests.support.interp.explaining import ColourSource, image_ids, stats
from tests.support.interp.latents import make_evidence
from tests.support.interp.scripted_model import Scripted


def test_eight_top_four_weaker_and_eleven_negatives_are_shown():
    shown = choose_shown(ColourSource().of(3), ShowConfig())
    kinds = [example.kind for example in shown.positives]
    assert (kinds.count("top"), kinds.count("quantile")) == (8, 4)
    assert len(shown.strong) == 8
    kinds = [example.kind for example in shown.negatives]
    assert (kinds.count("hard"), kinds.count("silent")) == (5, 6)
    everything = [example.image_id for example in shown.positives + shown.negatives]
    assert len(set(everything)) == 23


def test_the_weaker_ones_are_of_the_middle_strata():
    shown = choose_shown(ColourSource().of(0), ShowConfig())
    assert all(e.stratum in (1, 2, 3) for e in shown.positives if e.kind == "quantile")


def test_the_choice_and_its_order_follow_from_the_latent_alone():
    source = ColourSource()
    assert choose_shown(source.of(5), ShowConfig()) == choose_shown(source.of(5), ShowConfig())
    orders = {
        tuple(e.rank for e in choose_shown(source.of(n), ShowConfig()).positives) for n in range(5)
    }
    assert len(orders) == 5


def test_another_draw_is_another_question_of_the_same_latent():
    evidence = ColourSource().of(5)
    draws = [choose_shown(evidence, ShowConfig(draw=draw)) for draw in range(4)]
    assert draws[1] == choose_shown(evidence, ShowConfig(draw=1))
    assert len({frozenset(e.image_id for e in one.positives) for one in draws}) == 4
    assert len({frozenset(e.image_id for e in one.negatives) for one in draws}) == 4
    for shown in draws:
        kinds = [example.kind for example in (*shown.positives, *shown.negatives)]
        assert [kinds.count(k) for k in ("top", "quantile", "hard", "silent")] == [8, 4, 5, 6]
        assert len({e.image_id for e in (*shown.positives, *shown.negatives)}) == 23
        assert shown.strong == {e.image_id for e in shown.positives if e.kind == "top"}
    strongest = {e.rank for e in draws[0].positives if e.kind == "top"}
    assert strongest != {e.rank for e in draws[1].positives if e.kind == "top"}


def test_the_fingerprint_tells_the_draw_and_of_the_first_is_what_it_was_before_there_were_others():
    prompts = [explain_prompt(ExplainConfig(show=ShowConfig(draw=draw))) for draw in range(3)]
    assert len(set(prompts)) == 3
    show = {k: v for k, v in dataclasses.asdict(ShowConfig()).items() if k != "draw"}
    settings = {**dataclasses.asdict(ExplainConfig()), "show": show}
    schema = explain_schema(FIRST, SECOND, region=True, bound=True)
    before = fingerprint(("system", "explain", "repair", "schema"), schema, settings)
    assert prompts[0] == explain_prompt(ExplainConfig()) == before


@pytest.mark.parametrize("draw", [0, 1])
def test_no_draw_shows_an_image_of_another_side(draw):
    evidence = make_evidence(select=True)
    sides = {e.image_id: e.side for e in evidence.examples}
    shown = choose_shown(evidence, ShowConfig(draw=draw))
    assert {sides[e.image_id] for e in (*shown.positives, *shown.negatives)} == {"explain"}
    with pytest.raises(LeakError, match="not on the explain side"):
        choose_shown(ColourSource(side="score", claimed="explain").of(3), ShowConfig(draw=draw))


@pytest.mark.parametrize(("rates", "n_sketch"), [((0.03, 0.01), 6), ((0.0, 0.01), 0)])
def test_the_top_keeps_the_domain_mix_of_the_latent(rates, n_sketch):
    evidence = ColourSource().of(0)
    examples = [
        dataclasses.replace(e, domain="photo" if e.rank < 8 else "sketch")
        for e in evidence.of("explain", "top")
    ]
    rate = {"sketch": rates[0], "photo": rates[1]}
    mixed = Evidence(dataclasses.replace(evidence.stats, domain_rate=rate), tuple(examples))
    strong = choose_shown(mixed, ShowConfig()).positives
    assert len(strong) == 8
    assert sum(e.domain == "sketch" for e in strong) == n_sketch


def test_negatives_are_only_of_the_positives_domains():
    evidence = ColourSource().of(0)
    examples = [
        dataclasses.replace(e, domain="photo") if e.act > 0 else e for e in evidence.examples
    ]
    shown = choose_shown(Evidence(evidence.stats, tuple(examples)), ShowConfig())
    assert {e.domain for e in shown.negatives} == {"photo"}


def test_with_fewer_than_eight_negatives_there_is_no_contrast_set():
    assert choose_shown(ColourSource(n_silent=7).of(0), ShowConfig()).negatives == ()
    assert len(choose_shown(ColourSource(n_silent=8).of(0), ShowConfig()).negatives) == 8


def test_more_images_than_letters_are_refused():
    with pytest.raises(ValueError, match="letters"):
        ShowConfig(n_top=10)


@pytest.mark.parametrize("claimed", ["score", "explain"])
def test_an_image_of_the_score_side_is_never_shown_even_when_it_claims_otherwise(claimed):
    source = ColourSource(side="score", claimed=claimed)
    model = Scripted()
    evidence = source.of(0)
    planted = [dataclasses.replace(e, side=claimed) for e in evidence.examples]
    leaking = Evidence(evidence.stats, tuple(planted))
    if claimed == "score":  # nothing of the explain side is left to choose
        explained_ = asyncio.run(VlmExplainer(model).explain(leaking, source.image))
        assert explained_.failure == "too_few_images"
    else:
        with pytest.raises(LeakError):
            asyncio.run(VlmExplainer(model).explain(leaking, source.image))
    assert model.questions == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 16), st.integers(0, 20))
def test_all_that_is_shown_is_of_the_explain_side(latent, n_top, n_silent):
    shown = choose_shown(ColourSource(n_top, n_silent).of(latent), ShowConfig())
    assert all(split_of(e.image_id) == "explain" for e in shown.positives + shown.negatives)
    assert not {e.image_id for e in shown.positives} & {e.image_id for e in shown.negatives}


@pytest.mark.parametrize(
    ("domains", "medium"),
    [
        (["sketch"], "drawings"),
        (["imagenet-sketch", "quickdraw"], "drawings"),
        (["photo"], "photos"),
        (["real"], "photos"),
        (["sketch", "photo"], "mixed"),
        (["pink"], "mixed"),
        ([], "mixed"),
    ],
)
def test_the_medium_follows_from_the_names_of_the_domains(domains, medium):
    assert medium_of(domains) == medium


def test_the_tests_own_images_really_lie_on_the_explain_side():
    assert len(image_ids("explain")) > 1500
    assert stats(0).status == "live"
