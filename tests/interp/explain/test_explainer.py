import asyncio
import dataclasses
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from interp.explain.examples import ShowConfig, choose, medium_of
from interp.explain.explainer import ExplainConfig, VlmExplainer
from interp.explain.run import explain_run
from interp.llm.types import Question, Reply, Usage
from interp.pictures.grid import FIRST, SECOND
from interp.records.codec import from_json
from interp.records.split import LeakError, split_of
from interp.records.types import Evidence, Example, Explanation
from sae.core.errors import UserError
from sae.data.images import BadImage
from tests.support.interp.explaining import ColourSource, colour_of, draw, image_ids, run, stats
from tests.support.paths import ROOT
from tests.support.servers.loopback import COST, Fault, Loopback


class Scripted:
    """A `VisionModel` that keeps the questions and says what it is told."""

    def __init__(self, *texts: str, name: str = "scripted") -> None:
        self.name, self.texts, self.questions = name, list(texts), list[Question]()

    async def ask(self, question: Question) -> Reply:
        self.questions.append(question)
        text = self.texts.pop(0) if self.texts else answer(question)
        return Reply(text, self.name, None, Usage(1, 1, 0.5), "stop", f"k{len(self.questions)}")


def answer(question: Question, **changes: object) -> str:
    fields = question.schema["properties"]
    codes = list(fields["seen"]["properties"])
    values = {
        "seen": dict.fromkeys(codes, "round"),
        "candidates": [{"level": "mark", "text": "Round mark.", "fits": codes}],
        "second_set": "squares",
        "region": "inside",
        "verdict": "single",
        "label": "Round mark.",
        "second_label": "",
        "level": "mark",
        "description": "A round mark. Ovals do not count.",
        "exceptions": [],
        "confidence": 90,
        **changes,
    }
    return json.dumps({name: values[name] for name in fields})


def explained(model, source=None, latent=0, **kwargs) -> Explanation:
    source = source or ColourSource()
    explainer = VlmExplainer(model, **kwargs)
    return asyncio.run(explainer.explain(source.of(latent), source.image))


def rows(folder: Path) -> list[Explanation]:
    lines = (folder / "explanations.jsonl").read_text().splitlines()
    return [from_json(Explanation, json.loads(line)) for line in lines]


@pytest.fixture
def server():
    with Loopback() as running:
        yield running


# Which images are shown


def test_eight_top_four_weaker_and_eleven_negatives_are_shown():
    shown = choose(ColourSource().of(3), ShowConfig())
    kinds = [example.kind for example in shown.positives]
    assert (kinds.count("top"), kinds.count("quantile")) == (8, 4)
    assert len(shown.strong) == 8
    kinds = [example.kind for example in shown.negatives]
    assert (kinds.count("hard"), kinds.count("silent")) == (5, 6)
    everything = [example.image_id for example in shown.positives + shown.negatives]
    assert len(set(everything)) == 23


def test_the_weaker_ones_are_of_the_middle_strata():
    shown = choose(ColourSource().of(0), ShowConfig())
    assert all(e.stratum in (1, 2, 3) for e in shown.positives if e.kind == "quantile")


