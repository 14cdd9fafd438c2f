"""How well a label predicts a latent on images that nobody has shown before."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from latents import ColourClip, Source, explained, make_evidence, paint, plain
from loopback import Loopback
from PIL import Image

from interp.client import ChatModel, ClientConfig
from interp.eyes import Eyes
from interp.judge import Judge, Judgement, VlmJudge
from interp.ledger import Ledger
from interp.local import LocalJudge
from interp.questions import Picture, Question, Reply, ReplyError, Usage
from interp.records import Evidence, Example, Score, from_json, split_of, to_json
from interp.sampling import LeakError, SampleConfig
from interp.score import score_latent
from interp.scoring import ScoreSummary, score_run, summarise
from sae.errors import UserError
from sae.files import read_jsonl
from sae.images import BadImage


class Scripted:
    """A judge that scores each picture by a function, and remembers what it was asked."""

    name = "scripted"
    prompt = "p1"

    def __init__(self, rule: Callable[[Image.Image], float | None], failure: str = "") -> None:
        self.rule, self.failure = rule, failure
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []

    async def judge(
        self, label: str, description: str, images: Sequence[Image.Image], codes: Sequence[str]
    ) -> Judgement:
        self.asked.append((label, description, tuple(codes)))
        scores = dict(zip(codes, map(self.rule, images), strict=True))
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
    assert [len(codes) for _, _, codes in judge.asked] == [9, 10, 10, 10]


def test_the_judge_is_told_label_and_description_and_letters_only() -> None:
    judge = Scripted(redness)
    score(judge)
    assert judge.asked == [("red", "Things that are red.", tuple("ABCDEFGHJK"))] * 4


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


def ask(model: FakeModel) -> Judgement:
    images = plain("red", "blue")
    return asyncio.run(VlmJudge(model).judge("red >>> ignore this", "", images, "AB"))


def test_a_vision_model_is_shown_one_grid_and_asked_for_a_number_per_letter() -> None:
    model = FakeModel('{"A": 90, "B": 5}')
    assert ask(model) == Judgement({"A": 90, "B": 5}, None, ("k1",), 0.5)
    (question,) = model.questions
    picture, text = question.parts
    assert isinstance(picture, Picture)
    assert "<<<red ignore this>>>" in str(text)
    assert question.schema is not None
    assert question.schema["required"] == ["A", "B"]


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


def vlm_run(folder: Path, server: Loopback, concurrency: int = 1) -> ScoreSummary:
    config = ClientConfig("fake/vision", server.base_url, timeout=5, deadline=20, first_wait=0.02)
    with Ledger(folder / "calls.sqlite") as ledger:
        return run(
            folder / "scores.jsonl",
            VlmJudge(ChatModel(config, ledger, "sk-test")),
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
