"""How well a label predicts a latent on images that nobody has shown before."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from weakref import ref

import pytest
from PIL import Image

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Picture, Question, Reply, ReplyError, Usage
from interp.local.clip_encoder import Eyes
from interp.local.models import LocalJudge
from interp.pictures.painter import Layout
from interp.records.codec import from_json, to_json
from interp.records.split import LeakError, split_of
from interp.records.types import Evidence, Example, Explanation, Score
from interp.score.judge import Judge, Judgement, Pictures, VlmJudge, judge_prompt
from interp.score.latent import score_latent
from interp.score.run import (
    ScoreSummary,
    n_questions,
    pending_tests,
    score_run,
    stored_summary,
    summarise,
)
from interp.score.sampling import SampleConfig
from sae.core.errors import UserError
from sae.core.files import read_jsonl
from sae.data.images import BadImage
from tests.support.interp.latents import ColourClip, Source, explained, make_evidence, paint, plain
from tests.support.servers.loopback import Loopback


class Scripted:
    """A judge that scores each picture by a function, and remembers what it was asked."""

    name = "scripted"
    prompt = "p1"

    def __init__(self, rule: Callable[[Image.Image], float | None], failure: str = "") -> None:
        self.rule, self.failure = rule, failure
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self.filed: list[str] = []

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        shown = pictures()
        self.asked.append((label, description, tuple(shown)))
        self.filed.append(about)
        scores = {code: self.rule(image) for code, image in shown.items()}
        missing = None in scores.values()
        return Judgement(scores, self.failure if missing else None, ("k",), 0.25)


def redness(image: Image.Image) -> float:
    """More for a redder, so more active, positive; 0 for blue."""
    red, green, blue = pixel(image)
    return 100 * (red - (green + blue) / 2) / 255 if red > blue else 0.0


GREYS = {"top": 255, "quantile": 255, "hard": 128, "silent": 0}


def marked(example: Example) -> Image.Image:
    """A picture of the truth itself."""
    return Image.new("RGB", (32, 32), (GREYS[example.kind],) * 3)


def by_kind(
    active: float | None, hard: float | None, silent: float | None, failure: str = ""
) -> Scripted:
    """A judge with a fixed answer for each kind of `marked` picture."""
    answers = {255: active, 128: hard, 0: silent}
    return Scripted(lambda image: answers[pixel(image)[0]], failure)


def pixel(image: Image.Image) -> tuple[int, int, int]:
    found = image.getpixel((16, 16))
    assert isinstance(found, tuple)
    return int(found[0]), int(found[1]), int(found[2])


def score(
    judge: Judge,
    evidence: Evidence | None = None,
    images: Callable[[Example], Image.Image] = paint,
    label: str = "red",
    config: SampleConfig | None = None,
) -> Score:
    evidence = evidence or make_evidence()
    explanation = explained(evidence.stats.latent, label)
    return asyncio.run(score_latent(evidence, explanation, judge, images, config))


# ------------------------------------------------------------------------------ known values


def test_a_perfect_judge_scores_one_and_a_reversed_one_nought() -> None:
    right = score(by_kind(active=90, hard=20, silent=10), images=marked)
    assert (right.auroc, right.balanced_accuracy) == (1.0, 1.0)
    assert right.auroc_low < 1.0 == right.auroc_high
    wrong = score(by_kind(active=10, hard=60, silent=90), images=marked)
    assert (wrong.auroc, wrong.balanced_accuracy) == (0.0, 0.0)


def test_easy_and_hard_negatives_are_scored_apart() -> None:
    result = score(by_kind(active=80, hard=80, silent=20), images=marked)
    assert (result.auroc_easy, result.auroc_hard, result.auroc) == (1.0, 0.5, 0.75)
    assert result.balanced_accuracy == 0.75


def test_intensity_is_the_rank_correlation_of_score_and_activation_among_positives() -> None:
    assert score(Scripted(redness)).spearman == pytest.approx(1.0)
    assert score(Scripted(lambda image: 100 - redness(image))).spearman == pytest.approx(-1.0)
    assert math.isnan(score(Scripted(lambda image: 70.0)).spearman)


def test_an_answer_that_says_nothing_is_chance() -> None:
    result = score(Scripted(lambda image: 50.0))
    assert (result.auroc, result.balanced_accuracy) == (0.5, 0.5)


def test_missing_answers_are_chance_for_the_auroc_and_wrong_for_the_accuracy() -> None:
    result = score(by_kind(active=None, hard=None, silent=None, failure="refused"), images=marked)
    assert (result.auroc, result.balanced_accuracy, result.n_missing) == (0.5, 0.0, 40)
    assert result.failure is None


def test_one_kind_of_missing_answer_costs_what_it_hides() -> None:
    result = score(by_kind(active=40, hard=30, silent=None, failure="refused"), images=marked)
    # Silent images count as 50, above the positives' 40; of the rest only the hard are right.
    assert (result.auroc_easy, result.auroc_hard, result.auroc) == (0.0, 1.0, 0.5)
    assert result.balanced_accuracy == pytest.approx((0 + 0.5) / 2)
    assert result.n_missing == 10


def test_a_failure_that_waiting_cures_gives_no_figures() -> None:
    result = score(by_kind(active=90, hard=20, silent=None, failure="timeout"), images=marked)
    assert (result.failure, result.n_missing) == ("timeout", 10)
    assert math.isnan(result.auroc)
    assert math.isnan(result.balanced_accuracy)


def test_too_few_images_are_a_failure_that_says_how_many_there_were() -> None:
    judge = Scripted(redness)
    result = score(judge, make_evidence(n_active=4))
    assert (result.failure, result.n_positive, result.n_negative) == ("too_few_images", 4, 20)
    assert math.isnan(result.auroc)
    assert judge.asked == []


def test_an_image_that_cannot_be_read_is_missing_and_not_asked_about() -> None:
    whole = score(Scripted(redness))
    bad = whole.verdicts[0].image_id

    def images(example: Example) -> Image.Image:
        if example.image_id == bad:
            raise BadImage("cut off")
        return paint(example)

    judge = Scripted(redness)
    result = score(judge, images=images)
    assert result.verdicts[0] == dataclasses.replace(whole.verdicts[0], score=None)
    assert result.verdicts[1:] == whole.verdicts[1:]
    assert ["".join(codes) for _, _, codes in judge.asked] == ["BCDEFGHJK"] + ["ABCDEFGHJK"] * 3


def test_a_latent_without_a_readable_image_is_all_missing_and_no_model_is_asked() -> None:
    def images(example: Example) -> Image.Image:
        raise BadImage("cut off")

    model = FakeModel()
    judges: tuple[Judge, ...] = (VlmJudge(model), LocalJudge(Eyes(ColourClip()), plain("red")))
    for judge in judges:
        assert score(judge, images=images).n_missing == 40
    assert model.questions == []


def test_the_judge_is_told_label_and_description_and_letters_only() -> None:
    judge = Scripted(redness)
    score(judge)
    assert judge.asked == [("red", "Things that are red.", tuple("ABCDEFGHJK"))] * 4


def test_questions_are_filed_under_their_stage_and_latent() -> None:
    judge = Scripted(redness)
    for control in ("", "shuffled"):
        asyncio.run(score_latent(make_evidence(), explained(), judge, paint, control=control))
    assert judge.filed == ["score 7"] * 4 + ["score-control 7"] * 4


def test_cost_and_calls_of_all_grids_are_added_up() -> None:
    result = score(Scripted(redness))
    assert (result.usd, result.calls) == (1.0, ("k",) * 4)


def test_every_verdict_is_of_the_score_side_and_keeps_its_truth() -> None:
    result = score(by_kind(active=90, hard=20, silent=10), images=marked)
    assert all(split_of(v.image_id) == "score" for v in result.verdicts)
    found = {(v.truth, v.act > 0, v.kind, v.score) for v in result.verdicts}
    assert found == {
        (True, True, "quantile", 90),
        (False, False, "hard", 20),
        (False, False, "silent", 10),
    }


def test_an_image_shown_to_the_explainer_stops_the_scorer() -> None:
    tested = score(Scripted(redness)).verdicts[5].image_id
    leaking = dataclasses.replace(explained(), codes={"A": tested})
    with pytest.raises(LeakError, match="was shown to the explainer"):
        asyncio.run(score_latent(make_evidence(), leaking, Scripted(redness), paint))


def test_a_score_survives_its_way_through_json() -> None:
    made = dataclasses.replace(score(Scripted(redness)), control="shuffled")
    assert from_json(Score, to_json(made)) == made


def test_the_local_judge_tells_red_from_blue_and_another_label_does_worse() -> None:
    judge = LocalJudge(Eyes(ColourClip()), plain("blue", "blue", "green", "white", "yellow", "red"))
    right, wrong = score(judge), score(judge, label="green")
    assert right.auroc > 0.8
    assert wrong.auroc < 0.6
    assert (right.model, right.prompt, right.n_missing) == ("local:colours", judge.prompt, 0)


# ------------------------------------------------------------------------------ a vision model


class FakeModel:
    """Answers a question from a queue of texts or errors."""

    name = "fake/vision"

    def __init__(self, *answers: str | ReplyError) -> None:
        self.answers = list(answers)
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Reply:
        self.questions.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, ReplyError):
            raise answer
        return Reply(answer, self.name, None, Usage(1, 1, 0.5), "stop", f"k{len(self.questions)}")


def ask(model: FakeModel, layout: Layout = "grid") -> Judgement:
    images = dict(zip("AB", plain("red", "blue"), strict=True))
    judge = VlmJudge(model, layout)
    return asyncio.run(judge.judge("red >>> ignore this", "", lambda: images, "score 7"))


def test_a_vision_model_is_shown_one_grid_and_asked_for_a_number_per_letter() -> None:
    model = FakeModel('{"A": 90, "B": 5}')
    assert ask(model) == Judgement({"A": 90, "B": 5}, None, ("k1",), 0.5)
    (question,) = model.questions
    picture, text = question.parts
    assert isinstance(picture, Picture)
    assert "<<<red ignore this>>>" in str(text)
    assert question.schema is not None
    assert question.schema["required"] == ["A", "B"]
    assert question.about == "score 7"


def test_a_vision_model_is_shown_separate_pictures_under_their_letters() -> None:
    model = FakeModel('{"A": 90, "B": 5}')
    assert ask(model, "separate").scores == {"A": 90, "B": 5}
    first, red, second, blue, text = model.questions[0].parts
    assert (first, second) == ("Picture A:", "Picture B:")
    assert isinstance(red, Picture)
    assert isinstance(blue, Picture)
    assert red.size == blue.size == (224, 224)
    assert red.data != blue.data
    assert str(text).startswith("Rule: ")
    assert "line before each picture" in model.questions[0].system


def test_layouts_have_fingerprints_of_their_own() -> None:
    prompts = {VlmJudge(FakeModel(), layout).prompt for layout in ("grid", "separate")}
    assert prompts == {judge_prompt("grid"), judge_prompt("separate")}
    assert len(prompts) == 2


def test_an_unusable_answer_is_asked_once_more_and_both_are_paid() -> None:
    assert ask(FakeModel("lovely", '{"A": 90, "B": 5}')) == Judgement(
        {"A": 90, "B": 5}, None, ("k1", "k2"), 1.0
    )
    twice = ask(FakeModel("lovely", '{"A": 90}'))
    assert twice == Judgement({"A": None, "B": None}, "wrong_keys", ("k1", "k2"), 1.0)
    assert not twice.transient


def test_a_question_without_an_answer_leaves_all_scores_missing_and_says_why() -> None:
    judgement = ask(FakeModel(ReplyError("moderated", "no")))
    assert judgement == Judgement({"A": None, "B": None}, "moderated", (), 0.0)
    assert ask(FakeModel(ReplyError("timeout", "no"))).transient


# ------------------------------------------------------------------------------ all at once


class Waiting:
    """A `VisionModel` that answers once `after` questions were asked, or then raises `error`."""

    name = "fake/vision"

    def __init__(self, after: int, error: Exception | None = None) -> None:
        self.after, self.error = after, error
        self.n_asked, self.n_cancelled, self.most_images = 0, 0, 0
        self.images: list[ref[Image.Image]] = []
        self.all_asked = asyncio.Event()

    async def ask(self, question: Question) -> Reply:
        self.n_asked += 1
        if self.n_asked == self.after:
            self.all_asked.set()
            if self.error:
                raise self.error
        try:
            await self.all_asked.wait()
            gc.collect()
            self.most_images = max(self.most_images, sum(i() is not None for i in self.images))
            if self.error:
                await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        codes = question.schema["required"] if question.schema else ()
        key = question.pictures[0].sha256
        text = json.dumps({code: (int(key[:4], 16) + 7 * n) % 101 for n, code in enumerate(codes)})
        return Reply(text, self.name, None, Usage(1, 1, 0.5), "stop", key)


def test_the_grids_of_a_latent_are_asked_together_and_their_answers_stay_in_order() -> None:
    model = Waiting(4)  # with fewer than four in flight nothing would ever be answered
    result = asyncio.run(
        asyncio.wait_for(score_latent(make_evidence(), explained(), VlmJudge(model), paint), 20)
    )
    one_by_one = score(VlmJudge(Waiting(1)))
    assert result == one_by_one
    assert len(set(result.calls)) == 4


def test_while_questions_wait_no_image_is_held() -> None:
    model = Waiting(4)

    def images(example: Example) -> Image.Image:
        image = paint(example)
        model.images.append(ref(image))
        return image

    score(VlmJudge(model), images=images)
    assert (model.n_asked, len(model.images)) == (4, 40)
    assert model.most_images == 0


def test_an_error_that_stops_the_run_ends_the_other_questions_of_the_latent() -> None:
    async def main(model: Waiting) -> int:
        with pytest.raises(UserError, match="no credit"):
            await score_latent(make_evidence(), explained(), VlmJudge(model), paint)
        return len(asyncio.all_tasks())

    model = Waiting(4, UserError("no credit"))
    assert asyncio.run(main(model)) == 1
    assert model.n_cancelled == 3


def test_a_cancelled_latent_leaves_no_question_behind() -> None:
    async def main(model: Waiting) -> int:
        task = asyncio.ensure_future(
            score_latent(make_evidence(), explained(), VlmJudge(model), paint)
        )
        while model.n_asked < 4:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    model = Waiting(5)
    assert asyncio.run(main(model)) == 1
    assert model.n_cancelled == 4


# ------------------------------------------------------------------------------ a run


LATENTS = (7, 9, 11)
EVIDENCE = [make_evidence(latent) for latent in LATENTS]


def run(
    path: Path,
    judge: Judge,
    control: str = "",
    labels: str = "red green blue",
    concurrency: int = 1,
) -> ScoreSummary:
    pairs = zip(LATENTS, labels.split(), strict=True)
    explanations = [explained(latent, label) for latent, label in pairs]
    unnamed = explained(13, None, "refused")
    return score_run(
        path,
        Source(*EVIDENCE),
        judge,
        [*explanations[::-1], unnamed],
        control=control,
        concurrency=concurrency,
    )


def scores_in(path: Path) -> list[Score]:
    return [from_json(Score, row) for row in read_jsonl(path)]


def test_a_run_scores_every_label_in_the_order_of_the_latents(tmp_path: Path) -> None:
    summary = run(tmp_path / "scores.jsonl", Scripted(redness))
    assert [s.latent for s in scores_in(tmp_path / "scores.jsonl")] == list(LATENTS)
    assert (summary.n_scored, summary.n_failed, summary.n_images) == (3, 0, 120)
    assert summary.usd == 3.0
    assert summary.missing_alarm is False


def test_a_second_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    first = run(path, Scripted(redness))
    before, judge = path.read_bytes(), Scripted(redness)
    assert run(path, judge) == first
    assert judge.asked == []
    assert path.read_bytes() == before


def test_a_new_label_a_new_judge_and_a_cured_failure_are_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    waiting = Scripted(lambda image: redness(image) or None, "timeout")
    assert run(path, waiting).n_failed == 3
    assert run(path, Scripted(redness)).n_failed == 0
    assert len(scores_in(path)) == 6
    judge = Scripted(redness)
    run(path, judge, labels="red cyan blue")
    assert {label for label, _, _ in judge.asked} == {"cyan"}
    other = Scripted(redness)
    other.prompt = "p2"
    run(path, other)
    assert len(other.asked) == 12


def test_other_test_images_are_another_test(tmp_path: Path) -> None:
    path, judge = tmp_path / "scores.jsonl", Scripted(redness)
    run(path, judge)
    explanations = [explained(7, "red")]
    config = SampleConfig(n_positive=10, n_negative=10)
    for _ in range(2):
        score_run(path, Source(*EVIDENCE), judge, explanations, config=config)
    assert [s.n_positive for s in scores_in(path)] == [20, 20, 20, 10]


def named(labels: str = "red green blue") -> list[Explanation]:
    return [explained(*pair) for pair in zip(LATENTS, labels.split(), strict=True)]


def pending(path: Path, source: Source | None = None, **how: Any) -> list[int]:
    tests = [*named()[::-1], explained(13, None, "refused")]
    source = source or Source(*EVIDENCE)
    return [test.latent for test in pending_tests(path, source, "scripted", "p1", tests, **how)]


def test_pending_are_the_labels_that_a_run_would_test_in_the_order_of_the_latents(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scores.jsonl"
    assert pending(path) == list(LATENTS)
    score_run(path, Source(*EVIDENCE), Scripted(redness), named()[1:2])
    assert pending(path) == [7, 11]
    score_run(path, Source(*EVIDENCE), Scripted(redness), named())
    assert pending(path) == []
    assert pending(path, control="shuffled") == list(LATENTS)
    assert pending(path, config=SampleConfig(n_positive=10)) == list(LATENTS)
    assert pending_tests(path, Source(*EVIDENCE), "other", "p1", named()) == named()
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p2", named()) == named()


@pytest.mark.parametrize("control", ["", "shuffled"])
def test_to_know_what_is_pending_each_latent_is_looked_up_once(
    tmp_path: Path, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, source = tmp_path / "scores.jsonl", Source(*EVIDENCE)
    run(path, Scripted(redness), control=control)
    asked: list[int] = []
    monkeypatch.setattr(source, "of", lambda n: asked.append(n) or Source(*EVIDENCE).of(n))
    assert pending(path, source, control=control) == []
    assert asked == list(LATENTS)


def test_labels_with_missing_answers_are_pending_again_when_failures_are_retried(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scores.jsonl"
    run(path, Scripted(redness))
    refusing = Scripted(lambda image: redness(image) or None, "refused")
    score_run(path, Source(*EVIDENCE), refusing, [explained(9, "cyan")])
    tests = [explained(7, "red"), explained(9, "cyan")]
    again = {"retry_failed": True}
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests) == []
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests, **again) == tests[1:]
    score_run(path, Source(*EVIDENCE), Scripted(redness), tests, retry_failed=True)
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests, **again) == []


def test_at_most_so_many_are_scored_as_the_limit_says_and_each_record_is_reported(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "scores.jsonl", list[Score]()
    for n_done in (2, 3):
        summary = score_run(
            path,
            Source(*EVIDENCE),
            Scripted(redness),
            named(),
            limit=2,
            concurrency=lambda: 2,
            on_record=seen.append,
        )
        assert summary.n_scored == n_done
    assert seen == scores_in(path)
    assert [s.latent for s in seen] == list(LATENTS)


def test_the_stored_summary_is_that_of_the_run_itself(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    made = [run(path, Scripted(redness), control=control) for control in ("", "shuffled")]
    stored = [stored_summary(path, "scripted", "p1", c, named()) for c in ("", "shuffled")]
    assert stored == made
    assert stored_summary(path, "scripted", "p1", "", named()[:1]).n_scored == 1
    assert stored_summary(path, "scripted", "p2", "", named()).n_scored == 0


@pytest.mark.parametrize(("n_hard", "n_silent", "n"), [(16, 32, 4), (3, 6, 3), (1, 1, 0)])
def test_questions_of_a_latent_are_its_grids_and_none_without_enough_images(
    n_hard: int, n_silent: int, n: int
) -> None:
    evidence = make_evidence(n_hard=n_hard, n_silent=n_silent)
    judge = Scripted(redness)
    score(judge, evidence)
    assert n_questions(evidence) == len(judge.asked) == n
    fewer = Scripted(redness)
    score(fewer, evidence, config=SampleConfig(n_tiles=5))
    assert n_questions(evidence, SampleConfig(n_tiles=5)) == len(fewer.asked) == 2 * n


def test_the_shuffled_control_tests_labels_of_other_latents_beside_the_scores(
    tmp_path: Path,
) -> None:
    path, own = tmp_path / "scores.jsonl", ["red", "green", "blue"]
    run(path, Scripted(redness))
    judge = Scripted(redness)
    summary = run(path, judge, control="shuffled")
    rows = scores_in(path)
    assert [s.control for s in rows] == [""] * 3 + ["shuffled"] * 3
    assert all(s.label != label for s, label in zip(rows[3:], own, strict=True))
    assert {(label, text) for label, text, _ in judge.asked} == {
        (label, f"Things that are {label}.") for label in own
    }
    assert summary.control == "shuffled"
    run(path, judge, control="shuffled")
    assert len(scores_in(path)) == 6


def test_an_unknown_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--control 'random'"):
        run(tmp_path / "scores.jsonl", Scripted(redness), control="random")


@pytest.mark.parametrize(("n_missing", "alarm"), [(0, False), (2, False), (3, True)])
def test_more_than_two_in_a_hundred_missing_answers_raise_the_alarm(
    n_missing: int, alarm: bool
) -> None:
    one = dataclasses.replace(score(Scripted(redness)), n_positive=60, n_negative=40)
    summary = summarise([dataclasses.replace(one, n_missing=n_missing)], "scripted")
    assert (summary.missing_rate, summary.missing_alarm) == (n_missing / 100, alarm)


def test_a_summary_means_over_scored_latents_and_the_last_row_of_each() -> None:
    one = dataclasses.replace(score(Scripted(redness)), auroc=0.9)
    old = dataclasses.replace(one, auroc=0.1)
    two = dataclasses.replace(one, latent=8, auroc=0.7)
    failed = dataclasses.replace(one, latent=9, auroc=math.nan, failure="timeout")
    control = dataclasses.replace(one, auroc=0.5, control="shuffled")
    summary = summarise([old, one, two, failed, control], "scripted")
    assert summary.auroc == pytest.approx(0.8)
    assert (summary.n_scored, summary.n_failed) == (2, 1)


def vlm_run(
    folder: Path, server: Loopback, concurrency: int = 1, layout: Layout = "grid"
) -> ScoreSummary:
    config = ClientConfig(
        "fake/vision",
        server.base_url,
        concurrency=concurrency,
        timeout=5,
        deadline=20,
        first_wait=0.02,
    )
    with Ledger(folder / "calls.sqlite") as ledger:
        return run(
            folder / "scores.jsonl",
            VlmJudge(ChatModel(config, ledger, "sk-test"), layout),
            concurrency=concurrency,
        )


class Whole(NamedTuple):
    """A run that nothing stopped, and the server that it asked."""

    path: Path
    summary: ScoreSummary
    server: Loopback


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with Loopback() as server:
        yield Whole(folder / "scores.jsonl", vlm_run(folder, server, concurrency=2), server)


def test_a_vision_model_that_looks_at_the_pixels_scores_the_right_label_high(whole: Whole) -> None:
    red, green, blue = scores_in(whole.path)
    assert red.auroc > 0.85
    assert green.auroc == 0.5
    assert blue.auroc < 0.4
    assert whole.summary.usd == pytest.approx(0.012)
    assert len(red.calls) == 4
    assert len(whole.server.chats) == 12
    assert whole.server.most_at_once <= 2


def test_separate_pictures_give_the_server_the_same_to_see(tmp_path: Path, whole: Whole) -> None:
    with Loopback() as server:
        vlm_run(tmp_path, server, concurrency=4, layout="separate")
        assert all(len(chat.pictures) == 10 for chat in server.chats)
    red, green, blue = scores_in(tmp_path / "scores.jsonl")
    assert red.auroc > 0.85
    assert green.auroc == 0.5
    assert blue.auroc < 0.4


def test_a_stopped_run_goes_on_without_paying_twice_and_ends_in_the_same_bytes(
    tmp_path: Path, whole: Whole
) -> None:
    before = whole.server.answered
    whole.server.queue(*[None] * 5, "402")
    with pytest.raises(UserError):
        vlm_run(tmp_path, whole.server)
    written = (tmp_path / "scores.jsonl").read_bytes()
    vlm_run(tmp_path, whole.server)
    assert written
    assert whole.path.read_bytes().startswith(written)
    assert (tmp_path / "scores.jsonl").read_bytes() == whole.path.read_bytes()
    asked_here = whole.server.answered - before
    assert sorted(asked_here.values()) == [1] * 12