def test_the_choice_and_its_order_follow_from_the_latent_alone():
    source = ColourSource()
    assert choose(source.of(5), ShowConfig()) == choose(source.of(5), ShowConfig())
    orders = {tuple(e.rank for e in choose(source.of(n), ShowConfig()).positives) for n in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize(("rates", "n_sketch"), [((0.03, 0.01), 6), ((0.0, 0.01), 0)])
def test_the_top_keeps_the_domain_mix_of_the_latent(rates, n_sketch):
    evidence = ColourSource().of(0)
    examples = [
        dataclasses.replace(e, domain="photo" if e.rank < 8 else "sketch")
        for e in evidence.of("explain", "top")
    ]
    rate = {"sketch": rates[0], "photo": rates[1]}
    mixed = Evidence(dataclasses.replace(evidence.stats, domain_rate=rate), tuple(examples))
    strong = choose(mixed, ShowConfig()).positives
    assert len(strong) == 8
    assert sum(e.domain == "sketch" for e in strong) == n_sketch


def test_negatives_are_only_of_the_positives_domains():
    evidence = ColourSource().of(0)
    examples = [
        dataclasses.replace(e, domain="photo") if e.act > 0 else e for e in evidence.examples
    ]
    shown = choose(Evidence(evidence.stats, tuple(examples)), ShowConfig())
    assert {e.domain for e in shown.negatives} == {"photo"}


def test_with_fewer_than_eight_negatives_there_is_no_contrast_set():
    assert choose(ColourSource(n_silent=7).of(0), ShowConfig()).negatives == ()
    assert len(choose(ColourSource(n_silent=8).of(0), ShowConfig()).negatives) == 8


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
    shown = choose(ColourSource(n_top, n_silent).of(latent), ShowConfig())
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


# What is asked


def test_the_question_holds_two_grids_and_names_strong_and_weak_letters():
    model = Scripted()
    explanation = explained(model)
    (question,) = model.questions
    text, first, grid, second, neg_grid, last = question.parts
    assert (first, second, last) == (
        "First set:",
        "Second set:",
        "Now answer with the JSON object.",
    )
    assert grid.media_type == neg_grid.media_type == "image/jpeg"
    by_letter = {e.image_id: e for e in ColourSource().of(0).examples}
    strong = text.partition("strongly to ")[2].partition(", more")[0]
    for letter in explanation.codes:
        if letter in FIRST:
            top = by_letter[explanation.codes[letter]]
            assert (f" {letter}" in f" {strong}") == (top.kind == "top")
    assert question.schema["required"][:2] == ["seen", "second_set"]
    assert (question.max_tokens, question.temperature) == (700, 0.3)


def test_separate_pictures_are_named_by_the_letters_that_the_explanation_keeps():
    model = Scripted()
    explanation = explained(model, config=ExplainConfig(layout="separate"))
    texts = [part for part in model.questions[0].parts[1:-1] if isinstance(part, str)]
    assert [text[-2] for text in texts] == list(explanation.codes) == [*FIRST, *SECOND]
    assert {picture.size for picture in model.questions[0].pictures} == {(224, 224)}
    assert model.questions[0].about == "explain 0"


def test_neither_class_nor_file_name_nor_activation_is_told():
    model = Scripted()
    explained(model)
    text = " ".join(part for part in model.questions[0].parts if isinstance(part, str))
    for secret in ("class red", "Disc", "red", "9.0"):
        assert secret not in text


def test_patch_latents_add_a_twin_grid_and_ask_for_the_region():
    model = Scripted()
    heat = bytes([0] * 20 + [255] * 10 + [0] * 19)
    explained(model, ColourSource(heat=heat), patch_grid=(7, 7))
    (question,) = model.questions
    pictures = [part for part in question.parts if not isinstance(part, str)]
    assert len(pictures) == 3
    assert pictures[0] != pictures[1]
    assert "region" in question.schema["required"]
    assert "magenta outline" in question.parts[0]


def test_an_image_that_can_no_longer_be_read_is_left_out():
    source, model = ColourSource(), Scripted()
    broken = source.of(0).examples[0]

    def image(example: Example) -> Image.Image:
        if example.image_id == broken.image_id:
            raise BadImage("gone")
        return source.image(example)

    explanation = asyncio.run(VlmExplainer(model).explain(source.of(0), image))
    assert broken.image_id not in explanation.codes.values()
    assert len([c for c in explanation.codes if c in FIRST]) == 11
    assert explanation.label


# What becomes of the answer


def test_label_and_description_are_linted_and_provenance_is_kept():
    model = Scripted()
    explanation = explained(model)
    assert explanation.label == "round mark"
    assert explanation.second_label is None
    assert explanation.candidates == ("round mark",)
    assert (explanation.calls, explanation.usd) == (("k1",), 0.5)
    assert (explanation.model, explanation.prompt) == ("scripted", VlmExplainer(model).prompt)
    assert list(explanation.codes) == [*FIRST, *SECOND]
    assert all(split_of(image_id) == "explain" for image_id in explanation.codes.values())


def test_remarks_of_the_linter_are_kept():
    source, model = ColourSource(), Scripted()
    explained(model, source)
    text = answer(model.questions[0], label="Sketch of a disc", description="word " * 50)
    explanation = explained(Scripted(text), source)
    assert explanation.label == "disc"
    assert set(explanation.lint) == {"medium_stripped", "class_name", "description_long"}


def test_images_under_64_pixels_are_remarked():
    source = ColourSource()
    explainer = VlmExplainer(Scripted())
    explanation = asyncio.run(
        explainer.explain(source.of(0), lambda e: draw("red", e.image_id, size=40))
    )
    assert "low_resolution" in explanation.lint


def test_a_latent_with_fewer_than_three_images_is_not_explained():
    model = Scripted()
    explanation = explained(model, ColourSource(n_top=1))
    assert (explanation.label, explanation.failure) == (None, "too_few_images")
    assert model.questions == []


def test_an_unusable_answer_is_mended_and_both_are_paid():
    explanation = explained(Scripted("I like it."))
    assert explanation.label == "round mark"
    assert (explanation.calls, explanation.usd) == (("k1", "k2"), 1.0)


def test_an_answer_that_stays_unusable_is_a_failure_and_never_a_label():
    explanation = explained(Scripted("I like it.", '{"label": "a dog"}'))
    assert (explanation.label, explanation.failure) == (None, "wrong_keys")
    assert (explanation.calls, explanation.usd) == (("k1", "k2"), 1.0)


def test_a_label_of_nothing_but_stops_is_a_failure():
    model = Scripted()
    explained(model)
    text = answer(model.questions[0], label=" .. ")
    assert explained(Scripted(text, text)).failure == "invalid"


def test_settings_are_part_of_the_fingerprint():
    prompts = {
        VlmExplainer(Scripted(), config).prompt
        for config in (
            ExplainConfig(),
            ExplainConfig(cell=336),
            ExplainConfig(show=ShowConfig(n_negatives=9)),
            ExplainConfig(layout="separate"),
        )
    }
    assert len(prompts) == 4


# Whole runs against the server


def test_every_latent_gets_the_colour_that_the_server_sees(server, tmp_path):
    summary = run(tmp_path, server.base_url, 8)
    assert [row.label for row in rows(tmp_path)] == [f"a {colour_of(n)} area" for n in range(8)]
    assert [row.latent for row in rows(tmp_path)] == list(range(8))
    assert (summary.n_labelled, summary.n_failed) == (8, 0)
    assert summary.usd == pytest.approx(8 * COST)
    assert server.most_at_once <= 4


def test_a_finished_run_asks_nothing_again(server, tmp_path):
    run(tmp_path, server.base_url, 4)
    before = (tmp_path / "explanations.jsonl").read_bytes()
    assert run(tmp_path, server.base_url, 4).n_skipped == 4
    assert (tmp_path / "explanations.jsonl").read_bytes() == before
    assert len(server.chats) == 4


def test_a_lost_file_is_written_again_from_the_ledger_without_asking(server, tmp_path):
    run(tmp_path, server.base_url, 4)
    before = (tmp_path / "explanations.jsonl").read_bytes()
    (tmp_path / "explanations.jsonl").unlink()
    run(tmp_path, server.base_url, 4)
    assert (tmp_path / "explanations.jsonl").read_bytes() == before
    assert len(server.chats) == 4


def test_lasting_failures_are_skipped_and_transient_ones_tried_again(server, tmp_path):
    server.queue(None, "403", *["500"] * 10)
    first = run(tmp_path, server.base_url, 3, concurrency=1)
    assert first.failures == {"moderated": 1, "server": 1}
    second = run(tmp_path, server.base_url, 3, concurrency=1)
    assert (second.n_skipped, second.n_labelled) == (2, 1)
    assert [(row.latent, row.failure) for row in rows(tmp_path)] == [
        (0, None),
        (1, "moderated"),
        (2, "server"),
        (2, None),
    ]


def test_another_model_or_prompt_explains_all_again(tmp_path):
    path, source = tmp_path / "explanations.jsonl", ColourSource()
    explain_run(path, source, VlmExplainer(Scripted()), [0, 1])
    assert explain_run(path, source, VlmExplainer(Scripted(name="other")), [0, 1]).n_skipped == 0
    config = ExplainConfig(max_tokens=800)
    assert explain_run(path, source, VlmExplainer(Scripted(), config), [0, 1]).n_skipped == 0
    assert explain_run(path, source, VlmExplainer(Scripted()), [0, 1, 1]).n_skipped == 2


@pytest.mark.parametrize(("fault", "code"), [("401", 2), ("402", 3)])
def test_a_fatal_error_stops_sending_and_keeps_what_was_answered(server, tmp_path, fault, code):
    server.queue(*[None] * 3, *[fault] * 50)
    with pytest.raises(UserError) as caught:
        run(tmp_path, server.base_url, 30, concurrency=2)
    assert caught.value.exit_code == code
    assert len(server.chats) <= 3 + 2
    assert [row.latent for row in rows(tmp_path)] == list(range(len(rows(tmp_path))))
    server.faults.clear()
    run(tmp_path, server.base_url, 6)
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("prose", "not_json"),
        ("wrong_letters", "wrong_keys"),
        ("truncated", "truncated"),
        ("refusal", "refused"),
        ("content_filter", "refused"),
        ("403", "moderated"),
        ("400", "bad_request"),
        ("choices_null", "empty"),
        ("html", "html"),
    ],
)
def test_a_lasting_fault_is_a_state_of_the_explanation(server, tmp_path, fault, failure):
    server.always = Fault(fault)
    run(tmp_path, server.base_url, 1)
    (row,) = rows(tmp_path)
    assert (row.label, row.failure) == (None, failure)
    # A body without a choice can still say what it cost; nothing of it is worth keeping.
    n_billed = len(server.chats) if fault == "choices_null" else len(row.calls)
    assert row.usd == pytest.approx(COST * n_billed)


def start(folder: Path, server: Loopback, n_latents: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.support.interp.explaining",
        str(folder),
        server.base_url,
        str(n_latents),
    ]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)


def wait_for(condition) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("nothing came")


def n_stored(folder: Path) -> int:
    ledger = sqlite3.connect(f"file:{folder}/calls.sqlite?mode=ro", uri=True)
    (count,) = ledger.execute("SELECT COUNT(*) FROM calls").fetchone()
    ledger.close()
    return int(count)


def test_kill_9_in_the_middle_loses_no_answer_and_ends_in_the_same_bytes(server, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, server.base_url, 16)
    server.requests.clear()
    server.latency = 0.05
    child = start(broken, server, 16)
    with child:
        wait_for(lambda: len(server.chats) > 6)
        child.send_signal(signal.SIGKILL)
    stored, asked = n_stored(broken), len(server.chats)
    assert 0 < stored < 16
    assert asked - stored <= 4  # lost at most what was in flight
    run(broken, server.base_url, 16)
    assert len(server.chats) - asked == 16 - stored
    assert (broken / "explanations.jsonl").read_bytes() == (
        whole / "explanations.jsonl"
    ).read_bytes()


def test_sigint_keeps_what_is_in_flight_and_the_same_command_goes_on(server, tmp_path):
    server.latency = 0.2
    child = start(tmp_path, server, 12)
    with child:
        wait_for(lambda: len(server.chats) >= 2)
        child.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in child.stderr.read()
    in_flight = len(server.chats)
    assert in_flight < 12
    stored = n_stored(tmp_path)
    assert stored > 0  # none was answered yet when the signal was sent
    server.latency = 0
    run(tmp_path, server.base_url, 12)
    assert len(server.chats) == in_flight + 12 - stored
    assert [row.latent for row in rows(tmp_path)] == list(range(12))


def test_the_file_is_at_any_time_a_prefix_of_the_final_one(server, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole, server.base_url, 12)
    server.queue(*[None] * 8, "401")
    with pytest.raises(UserError):
        run(stopped, server.base_url, 12)
    part = (stopped / "explanations.jsonl").read_bytes()
    assert part
    assert (whole / "explanations.jsonl").read_bytes().startswith(part)


def test_the_tests_own_images_really_lie_on_the_explain_side():
    assert len(image_ids("explain")) > 1500
    assert stats(0).status == "live"
